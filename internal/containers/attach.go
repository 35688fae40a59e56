package containers

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"lrd/internal/logopts"
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
		a.Stdin = &input{ctx: ctx, to: c, streams: c.streams, leaving: m.ctx.Done()}
	}
	return a, nil
}

// connected says whether the streams of a container that runs are at hand. They
// are not if its unit was started by somebody else, or its console was lost.
func (c *Container) connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record.Run != nil && !c.foreign && (!c.record.Config.Tty || c.streams.hasConsole() || c.status.Reason == "")
}

// Logs reads what a container has written, whole lines. Errors: ErrNotFound, ErrNotImplemented with the log driver none.
func (m *Manager) Logs(_ context.Context, ref string, o LogsOptions) (lines OutputReader, tty bool, err error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, false, err
	}
	if c.logging.options.Driver == logopts.None {
		return nil, false, refused(errdefs.ErrNotImplemented, "configured logging driver does not support reading")
	}
	if o.Details {
		if o.Prefix, err = c.details(); err != nil {
			return nil, false, err
		}
	}
	out, err := c.output()
	if err != nil {
		return nil, false, err
	}
	r, _ := c.snapshot()
	l, err := out.Lines(o.LinesOptions)
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
		return refused(errdefs.ErrConflict, "container %s is not running", c.id)
	}
	if !r.Config.Tty {
		return nil // Docker takes it and does nothing
	}
	ok, err := c.streams.resize(height, width)
	if !ok {
		return refused(errdefs.ErrFailedPrecondition, "cannot resize the terminal of container %s: its console is not connected", r.Name)
	}
	return err
}

// inputOwner is who has a standard input: a container, or a command executed in one.
type inputOwner interface {
	// ended is closed at the end of the run that the input is for.
	ended() <-chan struct{}
	// openInput waits for the run's begin, and returns a descriptor of the caller's own.
	openInput(ctx context.Context, ended <-chan struct{}) (*os.File, error)
}

// input writes to a standard input. Each has a descriptor of its
// own, opened at the first write: a client may attach before the container is
// started, and its deadline must not be that of others.
type input struct {
	ctx     context.Context
	to      inputOwner
	streams *streams        // those of to
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
	return in.streams.closeInput(in.ctx)
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
		if r, status := c.snapshot(); status.Running() && r.Run != nil && r.Run.StdinClosed { // of this run, not of the one before
			return nil, io.ErrClosedPipe
		}
		if f, err := c.streams.openInput(); f != nil || err != nil {
			return f, err
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
