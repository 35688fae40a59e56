package sessions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoTakeover says that the connection of a request cannot be taken over: it is not HTTP/1.1, or a wrapper hides it.
var ErrNoTakeover = errors.New("this connection cannot be upgraded to a stream")

// Conn is a client's connection after HTTP. Reading gives first what HTTP had read already.
type Conn struct {
	net.Conn
	raw   syscall.RawConn
	early []byte // read by HTTP

	// For tests. maxWrite bounds one write(2). step is called before everything that a SIGKILL could come before.
	maxWrite int
	step     func()
}

// NewConn makes a Conn of a connection that HTTP is done with. early is what was read of it already. The error is
// [ErrNoTakeover]; c is the caller's then.
func NewConn(c net.Conn, early []byte) (*Conn, error) {
	conn, err := newConn(c)
	if err == nil {
		conn.early = early
	}
	return conn, err
}

func newConn(c net.Conn) (*Conn, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%w: it is a %T", ErrNoTakeover, c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoTakeover, err)
	}
	return &Conn{Conn: c, raw: raw}, nil
}

// file is a descriptor of the connection's own, for the caller to close.
func (c *Conn) file() (*os.File, error) {
	f, ok := c.Conn.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("a %T has no descriptor", c.Conn)
	}
	return f.File()
}

// Read reads what the client sent.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite tells the client that nothing more comes, and leaves the other direction open.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

func (c *Conn) tick() {
	if c.step != nil {
		c.step()
	}
}

// writeOnce makes one write(2), waiting until it takes something. What it took it returns, whatever happens:
// that is why it is not Write.
func (c *Conn) writeOnce(p []byte) (n int, err error) {
	if c.maxWrite > 0 && len(p) > c.maxWrite {
		p = p[:c.maxWrite]
	}
	c.tick()
	waitErr := c.raw.Write(func(fd uintptr) bool {
		for {
			n, err = unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if err != unix.EINTR { // an errno
				break
			}
		}
		return err != unix.EAGAIN // an errno
	})
	if waitErr != nil {
		return 0, waitErr
	}
	c.tick()
	return max(n, 0), err
}

// peek waits for input and copies it without taking it; io.EOF when the client sends no more.
func (c *Conn) peek(p []byte) (int, error) { return c.receive(p, unix.MSG_PEEK) }

// consume takes input that peek has shown. It is there, so that there is nothing to wait for, and no deadline to heed.
func (c *Conn) consume(p []byte) (err error) {
	c.tick()
	controlErr := c.raw.Control(func(fd uintptr) {
		for len(p) > 0 {
			n, _, recvErr := unix.Recvfrom(int(fd), p, unix.MSG_DONTWAIT)
			switch {
			case n > 0:
				p = p[n:]
			case recvErr == unix.EINTR: // an errno
			default:
				err = errors.Join(io.ErrUnexpectedEOF, recvErr)
				return
			}
		}
	})
	return errors.Join(controlErr, err)
}

func (c *Conn) receive(p []byte, flags int) (n int, err error) {
	c.tick()
	waitErr := c.raw.Read(func(fd uintptr) bool {
		for {
			n, _, err = unix.Recvfrom(int(fd), p, flags|unix.MSG_DONTWAIT)
			if err != unix.EINTR { // an errno
				break
			}
		}
		return err != unix.EAGAIN // an errno
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case err != nil:
		return 0, os.NewSyscallError("recvfrom", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// spliceMax is how much input is moved at once; a pipe takes less.
const spliceMax = 1 << 20

// splice moves input to a pipe, waiting for room in it. What the kernel takes from the connection is in the
// pipe: a SIGKILL neither loses nor doubles a byte.
func (c *Conn) splice(to syscall.RawConn) (err error) {
	c.tick()
	var outer error
	controlErr := c.raw.Control(func(from uintptr) {
		outer = to.Write(func(pipe uintptr) bool {
			for {
				_, err = unix.Splice(int(from), nil, int(pipe), nil, spliceMax, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
				if err != unix.EINTR { // an errno
					break
				}
			}
			return err != unix.EAGAIN // an errno
		})
	})
	return errors.Join(controlErr, outer, err)
}

// atomic is the most that one write(2) to the client takes as a whole or not at all: on a unix socket, what
// fits into one of the kernel's buffers (unix_stream_sendmsg in net/unix/af_unix.c: half the send buffer, and
// 32 KiB at least can be had at once). Elsewhere there is no such number, and this is a size as good as any.
func (c *Conn) atomic() int {
	n := 0
	_ = c.raw.Control(func(fd uintptr) {
		n, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
	})
	return min(max(n/2-128, 512), 32<<10)
}

// awaitGone returns when the client has closed the connection as a whole, or when the read deadline of the
// connection has passed. It is called after the client's end of input, which a client that only shut down its
// writing side causes too.
//
// On a unix socket POLLHUP is set exactly when the peer is gone. On TCP the two cannot be told apart without
// writing: there this waits for a reset.
func (c *Conn) awaitGone() {
	// Read calls the function again each time the runtime's poller hears of the descriptor; a hang-up is one
	// of those times.
	_ = c.raw.Read(hungUp)
}

// hungUp says whether nobody is at the other end any more.
func hungUp(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	for {
		_, err := unix.Poll(p, 0)
		if err != unix.EINTR { // an errno; a signal of Go's own scheduler is enough for it
			return err != nil || p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
		}
	}
}

// lingerTime bounds how long a finished session waits for the client to close. It is far more than a living
// client needs.
const lingerTime = 5 * time.Second

// Finish says goodbye without losing what is on its way: closing a unix socket that holds unread input would
// make the client's read fail with ECONNRESET before it has read everything. So the writing side is closed
// first, and input thrown away until the client closes, lingerTime has passed or ctx is done. The caller
// closes the connection.
func (c *Conn) Finish(ctx context.Context) {
	if c.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerTime))
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(past) })
	defer stop()
	_, _ = io.Copy(io.Discard, struct{ io.Reader }{c})
}

// hangUp ends the connection for every process that has it: a copy in systemd's store must not keep the client
// waiting.
func (c *Conn) hangUp() {
	_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	_ = c.Close()
}
