package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"lrd/internal/output"
	"lrd/internal/units"
)

// ExecStartOptions say how an exec is started.
type ExecStartOptions struct {
	// Detach leaves the command alone: nobody reads what it writes, unless into a TTY.
	Detach bool
	// ConsoleSize is height and width of the terminal, in characters; nil takes that of the request to create.
	ConsoleSize *[2]uint
}

// ExecStart runs a command that ExecCreate has prepared. It returns when the
// command runs; nil with Detach, else a hold on its standard streams, which ctx
// bounds as with Attach, and whose Over is to be called. Errors: a *StartError when the command cannot be run,
// ErrNotFound, ErrConflict when it was started before or the container does not
// run any more.
func (m *Manager) ExecStart(ctx context.Context, id string, o ExecStartOptions) (*Attachment, error) {
	e, err := m.findExec(id)
	if err != nil {
		return nil, err
	}
	if err := e.begin(o); err != nil {
		return nil, err
	}
	if err := m.launchExec(context.WithoutCancel(ctx), e, o); err != nil {
		err = cannotExec(err)
		e.logger("start").Info("Cannot execute the command", "error", err)
		m.failExec(e, err)
		return nil, err
	}
	m.lookExec(e) // it may be over already
	if o.Detach {
		return nil, nil
	}
	e.mu.Lock()
	reader := e.reader
	e.reader = nil
	e.mu.Unlock()
	return e.attach(ctx, reader), nil
}

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
	e.mu.Lock()
	e.reading = true
	e.mu.Unlock()
	return e.attach(ctx, out.Reader(from)), nil
}

// cannotExec makes any error of a start one with an exit code: the client is
// told that, and nothing else, in a way that a script can use. As with Docker, a
// request that makes no sense counts as a command that cannot be run.
func cannotExec(err error) error {
	var e *StartError
	switch {
	case errors.As(err, &e):
		return err
	case errdefs.IsInvalidArgument(err):
		return &StartError{ExitCode: 126, sentence: err.Error()}
	}
	return &StartError{ExitCode: 128, sentence: err.Error()}
}

// begin takes the exec from created to starting, for one caller only.
func (e *Exec) begin(o ExecStartOptions) error {
	if err := e.c.canExec(); err != nil {
		return err
	}
	return e.update(func(r *execRecord) error {
		switch r.Phase {
		case execCreated:
		case execEnded:
			return refused(errdefs.ErrConflict, "exec command %s has already run", e.id)
		default:
			return refused(errdefs.ErrConflict, "exec command %s is already running", e.id)
		}
		r.Phase, r.Detached = execStarting, o.Detach
		return nil
	})
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

// clientLeft lets go of what was kept for the client. No other one can come, so that the input has ended if it had not.
func (e *Exec) clientLeft() {
	e.mu.Lock()
	e.reading = false
	e.mu.Unlock()
	if err := e.streams.closeInput(e.m.ctx); err != nil {
		e.logger("input").Warn("Cannot end the input of an exec whose client has left", "error", err)
	}
	select {
	case <-e.done:
		if err := e.dropOutput(); err != nil {
			e.logger("output").Warn("Cannot remove the output of an exec", "error", err)
		}
	default: // putExecAway does it
	}
}

// openInput is a descriptor of the client's own for the command's input.
func (e *Exec) openInput(context.Context, <-chan struct{}) (*os.File, error) {
	f, err := e.streams.openInput()
	if f == nil && err == nil {
		err = os.ErrClosed
	}
	return f, err
}

// launchExec runs the command, and undoes what it did if that fails. The order
// is that of launch: what has to outlive the daemon is in place before anything runs.
func (m *Manager) launchExec(ctx context.Context, e *Exec, o ExecStartOptions) (err error) {
	var undo cleanup
	defer undo.unless(&err)
	c, r := e.c, e.snapshot()
	of, _ := c.snapshot()
	if err := m.writeExec(e, &of, o); err != nil {
		return err
	}
	endsOf := ends{}
	if r.streaming() {
		endsOf, err = makeEnds(e.path, e.request.Tty, e.stdin(), pipeSize(of, m.o.Config()))
		if err != nil {
			return err
		}
		undo.add(endsOf.close)
		undo.add(func() { _ = e.streams.disconnect(ctx) })
		if err := m.o.Descriptors.PutAll(ctx, endsOf.items(e.id)); err != nil {
			return fmt.Errorf("cannot keep the descriptors of an exec over a restart of lrd: %w", err)
		}
		out, err := e.streams.output()
		if err != nil {
			return err
		}
		undo.add(func() { _ = e.dropOutput() })
		if err := out.BeginRun(); err != nil {
			return err
		}
		if !o.Detach {
			// Now, as it may be over, or have written more than is kept, before the client is told that it has begun.
			e.mu.Lock()
			e.reading, e.reader = true, out.Reader(output.Position{Through: 1})
			e.mu.Unlock()
		}
		if e.request.Tty {
			// As with containers: the console's reader first, pipes after the start.
			if err := e.streams.connect(endsOf); err != nil {
				return err
			}
		}
	}
	startErr := m.o.Units.Start(ctx, execUnit(e.id), execProperties(e, of))
	var job *units.JobError
	if startErr != nil && !errors.As(startErr, &job) {
		return errors.Join(fmt.Errorf("cannot start the unit: %w", startErr), m.putExecUnitAway(ctx, e))
	}
	// A job that failed is one whose command may have come and gone before systemd had looked.
	pid, err := m.awaitExec(ctx, e)
	if err != nil {
		return errors.Join(err, m.putExecUnitAway(ctx, e))
	}
	undo = nil
	m.execStarted(ctx, e, pid, endsOf)
	return nil
}

// stdin says whether the command has an input that is a pipe.
func (e *Exec) stdin() bool { return e.request.AttachStdin && !e.request.Tty }

// execStarted takes note of a command that runs, and connects its output.
func (m *Manager) execStarted(ctx context.Context, e *Exec, pid int, endsOf ends) {
	log := e.logger("start")
	if e.snapshot().streaming() {
		if err := e.streams.connect(endsOf); err != nil {
			log.Error("Cannot read the output of an exec", "error", err)
		}
		if err := e.streams.awaitConsole(ctx); err != nil {
			log.Error("An exec runs without a console", "error", err)
		}
	}
	at := time.Now()
	if info, err := os.Stat(e.path(pidFile)); err == nil {
		at = info.ModTime() // it may have ended since, and that is told with systemd's time
	}
	e.show(func(r *execRecord) { r.Phase, r.Pid, r.StartedAt = execRunning, pid, at })
	m.publishExec(e, events.ActionExecStart, at, nil)
	e.note(func(*execRecord) {})
	close(e.started)
	// Nobody has to wait for that; a daemon that is killed before does it at its next start.
	m.workers.Go(func() { m.bringRuntimeHome(ctx, e) })
}

// failExec takes note of a command that could not be run.
func (m *Manager) failExec(e *Exec, err error) {
	e.note(func(r *execRecord) {
		r.Phase, r.EndedAt, r.ExitCode = execEnded, time.Now(), startExitCode(err)
		r.Told = true // what has not begun has no end to tell of
	})
	e.mu.Lock()
	e.reading, e.reader = false, nil // no client is given anything
	e.mu.Unlock()
	close(e.started)
	close(e.done)
}

const (
	// execPoll is how often is looked whether the runtime has started the command, which takes it some 30 ms.
	execPoll = 2 * time.Millisecond
	// execAsk is how often systemd is asked meanwhile whether the runtime is still at it.
	execAsk = 25 * time.Millisecond
)

// awaitExec waits until the command runs, which the runtime's PID file says, and
// returns its process ID. When the runtime has failed, the error is what it had to say.
func (m *Manager) awaitExec(ctx context.Context, e *Exec) (pid int, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(execPoll)
	defer poll.Stop()
	for asked := time.Now(); ; {
		if pid := e.pid(); pid != 0 {
			return pid, nil
		}
		if time.Since(asked) >= execAsk {
			asked = time.Now()
			u, err := m.execState(ctx, e)
			if errdefs.IsNotFound(err) || err == nil && (ended(u) || u.ActiveState == "failed") {
				if pid := e.pid(); pid != 0 {
					return pid, nil // and is over already
				}
				return 0, e.startError()
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("cannot execute the command: the runtime does not start it: %w", context.Cause(ctx))
		case <-m.ctx.Done():
			return 0, refused(errdefs.ErrUnavailable, "lrd is being stopped")
		case <-poll.C:
		}
	}
}

// pid is the process ID of the command, 0 while it does not run.
func (e *Exec) pid() int {
	data, err := os.ReadFile(e.path(pidFile))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// startError is why the runtime could not start the command.
func (e *Exec) startError() error {
	said := runtimeError(e.path(runtimeLog))
	if err := e.c.canExec(); err != nil {
		return err // it has ended meanwhile
	}
	if said == "" {
		return errors.New("cannot execute the command: the runtime failed without a word")
	}
	return startError("execute the command", said, e.request.Cmd[0])
}

// bringRuntimeHome moves the waiting runtime out of the container's control
// group, where it had to be to start the command, into that of the exec's unit:
// it is no process of the container's.
func (m *Manager) bringRuntimeHome(ctx context.Context, e *Exec) {
	u, err := m.execState(ctx, e)
	if err != nil || u.MainPID == 0 {
		return // it is over
	}
	procs := filepath.Join(cgroupRoot, Slice, execUnit(e.id), "cgroup.procs")
	if err := os.WriteFile(procs, []byte(strconv.Itoa(int(u.MainPID))), 0); err != nil && !groupGone(err) && !errors.Is(err, unix.ESRCH) {
		e.logger("start").Warn("Cannot move the waiting runtime out of the container's control group", "error", err)
	}
}

func (m *Manager) putExecUnitAway(ctx context.Context, e *Exec) error {
	name := execUnit(e.id)
	return errors.Join(m.o.Units.Stop(ctx, name), m.o.Units.ResetFailed(ctx, name))
}
