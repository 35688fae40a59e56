package containers

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"lrd/internal/output"
)

// Attach gives a client hold of a container's standard streams. A container
// that does not run yet can be attached to: `docker run` does so before it
// starts it, and loses nothing of the output. Errors: ErrConflict when the
// container is paused.
func (m *Manager) Attach(ctx context.Context, ref string, o AttachOptions) (*Attachment, error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	r, s := c.snapshot()
	switch {
	case o.From != nil: // it is attached already
	case s.State == "paused":
		return nil, refused(errdefs.ErrConflict, "container %s is paused, unpause the container before attach", r.Name)
	case s.Running() && !c.connected():
		return nil, refused(errdefs.ErrFailedPrecondition, "cannot attach to container %s: %s", r.Name, s.Reason)
	}
	out, err := c.output()
	if err != nil {
		return nil, err
	}
	a := &Attachment{TTY: r.Config.Tty, StdinOnce: r.Config.StdinOnce, Done: c.ended()}
	if o.Stdout || o.Stderr {
		end := out.End()
		from := end
		if o.Logs {
			from = output.Position{}
		}
		if o.From != nil {
			from = *o.From
		}
		reader := out.Reader(from)
		if !o.Stream {
			reader.Until(end)
		}
		a.Output = reader
	}
	if o.Stdin && o.Stream && r.Config.OpenStdin {
		a.Stdin = &input{ctx: ctx, to: c, leaving: m.ctx.Done()}
	}
	return a, nil
}

// connected says whether the streams of a container that runs are at hand. They
// are not if its unit was started by somebody else, or its console was lost.
func (c *Container) connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record.Run != nil && (!c.record.Config.Tty || c.std.console != nil || c.status.Reason == "")
}

// ended is closed when the current run has ended, or, before the first run, the next one.
func (c *Container) ended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runEnded == nil {
		c.runEnded = make(chan struct{})
	}
	return c.runEnded
}

// Reading says that somebody reads the container's output: with AutoRemove it is not removed after its end
// before done is called, which may be called again. It can be removed by a person all the same. Errors: ErrNotFound.
func (m *Manager) Reading(ref string) (done func(), err error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readers++
	return sync.OnceFunc(func() { m.doneReading(c) }), nil
}

// doneReading removes the container if this reader was the last that its removal has waited for.
func (m *Manager) doneReading(c *Container) {
	c.mu.Lock()
	c.readers--
	remove := c.readers == 0 && c.removeWhenRead
	if remove {
		c.removeWhenRead = false
	}
	c.mu.Unlock()
	if remove && m.ctx.Err() == nil {
		m.later(c, func(ctx context.Context) { m.autoRemove(ctx, c) })
	}
}

// autoRemove removes a container that is over and was made to be removed then, as soon as nobody reads its
// output any more. The caller holds c.op.
func (m *Manager) autoRemove(ctx context.Context, c *Container) {
	c.mu.Lock()
	if c.status.Running() || len(c.restarting) > 0 || !c.record.HostConfig.AutoRemove {
		c.mu.Unlock()
		return
	}
	if c.readers > 0 {
		c.removeWhenRead = true
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	if err := m.remove(ctx, c, RemoveOptions{Volumes: true}); err != nil {
		m.logger(c.id, "remove").Error("Cannot remove the container after its end", "error", err)
	}
}

// Logs reads what a container has written, whole lines. Errors: ErrNotFound.
func (m *Manager) Logs(_ context.Context, ref string, o output.LinesOptions) (lines OutputReader, tty bool, err error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, false, err
	}
	out, err := c.output()
	if err != nil {
		return nil, false, err
	}
	r, _ := c.snapshot()
	l, err := out.Lines(o)
	if err != nil {
		return nil, false, err
	}
	return l, r.Config.Tty, nil
}

// Resize sets the size of a container's terminal, in characters. Errors:
// ErrConflict when it does not run, ErrFailedPrecondition without a terminal.
func (m *Manager) Resize(_ context.Context, ref string, height, width uint16) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	r, s := c.snapshot()
	if !s.Running() {
		return refused(errdefs.ErrConflict, "container %s is not running", r.Name)
	}
	if !r.Config.Tty {
		return nil // Docker takes it and does nothing
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.std.console == nil {
		return refused(errdefs.ErrFailedPrecondition, "cannot resize the terminal of container %s: its console is not connected", r.Name)
	}
	return setWindowSize(c.std.console, height, width)
}

func setWindowSize(console *os.File, height, width uint16) error {
	conn, err := console.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = conn.Control(func(fd uintptr) {
		setErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	})
	return errors.Join(err, setErr)
}

// inputOwner is who has a standard input: a container, or a command executed in one.
type inputOwner interface {
	// ended is closed at the end of the run that the input is for.
	ended() <-chan struct{}
	// openInput waits for the run's begin, and returns a descriptor of the caller's own.
	openInput(ctx context.Context, ended <-chan struct{}) (*os.File, error)
	// closeStdin lets the process read end of file.
	closeStdin(ctx context.Context) error
}

// input writes to a standard input. Each has a descriptor of its
// own, opened at the first write: a client may attach before the container is
// started, and its deadline must not be that of others.
type input struct {
	ctx     context.Context
	to      inputOwner
	leaving <-chan struct{} // closed when the daemon leaves

	once sync.Once
	f    *os.File
	err  error
}

// Write waits while the container does not read, until the client's context is done or the run has ended.
func (in *input) Write(p []byte) (int, error) {
	in.once.Do(func() { in.f, in.err = in.open() })
	if in.err != nil {
		return 0, in.err
	}
	n, err := in.f.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.ErrClosedPipe
	}
	return n, err
}

// Pipe waits until the container has been started, and returns its input, for splicing into it. Writing to it
// waits as Write does. With a TTY it is no pipe.
func (in *input) Pipe() (syscall.RawConn, error) {
	in.once.Do(func() { in.f, in.err = in.open() })
	if in.err != nil {
		return nil, in.err
	}
	return in.f.SyscallConn()
}

// Close is the client's end of input. The container reads end of file if
// nobody else can write any more.
func (in *input) Close() error {
	// A client that ends its input before it wrote anything has ended it all the same.
	in.once.Do(func() { in.f, in.err = in.open() })
	if in.f != nil {
		_ = in.f.Close()
	}
	return in.to.closeStdin(in.ctx)
}

// open waits for the container's start, then opens its input.
func (in *input) open() (*os.File, error) {
	ended := in.to.ended()
	f, err := in.to.openInput(in.ctx, ended)
	if err != nil {
		return nil, err
	}
	// Ends with whichever comes first; both come in the end.
	interrupt := func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) }
	context.AfterFunc(in.ctx, interrupt)
	go func() {
		select {
		case <-ended:
			interrupt()
		case <-in.leaving:
			interrupt()
		case <-in.ctx.Done():
		}
		_ = f.Close()
	}()
	return f, nil
}

// startPoll is how often a client's input looks whether the container has been started.
const startPoll = 5 * time.Millisecond

// openInput is a descriptor of the client's own for the container's input.
func (c *Container) openInput(ctx context.Context, ended <-chan struct{}) (*os.File, error) {
	for {
		c.mu.Lock()
		std, tty, run, running := c.std, c.record.Config.Tty, c.record.Run, c.status.Running()
		c.mu.Unlock()
		switch {
		case tty && std.console != nil:
			return duplicate(std.console)
		case running && run != nil && run.StdinClosed: // of this run, not of the one before
			return nil, io.ErrClosedPipe
		case !tty && std.stdin != nil:
			return os.OpenFile(c.m.pipePath(c.id, fdStdin), os.O_WRONLY|unix.O_NONBLOCK, 0)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-ended:
			return nil, io.ErrClosedPipe
		case <-c.m.ctx.Done():
			return nil, output.ErrClosed
		case <-time.After(startPoll):
		}
	}
}

// closeStdin ends the container's input: it reads end of file. A console has no end.
func (c *Container) closeStdin(ctx context.Context) error {
	c.mu.Lock()
	stdin := c.std.stdin
	c.std.stdin = nil
	c.mu.Unlock()
	if stdin == nil {
		return nil
	}
	name := fdName(c.id, fdStdin)
	// On disk first: a crash after the removal must not look like a lost descriptor.
	c.note(func(r *Record, _ *Status) {
		if r.Run != nil {
			run := *r.Run
			run.StdinClosed = true
			run.Descriptors = slices.DeleteFunc(slices.Clone(run.Descriptors), func(d string) bool { return d == fdStdin })
			r.Run = &run
		}
	})
	return errors.Join(stdin.Close(), c.m.o.Descriptors.Remove(context.WithoutCancel(ctx), name))
}
