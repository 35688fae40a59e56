package fdstore

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// fakePID1 is the other end of a notification socket: it keeps descriptors as systemd does, up to a limit, and tells what it was sent.
type fakePID1 struct {
	sock *net.UnixConn
	max  int
	// hold, if set, is waited for before each datagram is read.
	hold chan struct{}
	// deaf makes it ignore barriers.
	deaf bool
	done chan struct{}

	mu       sync.Mutex
	messages []string // "text +number of descriptors"
	stored   []storedFD
}

type storedFD struct {
	name string
	fd   int
}

// startFake listens at address ("" for a path in a new directory), and points NOTIFY_SOCKET to it.
func startFake(t *testing.T, address string, change func(*fakePID1)) *fakePID1 {
	if address == "" {
		address = filepath.Join(t.TempDir(), "notify")
	}
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: address})
	assert.NilError(t, err)
	f := &fakePID1{sock: sock, max: 100000, done: make(chan struct{})}
	if change != nil {
		change(f)
	}
	t.Setenv("NOTIFY_SOCKET", address)
	go f.serve()
	t.Cleanup(func() {
		sock.Close()
		<-f.done
		for _, s := range f.stored {
			unix.Close(s.fd)
		}
	})
	return f
}

func (f *fakePID1) serve() {
	defer close(f.done)
	text, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*maxBatch))
	for {
		if f.hold != nil {
			<-f.hold
		}
		n, cn, _, _, err := f.sock.ReadMsgUnix(text, control)
		if err != nil {
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(control[:cn]); err == nil {
			for _, m := range messages {
				got, _ := unix.ParseUnixRights(&m)
				fds = append(fds, got...)
			}
		}
		f.handle(string(text[:n]), fds)
	}
}

func (f *fakePID1) handle(text string, fds []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.messages = append(f.messages, fmt.Sprintf("%s +%d", strings.ReplaceAll(text, "\n", " "), len(fds)))
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		fields[k] = v
	}
	switch {
	case fields["BARRIER"] == "1" && f.deaf:
		f.stored = append(f.stored, storedFD{"barrier", fds[0]}) // stays open
		return
	case fields["FDSTOREREMOVE"] == "1":
		var kept []storedFD
		for _, s := range f.stored {
			if s.name == fields["FDNAME"] {
				unix.Close(s.fd)
				continue
			}
			kept = append(kept, s)
		}
		f.stored = kept
	case fields["FDSTORE"] == "1":
		for len(fds) > 0 && len(f.stored) < f.max {
			f.stored = append(f.stored, storedFD{fields["FDNAME"], fds[0]})
			fds = fds[1:]
		}
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (f *fakePID1) count(context.Context) (uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return uint32(len(f.stored)), nil
}

func (f *fakePID1) names() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := make(map[string]int)
	for _, s := range f.stored {
		names[s.name]++
	}
	return names
}

// log returns the messages so far and forgets them.
func (f *fakePID1) log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	messages := f.messages
	f.messages = nil
	return messages
}

// put is log without the barrier at its end, which is there if the descriptors had not been handled when they were counted.
func (f *fakePID1) put() []string {
	messages := f.log()
	if n := len(messages); n > 0 && strings.HasPrefix(messages[n-1], "BARRIER") {
		return messages[:n-1]
	}
	return messages
}

// openFiles returns n open files of descriptions of their own.
func openFiles(t testing.TB, n int) []*os.File {
	files := make([]*os.File, n)
	for i := range files {
		f, err := os.Open("/dev/null")
		assert.NilError(t, err)
		t.Cleanup(func() { f.Close() })
		files[i] = f
	}
	return files
}
