package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inNetNS runs f on a thread that is in a network namespace; sockets that it makes stay there. The thread ends with it: it
// is never unlocked, so that nothing else runs on it.
func inNetNS(path string, f func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot open the network namespace: %w", err)
	}
	defer ns.Close()
	done := make(chan error, 1)
	go onThreadOfItsOwn(func() {
		done <- enter(ns, f)
	})
	return <-done
}

// onThreadOfItsOwn runs f on a thread that ends with it. The process's first thread cannot end: it is passed over.
func onThreadOfItsOwn(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // another thread: this one is locked by who waits below
		f()
	}()
	<-done
	runtime.UnlockOSThread()
}

func enter(ns *os.File, f func() error) error {
	raw, err := ns.SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot enter the network namespace: %w", err)
	}
	var entered error
	if err := raw.Control(func(fd uintptr) { entered = unix.Setns(int(fd), unix.CLONE_NEWNET) }); err != nil {
		entered = err
	}
	if entered != nil {
		return fmt.Errorf("cannot enter the network namespace %s: %w", ns.Name(), entered)
	}
	return f()
}
