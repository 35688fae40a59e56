package logdrivers

import (
	"context"
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	// yieldAfter is how many full batches in a row make a forwarder one that is behind.
	yieldAfter = 4

	// yieldNice is the nice value of one that is: drains and containers, whose readers wait, come first.
	yieldNice = 10
)

// A yield lets a forwarder that is busy take the processor after the others. To the kernel
// that is the thread's business, so for this time the goroutine has one of its own; not at a lower priority, as
// the garbage collector has to wait for it. To Go's scheduler all goroutines are equal, so it makes entries only
// while it has one of the turns, which are fewer than what the scheduler has to give: one is left for the drains.
type yield struct {
	turns chan struct{} // of all forwarders: one that makes entries has put something in
	mine  bool          // it has a turn

	full int // batches since there was a pause
	low  bool
	nice int // of the thread, before
}

// newTurns makes the turns: how many forwarders that are behind make entries at a time.
func newTurns() chan struct{} { return make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)) }

// turn waits until a forwarder that is behind may make entries, or ctx is done.
func (y *yield) turn(ctx context.Context) {
	if !y.low || y.mine {
		return
	}
	select {
	case y.turns <- struct{}{}:
		y.mine = true
	case <-ctx.Done():
	}
}

// pass gives the turn to others; to be called before anything that may take a while.
func (y *yield) pass() {
	if y.mine {
		y.mine = false
		<-y.turns
	}
}

// batch takes note of a full batch.
func (y *yield) batch() {
	if y.full++; y.full != yieldAfter {
		return
	}
	runtime.LockOSThread()
	y.low = true
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
	if err == nil {
		y.nice = 20 - raw // what the kernel returns is never negative: getpriority(2)
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), max(y.nice, yieldNice))
	}
}

// end is for a pause: there is nothing to do.
func (y *yield) end() {
	y.pass()
	y.full = 0
	if !y.low {
		return
	}
	y.low = false
	if unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), y.nice) == nil {
		runtime.UnlockOSThread() // else the thread stays this goroutine's, and ends with it
	}
}
