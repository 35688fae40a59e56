package containers

import (
	"context"
	"errors"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"lrd/internal/output"
)

// ExecAttach gives the client of an exec that ExecStart has given hold of its
// streams that hold again, in another process: from where its output was on. It
// is for the time before known of Restore has returned. Errors: ErrNotFound, also
// when the client had left.
func (m *Manager) ExecAttach(ctx context.Context, id string, from output.Position) (*Attachment, error) {
	e, err := m.findExec(id)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(e.outputDir()); err != nil {
		return nil, refused(errdefs.ErrNotFound, "what exec %s has written is gone", id)
	}
	out, err := e.streams.output()
	if err != nil {
		return nil, err
	}
	e.expect()
	return e.attach(ctx, out.Reader(from)), nil
}

// expectClient makes the output of a command that is about to be started, and the one client's place in it: the command may
// be over, or have written more than is kept, before anybody is told that it has begun.
func (e *Exec) expectClient() (*output.Reader, error) {
	out, err := e.streams.output()
	if err != nil {
		return nil, err
	}
	if err := out.BeginRun(); err != nil {
		return nil, err
	}
	e.expect()
	return out.Reader(output.Position{Through: 1}), nil // through its one run
}

// expect keeps what is written for a client.
func (e *Exec) expect() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reading = true
}

// launches says that the command is started now, to one caller.
func (e *Exec) launches() (first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	first = !e.launched
	e.launched = true
	return first
}

// isLaunched says whether the command has begun to be started.
func (e *Exec) isLaunched() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.launched
}

// attach is the one client's hold on the standard streams.
func (e *Exec) attach(ctx context.Context, reader *output.Reader) *Attachment {
	a := &Attachment{TTY: e.request.Tty, StdinOnce: true, Output: reader, Done: e.done, Over: func() {
		_ = reader.Close() // or what it has not read would hold the command up; it has no error
		e.clientLeft()
	}}
	if e.request.AttachStdin {
		a.Stdin = &input{ctx: ctx, to: e, streams: e.streams, leaving: e.m.ctx.Done()}
	}
	return a
}

// clientLeft lets go of what was kept for the client. No other one can come, so that the input has ended if it had not, and what
// was not started never is.
func (e *Exec) clientLeft() {
	e.mu.Lock()
	e.reading = false
	phase := e.record.Phase
	e.mu.Unlock()
	if phase == execStarting && e.launches() {
		e.m.failExec(e, cannotExec(refused(errdefs.ErrAborted, "the client left before the command was started")))
		return
	}
	e.endInput()
	select {
	case <-e.done:
		if err := e.dropOutput(); err != nil {
			e.logger("output").Warn("Cannot remove the output of an exec", "error", err)
		}
	default: // putExecAway does it
	}
}

// endInput ends the input of a command whose client has left.
func (e *Exec) endInput() {
	if err := e.streams.closeInput(e.m.ctx); err != nil {
		e.logger("input").Warn("Cannot end the input of an exec whose client has left", "error", err)
	}
}

// openInput is a descriptor of the client's own for the command's input. It waits for the start.
func (e *Exec) openInput(ctx context.Context, ended <-chan struct{}) (*os.File, error) {
	select {
	case <-e.started:
	case <-ended:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-e.m.ctx.Done():
		return nil, output.ErrClosed
	}
	f, err := e.streams.openInput()
	if f == nil && err == nil {
		err = os.ErrClosed
	}
	return f, err
}

// say is all that the client of a command that cannot be run gets to see, as with Docker.
func (e *Exec) say(text string) {
	out, err := e.streams.output()
	if err != nil {
		e.logger("start").Error("Cannot tell the client why the command was not executed", "error", err)
		return
	}
	stream := output.Stdout
	if !e.request.AttachStdout {
		stream = output.Stderr
	}
	err = writeTo(out, stream, text+"\r\n")
	e.streams.drainRest()
	if err = errors.Join(err, out.StopDrains()); err != nil {
		e.logger("start").Error("Cannot tell the client why the command was not executed", "error", err)
	}
}

// writeTo has a store of output take in what nobody else has written.
func writeTo(out *output.Log, stream output.Stream, text string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close() // from here on the drain has its own end
	defer w.Close()
	own, err := os.OpenFile(descriptorPath(r), os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := out.Drain(stream, own, output.FIFO); err != nil {
		return err
	}
	_, err = w.WriteString(text)
	return err
}
