package fdstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	// maxBatch is SCM_MAX_FD: what the kernel takes in one control message (unix(7)); one more is EINVAL.
	maxBatch = 253

	// retryFirst and retryMax bound the pause before a datagram is offered again that found PID 1's receive queue full. An unconnected datagram socket
	// cannot be polled for room at the other end, so this is a pause and not a poll.
	retryFirst = time.Millisecond
	retryMax   = 50 * time.Millisecond

	// barrierTimeout is how long PID 1 may take to come to a barrier when the caller's context sets no deadline. It answers within a
	// millisecond; a daemon-reload on a machine with thousands of units keeps it busy for seconds.
	barrierTimeout = 30 * time.Second
)

// notifier sends notifications with descriptors to a notification socket. The socket is unconnected and non-blocking: PID 1 makes its socket anew at
// daemon-reexec, a connected one would then talk to nobody.
type notifier struct {
	sock *os.File
	to   *unix.SockaddrUnix
}

// openNotifier returns a notifier for the value of $NOTIFY_SOCKET: a path, or "@" and an abstract name (sd_notify(3)). Other families (AF_VSOCK) have
// no descriptor passing.
func openNotifier(address string) (*notifier, error) {
	switch {
	case address == "":
		return nil, &kindError{"cannot use the descriptor store: NOTIFY_SOCKET is not set (not started by systemd?)", errdefs.ErrUnavailable}
	case !strings.HasPrefix(address, "/") && !strings.HasPrefix(address, "@"), len(address) < 2:
		return nil, &kindError{fmt.Sprintf("cannot use the descriptor store: NOTIFY_SOCKET=%s is not a unix socket", address), errdefs.ErrUnavailable}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make a socket for notifications: %w", err)
	}
	// SockaddrUnix itself turns a leading '@' into the zero byte of an abstract name.
	return &notifier{os.NewFile(uintptr(fd), "notify"), &unix.SockaddrUnix{Name: address}}, nil
}

func (n *notifier) Close() error { return n.sock.Close() }

// send sends one notification with the given descriptors (at most maxBatch). While PID 1's queue is full it tries again, until ctx is done.
func (n *notifier) send(ctx context.Context, state string, files ...*os.File) error {
	return withFDs(append([]*os.File{n.sock}, files...), func(fds []int) error {
		var rights []byte
		if len(files) > 0 {
			rights = unix.UnixRights(fds[1:]...)
		}
		for pause := retryFirst; ; pause = min(2*pause, retryMax) {
			err := unix.Sendmsg(fds[0], []byte(state), rights, n.to, unix.MSG_NOSIGNAL)
			switch {
			case err == nil:
				return nil
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ETOOMANYREFS):
				// ETOOMANYREFS: more descriptors on their way than RLIMIT_NOFILE; it passes as soon as PID 1 has read some.
				if sleep(ctx, pause) != nil {
					return fmt.Errorf("%w (systemd does not read its notifications: %w)", context.Cause(ctx), err)
				}
			default:
				return err
			}
		}
	})
}

// barrier returns nil when PID 1 has processed everything that was sent before: it closes the descriptor that comes with BARRIER=1 when it gets there.
func (n *notifier) barrier(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, barrierTimeout,
		&kindError{fmt.Sprintf("systemd did not answer within %s", barrierTimeout), errdefs.ErrUnavailable})
	defer cancel()

	r, w, err := os.Pipe() // CLOEXEC; the read end is in the poller
	if err != nil {
		return err
	}
	defer r.Close()
	// BARRIER=1 has to be alone in its message, and with exactly one descriptor, or all of it is ignored.
	err = n.send(ctx, "BARRIER=1", w)
	w.Close()
	if err != nil {
		return err
	}

	// Nobody ever writes: Read returns at EOF, that is when PID 1 closed the write end, or at the deadline.
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var b [1]byte
	switch _, err := r.Read(b[:]); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.Cause(ctx)
	case err == nil:
		return errors.New("somebody wrote into the barrier's pipe")
	default: // io.EOF
		return nil
	}
}

// withFDs calls f with the numbers of all files, which stay open meanwhile whoever closes them.
func withFDs(files []*os.File, f func(fds []int) error) error {
	fds := make([]int, 0, len(files))
	var next func() error
	next = func() error {
		if len(fds) == len(files) {
			return f(fds)
		}
		c, err := files[len(fds)].SyscallConn()
		if err != nil {
			return err
		}
		var inner error
		err = c.Control(func(fd uintptr) {
			fds = append(fds, int(fd))
			inner = next()
		})
		return errors.Join(err, inner)
	}
	return next()
}

// sleep waits for d, or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
