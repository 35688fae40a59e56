package sessions

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// TestHungUpInterrupted: signals do not make a client that only ended its input look like one that is gone.
func TestHungUpInterrupted(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	assert.NilError(t, err)
	ours, client := uintptr(pair[0]), pair[1]
	defer unix.Close(pair[0])
	assert.NilError(t, unix.Shutdown(client, unix.SHUT_WR))

	stop, flooded := make(chan struct{}), make(chan struct{})
	go func() { // with what Go's scheduler sends to make goroutines yield
		defer close(flooded)
		for {
			select {
			case <-stop:
				return
			default:
				_ = syscall.Kill(os.Getpid(), syscall.SIGURG)
			}
		}
	}()
	gone := false
	for i := 0; i < 100_000 && !gone; i++ {
		gone = hungUp(ours)
	}
	close(stop)
	<-flooded
	assert.Assert(t, !gone)
	assert.NilError(t, unix.Close(client))
	assert.Assert(t, hungUp(ours))
}
