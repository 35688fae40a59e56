package logdrivers

import (
	"runtime"

	"golang.org/x/sys/unix"
)

const (
	// yieldAfter is how many full batches in a row make a forwarder one that is behind.
	yieldAfter = 4

	// yieldNice is the nice value of one that is: drains and containers, whose readers wait, come first.
	yieldNice = 10
)

// A yield lets a forwarder that is busy take the processor after the others.
// That is the thread's business, so for this time the goroutine has one of its own.
type yield struct {
	full int // batches since there was a pause
	low  bool
	nice int // of the thread, before
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
	y.full = 0
	if !y.low {
		return
	}
	y.low = false
	if unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), y.nice) == nil {
		runtime.UnlockOSThread() // else the thread stays this goroutine's, and ends with it
	}
}
