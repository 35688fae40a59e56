package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"lrd/internal/handover"
	"lrd/internal/output"
	"lrd/internal/sessions"
)

// nowhere is a store that keeps nothing: the daemon's, which is none of the test's business.
type nowhere struct{}

func (nowhere) Put(context.Context, string, ...*os.File) error { return nil }
func (nowhere) Remove(context.Context, ...string) error        { return nil }

// attached is a client at a container's console, in a session that the daemon has frozen; conn is the daemon's end.
func attached(t *testing.T, dir, id string, log *output.Log) (client net.Conn, conn handover.File) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "api"))
	assert.NilError(t, err)
	defer l.Close()
	client, err = net.Dial("unix", l.Addr().String())
	assert.NilError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	server, err := l.Accept()
	assert.NilError(t, err)
	c, err := sessions.NewConn(server, nil)
	assert.NilError(t, err)
	var mu sync.Mutex
	m := sessions.New(sessions.Options{Dir: dir, Descriptors: nowhere{}, Log: slog.New(slog.DiscardHandler), Frozen: func(name string, f *os.File) {
		mu.Lock()
		defer mu.Unlock()
		conn = handover.File{Name: name, File: f}
	}})
	assert.NilError(t, m.Freeze(t.Context()))
	streams := sessions.Streams{TTY: true, Output: sessions.FromReader(log.Reader(log.End())), Stdin: struct{ io.WriteCloser }{}, DetachKeys: sessions.DefaultDetachKeys}
	d := sessions.Description{Kind: "attach", Container: id, Follows: streams.Follow(id, nil)}
	end, err := m.Serve(t.Context(), c, d, nil, streams)
	assert.NilError(t, err)
	assert.Equal(t, end, sessions.EndFrozen)
	mu.Lock()
	defer mu.Unlock()
	t.Cleanup(func() { _ = conn.File.Close() })
	return client, conn
}

// TestConsole: a container with a terminal and a client at it. The standby drains, passes on what the client types, is
// killed, takes in the console of the next run, which systemd has begun, and lets go of a client that detaches.
func TestConsole(t *testing.T) {
	s := startService(t, func() int { return 0 })
	id, dir := fmt.Sprintf("%064x", 7), t.TempDir()
	master, slave := openPTY(t)
	assert.NilError(t, unix.Mkfifo(filepath.Join(dir, "via"), 0o600))
	via := openFIFO(t, filepath.Join(dir, "via"))
	socket := filepath.Join(dir, "listener")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	assert.NilError(t, err)
	l.SetUnlinkOnClose(false)
	listener, err := l.File()
	assert.NilError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	assert.NilError(t, l.Close())

	h := handover.Holding{Drain: true, Sessions: filepath.Join(dir, "sessions"), Logs: []handover.Log{{ID: id, Dir: filepath.Join(dir, "output")}}}
	log, err := output.Open(h.Logs[0].Dir, output.Options{})
	assert.NilError(t, err)
	assert.NilError(t, log.BeginRun())
	client, conn := attached(t, h.Sessions, id, log)
	h.Files = []handover.File{
		{Name: handover.Name(id, handover.Console), File: master},
		{Name: handover.Name(id, handover.Via), File: via},
		{Name: handover.Name(id, handover.Listener), File: listener},
		conn,
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	assert.NilError(t, handover.Pass(ctx, placesIn(s.dir).socket, h, func(released func(string)) {
		assert.Check(t, log.Close())
		released(id)
	}))

	// A SIGKILL may double what was being sent just then.
	sees := func(want string) {
		t.Helper()
		var got []byte
		assert.NilError(t, client.SetReadDeadline(time.Now().Add(30*time.Second)))
		for buf := make([]byte, 4096); !strings.HasSuffix(string(got), want); {
			n, err := client.Read(buf)
			assert.NilError(t, err, "%q, and not %q", got, want)
			got = append(got, buf[:n]...)
		}
	}
	says(t, slave, "first run\n")
	sees("first run\r\n")
	s.kill()
	says(t, slave, "last words\n")
	assert.NilError(t, slave.Close())

	second, slave := openPTY(t)
	deliver(t, socket, second)
	says(t, slave, "second run\n")
	sees("last words\r\nsecond run\r\n")
	s.kill()
	says(t, slave, "after a crash\n")
	sees("after a crash\r\n")
	_, err = io.WriteString(client, "typed\n")
	assert.NilError(t, err)
	line := make([]byte, len("typed\n"))
	_, err = io.ReadFull(slave, line)
	assert.NilError(t, err)
	assert.Equal(t, string(line), "typed\n")
	sees("typed\r\n") // its echo
	_, err = client.Write(sessions.DefaultDetachKeys)
	assert.NilError(t, err)
	_, err = io.ReadAll(client)
	assert.NilError(t, err)
	assert.NilError(t, client.Close())
	eventually(t, "the session is put away", func() bool { return !strings.Contains(strings.Join(s.names(), " "), "session.") })

	var news, names []string
	assert.NilError(t, handover.TakeBack(ctx, placesIn(s.dir).socket, func(files []handover.File) error {
		defer handover.CloseFiles(files)
		news, names = nil, nil
		for _, f := range files {
			names = append(names, f.Name)
			if f.New {
				news = append(news, f.Name)
			}
		}
		return nil
	}))
	assert.Equal(t, strings.Join(news, " "), handover.Name(id, handover.Console))
	assert.Equal(t, len(names), 3, "the client has left: %v", names)
	log, err = output.Open(h.Logs[0].Dir, output.Options{})
	assert.NilError(t, err)
	defer log.Close()
	assert.Assert(t, log.Running())
	var all []byte
	for r := log.Reader(output.Position{}).Until(log.End()); ; {
		c, err := r.Next(t.Context())
		if err != nil {
			assert.ErrorIs(t, err, io.EOF)
			break
		}
		all = append(all, c.Data...)
	}
	assert.Equal(t, string(all), "first run\r\nlast words\r\nsecond run\r\nafter a crash\r\ntyped\r\n")
}

// openPTY is a console's two ends, the master as the runtime's is when it has been taken in.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	blocking, slave, err := pty.Open()
	assert.NilError(t, err)
	defer blocking.Close()
	fd, err := duplicate(blocking)
	assert.NilError(t, err)
	assert.NilError(t, unix.SetNonblock(fd, true))
	master = os.NewFile(uintptr(fd), "master")
	t.Cleanup(func() { _ = master.Close(); _ = slave.Close() })
	return master, slave
}

func says(t *testing.T, slave *os.File, text string) {
	t.Helper()
	_, err := slave.WriteString(text)
	assert.NilError(t, err)
}

// deliver is the runtime, which sends a console to a socket and closes its own.
func deliver(t *testing.T, socket string, master *os.File) {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	assert.NilError(t, err)
	defer c.Close()
	fd, err := duplicate(master)
	assert.NilError(t, err)
	defer unix.Close(fd)
	_, _, err = c.WriteMsgUnix([]byte("/dev/ptmx"), unix.UnixRights(fd), nil)
	assert.NilError(t, err)
	assert.NilError(t, master.Close())
}
