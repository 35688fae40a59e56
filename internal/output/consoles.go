package output

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// consoleTimeout bounds the wait for a console that the runtime has sent already.
const consoleTimeout = 10 * time.Second

// Consoles takes consoles in as an OCI runtime delivers them, in a goroutine
// that ends with Close.
type Consoles struct {
	l     *net.UnixListener
	done  chan struct{}
	first chan struct{}
}

// ServeConsoles listens on f, which it takes over, and hands every console to
// take, which owns it, one after the other. It is non-blocking.
func ServeConsoles(f *os.File, take func(*os.File)) (*Consoles, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for the console: %w", err)
	}
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("cannot listen for the console: its socket is a %T", l), l.Close())
	}
	c := &Consoles{l: unixListener, done: make(chan struct{}), first: make(chan struct{})}
	c.l.SetUnlinkOnClose(false)
	go c.serve(take)
	return c, nil
}

func (c *Consoles) serve(take func(*os.File)) {
	defer close(c.done)
	for n := 0; ; {
		conn, err := c.l.AcceptUnix()
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
			close(c.first)
		}
	}
}

// First is closed when a console has been taken in.
func (c *Consoles) First() <-chan struct{} { return c.first }

// Done is closed when no more is taken in.
func (c *Consoles) Done() <-chan struct{} { return c.done }

// File is a descriptor of the socket, for the caller to close.
func (c *Consoles) File() (*os.File, error) { return c.l.File() }

// Close returns when a console that is being taken in is taken. Others wait in
// the socket's queue, as long as somebody else has the socket too.
func (c *Consoles) Close() error {
	err := c.l.Close()
	<-c.done
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
