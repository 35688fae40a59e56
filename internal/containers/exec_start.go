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

	"lrd/internal/units"
)

// ExecStartOptions say how an exec is started.
type ExecStartOptions struct {
	// Detach leaves the command alone: nobody reads what it writes, unless into a TTY.
	Detach bool
	// ConsoleSize is height and width of the terminal, in characters; nil takes that of the request to create.
	ConsoleSize *[2]uint
}

// ExecStart runs a command that ExecCreate has prepared. With Detach it returns nil when the command runs. Otherwise it returns
// at once, with a hold on the standard streams, which ctx bounds as with Attach: its Begin starts the command, and if that fails
// the output says why. Its Over is to be called. Errors: ErrNotFound, ErrConflict when it was started before
// or the container does not run; a *StartError when the command cannot be run.
func (m *Manager) ExecStart(ctx context.Context, id string, o ExecStartOptions) (*Attachment, error) {
	e, err := m.findExec(id)
	if err != nil {
		return nil, err
	}
	if err := e.begin(o); err != nil {
		return nil, err
	}
	if o.Detach {
		return nil, m.startExec(context.WithoutCancel(ctx), e)
	}
	reader, err := e.expectClient()
	if err != nil {
		return nil, m.noteStart(e, err)
	}
	a := e.attach(ctx, reader)
	a.Begin = func() {
		if e.launches() && m.ctx.Err() == nil {
			m.workers.Go(func() { _ = m.startExec(context.WithoutCancel(ctx), e) }) // its client is told
		}
	}
	return a, nil
}

// startExec launches a command and tells what came of it.
func (m *Manager) startExec(ctx context.Context, e *Exec) error {
	return m.noteStart(e, m.launchExec(ctx, e))
}

// errLeaving says that the daemon leaves while a command is being started: the next one goes on with that.
var errLeaving = refused(errdefs.ErrUnavailable, "lrd is being stopped")

// noteStart takes note of how the start of a command went.
func (m *Manager) noteStart(e *Exec, err error) error {
	switch {
	case err == nil:
		m.lookExec(e) // it may be over already
		return nil
	case errors.Is(err, errLeaving):
		return err
	}
	err = cannotExec(err)
	e.logger("start").Info("Cannot execute the command", "error", err)
	m.failExec(e, err)
	return err
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
		r.Phase, r.Detached, r.ConsoleSize = execStarting, o.Detach, o.ConsoleSize
		return nil
	})
}

// launchExec runs the command, and undoes what it did if that fails. The order
// is that of launch: what has to outlive the daemon is in place before anything runs.
func (m *Manager) launchExec(ctx context.Context, e *Exec) (err error) {
	var undo cleanup
	defer undo.unless(&err)
	of, _ := e.c.snapshot()
	if err := m.writeExec(e, &of); err != nil {
		return err
	}
	endsOf := ends{}
	if e.snapshot().streaming() {
		endsOf, err = makeEnds(e.path, e.request.Tty, e.stdin(), pipeSize(of, m.o.Config()))
		if err != nil {
			return err
		}
		undo.add(func() { _ = m.dropStreams(ctx, e) })
		undo.add(endsOf.close)
		if err := m.o.Descriptors.PutAll(ctx, endsOf.items(e.id)); err != nil {
			return fmt.Errorf("cannot keep the descriptors of an exec over a restart of lrd: %w", err)
		}
		if err := e.connectConsole(endsOf); err != nil {
			return err
		}
	}
	startErr := m.o.Units.Start(ctx, execUnit(e.id), execProperties(e, of))
	var job *units.JobError
	if startErr != nil && !errors.As(startErr, &job) {
		return errors.Join(fmt.Errorf("cannot start the unit: %w", startErr), m.putExecUnitAway(ctx, e))
	}
	// A job that failed is one whose command may have come and gone before systemd had looked.
	undo = nil
	return m.completeStart(ctx, e, endsOf)
}

// completeStart waits for a command whose unit was started, and connects its output. If the command could not be run,
// what its start has made is put away.
func (m *Manager) completeStart(ctx context.Context, e *Exec, endsOf ends) error {
	pid, err := m.awaitExec(ctx, e)
	if err != nil {
		endsOf.close()
		if !errors.Is(err, errLeaving) {
			err = errors.Join(err, m.putExecUnitAway(ctx, e), m.dropStreams(ctx, e))
		}
		return err
	}
	m.execStarted(ctx, e, pid, endsOf)
	return nil
}

// connectConsole begins a run in the output and, with a TTY, takes consoles in: as with containers, the console's reader is
// there first, and pipes are read after the start.
func (e *Exec) connectConsole(endsOf ends) error {
	out, err := e.streams.output()
	if err == nil {
		err = out.BeginRun()
	}
	if err == nil && e.request.Tty {
		err = e.streams.connect(endsOf)
	}
	return err
}

// dropStreams closes what a start that failed has opened. What is to be said of it to a client stays.
func (m *Manager) dropStreams(ctx context.Context, e *Exec) error {
	err := e.streams.disconnect(ctx)
	if !e.isRead() {
		err = errors.Join(err, e.dropOutput())
	}
	return err
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
	if !e.snapshot().Detached && !e.isRead() {
		e.endInput() // its client has left meanwhile
	}
	// Nobody has to wait for that; a daemon that is killed before does it at its next start.
	m.workers.Go(func() { m.bringRuntimeHome(ctx, e) })
}

// failExec takes note of a command that could not be run, and tells its client.
func (m *Manager) failExec(e *Exec, err error) {
	e.note(func(r *execRecord) {
		r.Phase, r.EndedAt, r.ExitCode = execEnded, time.Now(), startExitCode(err)
		r.Told = true // what has not begun has no end to tell of
	})
	if e.isRead() {
		e.say(err.Error())
	}
	close(e.started)
	close(e.done)
	if !e.isRead() {
		if err := e.dropOutput(); err != nil {
			e.logger("start").Warn("Cannot remove the output of an exec", "error", err)
		}
	}
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
			return 0, errLeaving
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
