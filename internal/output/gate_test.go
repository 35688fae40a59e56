package output

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// TestGate: it says once, each time that it is armed, that something is in the pipe, however often that is written to.
func TestGate(t *testing.T) {
	pipes := fifo(t, 2)
	pipe, err := unpolled(pipes[0])
	assert.NilError(t, err)
	defer pipe.Close()
	g, err := newGate(pipe.fd)
	assert.NilError(t, err)
	defer g.file.Close()
	spoken := func() int {
		n, err := unix.EpollWait(g.fd, g.got[:], 0)
		assert.NilError(t, err)
		return n
	}
	write := func() {
		_, err := pipes[1].Write([]byte("x"))
		assert.NilError(t, err)
	}
	assert.Equal(t, spoken(), 0)
	write()
	assert.Equal(t, spoken(), 1)
	write()
	assert.Equal(t, spoken(), 0, "it is not armed")
	assert.NilError(t, g.arm())
	assert.Equal(t, spoken(), 1, "what is there already is enough")

	// The runtime's poller is told, and more than once.
	for range 3 {
		assert.NilError(t, g.arm())
		woken := false
		assert.NilError(t, g.conn.Read(func(uintptr) bool { woken = true; g.hush(); return true }))
		assert.Assert(t, woken)
	}
	empty := make([]byte, 16)
	assert.NilError(t, pipe.Control(func(fd uintptr) { _, err = unix.Read(int(fd), empty) }))
	assert.NilError(t, err)
	assert.NilError(t, g.arm())
	done := make(chan error, 1)
	go func() {
		done <- g.conn.Read(func(uintptr) bool { return spoken() > 0 })
	}()
	time.Sleep(time.Millisecond) // so that it waits, most probably
	write()
	assert.NilError(t, <-done)
}

// TestDescriptor: it can be closed while others want to use it.
func TestDescriptor(t *testing.T) {
	pipe, err := unpolled(fifo(t, 1)[0])
	assert.NilError(t, err)
	called := false
	assert.NilError(t, pipe.Control(func(uintptr) { called = true }))
	assert.Assert(t, called)
	assert.NilError(t, pipe.Close())
	assert.Assert(t, errors.Is(pipe.Control(func(uintptr) { t.Error("it is closed") }), os.ErrClosed))
	assert.Assert(t, errors.Is(pipe.Close(), os.ErrClosed))
}
