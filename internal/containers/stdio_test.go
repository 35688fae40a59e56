package containers

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/output"
)

// listener is a console listener at a path longer than a socket's may be.
func listener(t *testing.T) (path string, f *os.File) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	assert.NilError(t, os.Mkdir(dir, 0o700))
	path = filepath.Join(dir, fdListener)
	f, err := listenConsole(path)
	assert.NilError(t, err)
	return path, f
}

// consoleServer serves f and gives the consoles that arrive.
func consoleServer(t *testing.T, f *os.File) (cl *output.Consoles, taken chan *os.File) {
	t.Helper()
	taken = make(chan *os.File, 10)
	cl, err := output.ServeConsoles(f, func(master *os.File) { taken <- master })
	assert.NilError(t, err)
	return cl, taken
}

// speaks checks that what is written to the slave comes out of the master.
func speaks(t *testing.T, slave, master *os.File) {
	t.Helper()
	_, err := slave.WriteString("hello\n")
	assert.NilError(t, err)
	assert.NilError(t, master.SetReadDeadline(time.Now().Add(20*time.Second)), "not in the poller")
	assert.Check(t, is.Equal(read(t, master), "hello\r\n"))
}

func TestConsoleArrives(t *testing.T) {
	path, f := listener(t)
	cl, taken := consoleServer(t, f)
	for range 2 {
		slave, err := deliverConsole(path)
		assert.NilError(t, err)
		master := <-taken
		<-cl.First()
		speaks(t, slave, master)
		flags, err := unix.FcntlInt(master.Fd(), unix.F_GETFD, 0)
		assert.NilError(t, err)
		assert.Check(t, flags&unix.FD_CLOEXEC != 0, "it leaks into children")
		assert.NilError(t, master.Close())
		assert.NilError(t, slave.Close())
	}
	assert.NilError(t, cl.Close())
	_, err := os.Lstat(path)
	assert.NilError(t, err, "the socket is for the next run")
}

// A console that was sent while no daemon was there waits in the socket's queue.
func TestParkedConsole(t *testing.T) {
	path, f := listener(t)
	slave, err := deliverConsole(path)
	assert.NilError(t, err)
	defer slave.Close()
	cl, taken := consoleServer(t, f)
	master := <-taken
	speaks(t, slave, master)
	assert.NilError(t, master.Close())
	assert.NilError(t, cl.Close())
}

// Whatever a peer sends that is no console, the next one is heard.
func TestBadPeers(t *testing.T) {
	path, f := listener(t)
	cl, taken := consoleServer(t, f)
	dial := func() *net.UnixConn {
		dir, err := os.Open(filepath.Dir(path))
		assert.NilError(t, err)
		defer dir.Close()
		assert.NilError(t, unix.Fchdir(int(dir.Fd())))
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: fdListener, Net: "unix"})
		assert.NilError(t, err)
		return conn
	}
	wd, err := os.Getwd()
	assert.NilError(t, err)
	defer func() { assert.NilError(t, os.Chdir(wd)) }()

	assert.NilError(t, dial().Close())
	words := dial()
	_, err = words.Write([]byte("hello"))
	assert.NilError(t, err)
	two := dial()
	r, w, err := os.Pipe()
	assert.NilError(t, err)
	_, _, err = two.WriteMsgUnix([]byte("x"), unix.UnixRights(int(r.Fd()), int(w.Fd())), nil)
	assert.NilError(t, err)
	assert.NilError(t, w.Close())

	slave, err := deliverConsole(path)
	assert.NilError(t, err)
	speaks(t, slave, <-taken)
	// Neither of the two was kept: with its last writer closed, the pipe has ended.
	_, err = r.Read(make([]byte, 1))
	assert.ErrorContains(t, err, "EOF")
	for _, c := range []interface{ Close() error }{words, two, r, slave} {
		assert.NilError(t, c.Close())
	}
	assert.NilError(t, cl.Close())
}

func TestOpenFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	_, err := openFIFO(path, 0)
	assert.Check(t, os.IsNotExist(err))
	assert.NilError(t, unix.Mkfifo(path, 0o600))
	f, err := openFIFO(path, 128<<10) // does not wait for the other end
	assert.NilError(t, err)
	defer f.Close()
	size, err := unix.FcntlInt(f.Fd(), unix.F_GETPIPE_SZ, 0)
	assert.NilError(t, err)
	assert.Check(t, size >= 64<<10)
	link := path + ".link"
	assert.NilError(t, os.Symlink(path, link))
	_, err = openFIFO(link, 0)
	assert.ErrorIs(t, err, unix.ELOOP)
}

// A duplicate has a deadline and a life of its own.
func TestDuplicate(t *testing.T) {
	master, slave, err := pty.Open()
	assert.NilError(t, err)
	defer slave.Close()
	assert.NilError(t, unix.SetNonblock(int(slave.Fd()), true))
	again, err := duplicate(slave)
	assert.NilError(t, err)
	defer again.Close()
	assert.NilError(t, slave.Close())
	_, err = again.WriteString("x")
	assert.NilError(t, err)
	assert.NilError(t, master.Close())
	_, err = duplicate(slave)
	assert.ErrorContains(t, err, "closed")
}

// The console of a container that systemd starts again takes the place of the one before.
func TestConsoleOfTheNextRun(t *testing.T) {
	for _, away := range []bool{false, true} {
		w := newWorld(t, 252)
		id := w.started(withTTY, withPolicy("always", 0))
		assert.NilError(t, w.units.print(id, "one\n"))
		again := func() {
			w.units.exit(id, 1)
			w.units.restart(id)
		}
		if away {
			w.restart(again)
		} else {
			again()
		}
		eventually(t, "second run", func() bool { return w.status(id).RestartCount == 1 })
		eventually(t, "its output", func() bool {
			return w.units.print(id, "two\n") == nil && strings.Contains(w.logs(id), "two\r\n")
		})
		assert.Check(t, strings.HasPrefix(w.logs(id), "one\r\n"), "%q", w.logs(id))
		assert.Check(t, is.Len(w.store.names(), 3))
		assert.NilError(t, w.m.Resize(t.Context(), id, 40, 100))
		size, err := pty.GetsizeFull(w.units.loaded[unitName(id)].stdout)
		assert.NilError(t, err)
		assert.Check(t, is.Equal(size.Rows, uint16(40)))
		assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{}))
		w.isPutAway(id)
	}
}

func TestInput(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create(withStdin)
	// As `docker run -i` does: attached before the start, and the input ended by the client.
	a, err := w.m.Attach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stream: true})
	assert.NilError(t, err)
	assert.NilError(t, w.m.Start(t.Context(), id))
	in, err := os.OpenFile(w.m.pipePath(id, fdStdin), os.O_RDONLY|unix.O_NONBLOCK, 0)
	assert.NilError(t, err)
	defer in.Close()
	_, err = a.Stdin.Write([]byte("hello"))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(read(t, in), "hello"))
	assert.NilError(t, a.Stdin.Close())
	_, err = in.Read(make([]byte, 1))
	assert.ErrorContains(t, err, "EOF")
	w.restart(nil) // the end is the end
	_, err = in.Read(make([]byte, 1))
	assert.ErrorContains(t, err, "EOF")
	assert.Check(t, is.Equal(w.status(id).Reason, ""))
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
}

// Input outlives the client that was at it, and the daemon.
func TestInputStaysOpen(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withStdin)
	in, err := os.OpenFile(w.m.pipePath(id, fdStdin), os.O_RDONLY|unix.O_NONBLOCK, 0)
	assert.NilError(t, err)
	defer in.Close()
	for range 2 {
		assert.NilError(t, in.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		_, err = in.Read(make([]byte, 1))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		w.restart(nil)
	}
}
