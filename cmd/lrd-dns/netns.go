package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"lrd/internal/thread"
)

// inNetNS runs f on a thread that is in a network namespace; sockets that it makes stay there.
func inNetNS(path string, f func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot open the network namespace: %w", err)
	}
	defer ns.Close()
	return thread.Alone(func() error { return enter(ns, f) })
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
