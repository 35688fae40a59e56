package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Alone runs f on a thread that ends with it: it is never unlocked, and so not used again. Processes and threads that f starts are in
// the thread's namespaces; what it opens stays open. The process's first thread
// cannot end, and stands for the process in /proc/self: it is passed over.
func Alone(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		// While this goroutine sits on it, another one cannot get it.
		done <- Alone(f)
		runtime.UnlockOSThread()
	}()
	return <-done
}
