package output

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A gate is how a drain waits for a pipe without hearing of every write(2) into
// it. The runtime's poller is told of each one of them, also while the drain is
// busy or lets the pipe fill, and wakes a thread each time: with small writes that
// costs the writer and the daemon several times what the bytes do. So that poller
// watches the gate instead, an epoll instance of the drain's own with nothing
// but the pipe in it, which speaks up once each time that it is armed.
type gate struct {
	file *os.File // the epoll instance, in the runtime's poller
	conn syscall.RawConn
	fd   int
	pipe int
	once unix.EpollEvent // what it is armed with
	got  [1]unix.EpollEvent
}

// newGate makes a gate, armed, for the pipe of that descriptor, which must stay open as long.
func newGate(pipe int) (*gate, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	g := &gate{fd: fd, pipe: pipe, once: unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT}}
	if err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, pipe, &g.once); err != nil {
		return nil, errors.Join(os.NewSyscallError("epoll_ctl", err), unix.Close(fd))
	}
	if err = unix.SetNonblock(fd, true); err != nil { // what makes os.NewFile have it polled
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fd))
	}
	g.file = os.NewFile(uintptr(fd), "gate")
	if g.conn, err = g.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, g.file.Close())
	}
	return g, nil
}

// arm has the gate speak up when there is something in the pipe, at once if there is now.
func (g *gate) arm() error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(g.fd, unix.EPOLL_CTL_MOD, g.pipe, &g.once))
}

// hush takes what the gate has said. It says no more until it is armed.
func (g *gate) hush() {
	_, _ = unix.EpollWait(g.fd, g.got[:], 0) // an error is as good as nothing said: the pipe is looked at anyway
}

// A descriptor is one that the runtime's poller does not know, which os.File has no way to say of
// one that does not block. It may be closed while others use it.
type descriptor struct {
	mu sync.RWMutex // held for reading by who uses fd
	fd int          // -1 when closed
}

// unpolled returns a descriptor of f's own. f is closed.
func unpolled(f *os.File) (*descriptor, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	var fd int
	var failed error
	err = conn.Control(func(old uintptr) { fd, failed = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if failed != nil {
		err = os.NewSyscallError("fcntl", failed)
	}
	// This takes it out of the poller.
	if closeErr := f.Close(); err != nil {
		return nil, errors.Join(err, closeErr)
	}
	return &descriptor{fd: fd}, nil
}

// Control has f use the descriptor, as syscall.RawConn has it.
func (d *descriptor) Control(f func(fd uintptr)) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.fd < 0 {
		return os.ErrClosed
	}
	f(uintptr(d.fd))
	return nil
}

// Close waits until nobody uses the descriptor.
func (d *descriptor) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		return os.ErrClosed
	}
	fd := d.fd
	d.fd = -1
	return os.NewSyscallError("close", unix.Close(fd))
}

// controller is syscall.RawConn as far as both a file and a descriptor have it.
type controller interface {
	Control(f func(fd uintptr)) error
}
