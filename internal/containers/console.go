package containers

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// listenConsole makes the socket to which the runtime sends the console's
// master. Its listening end is kept in systemd's store: a container that systemd
// restarts while the daemon is away leaves its console in the socket's queue.
//
// It is made by way of its directory's descriptor, as a socket's path is at most
// 107 bytes long (unix(7)), and exec-root may be anywhere.
func listenConsole(path string) (*os.File, error) {
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	return l.File()
}

// consoleListener takes consoles in as the runtime delivers them, in a
// goroutine that ends with close.
type consoleListener struct {
	l    *net.UnixListener
	done chan struct{}
	// first is closed when a console has been taken in.
	first chan struct{}
}

// serveConsoles listens on f, which it takes over, and hands every console to take.
func serveConsoles(f *os.File, take func(*os.File)) (*consoleListener, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for the console: %w", err)
	}
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("cannot listen for the console: its socket is a %T", l), l.Close())
	}
	cl := &consoleListener{l: unixListener, done: make(chan struct{}), first: make(chan struct{})}
	cl.l.SetUnlinkOnClose(false)
	go func() {
		defer close(cl.done)
		for n := 0; ; {
			conn, err := cl.l.AcceptUnix()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(consoleTimeout))
			master, err := receiveConsole(conn)
			_ = conn.Close()
			if err != nil {
				continue // a peer that is no runtime; the socket is root's alone
			}
			take(master)
			if n++; n == 1 {
				close(cl.first)
			}
		}
	}()
	return cl, nil
}

func (cl *consoleListener) close() error {
	err := cl.l.Close()
	<-cl.done
	return err
}

// receiveConsole reads the one descriptor that the runtime sends (OCI runtime
// command line interface, "--console-socket").
func receiveConsole(conn *net.UnixConn) (*os.File, error) {
	data := make([]byte, 4096) // the runtime sends the terminal's name along
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(data, rights)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("cannot find a descriptor in the runtime's message: %w", errors.Join(err, syscall.EBADMSG))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return nil, fmt.Errorf("cannot find a descriptor in the runtime's message: %w", errors.Join(err, syscall.EBADMSG))
	}
	unix.CloseOnExec(fds[0])
	// The master's description is ours alone; the container has the slave.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_ = unix.Close(fds[0])
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "console"), nil
}
