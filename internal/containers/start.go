package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"lrd/internal/units"
)

// consoleTimeout bounds the wait for a console that the runtime has sent already.
const consoleTimeout = 10 * time.Second

// Start runs a container. Errors: ErrNotModified when it runs already,
// ErrConflict when it is paused or being removed, ErrInvalidArgument when its
// command cannot be run.
//
// A start that has begun is carried through or undone even if the caller goes
// away.
func (m *Manager) Start(ctx context.Context, ref string) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	return m.start(context.WithoutCancel(ctx), c)
}

// start is Start with c.op held.
func (m *Manager) start(ctx context.Context, c *Container) error {
	c.mu.Lock()
	r, s, gone := c.record, c.status, c.gone
	c.mu.Unlock()
	switch {
	case gone: // while we waited
		return refused(errdefs.ErrNotFound, "No such container: %s", c.id)
	case s.State == container.StatePaused:
		return refused(errdefs.ErrConflict, "cannot start a paused container, try unpause instead")
	case s.Running():
		return ErrNotModified
	case s.Reason != "":
		return refused(errdefs.ErrFailedPrecondition, "cannot start container %s: %s", r.Name, s.Reason)
	}
	if err := requireState(r, s, "start", container.StateCreated, container.StateExited); err != nil {
		return err
	}
	err := m.launch(ctx, c)
	if err == nil {
		return nil
	}
	m.logger(c.id, "start").Error("Cannot start the container", "error", err)
	c.inbox.clear() // what was said of the unit that failed
	c.note(func(_ *Record, s *Status) {
		s.Error = err.Error()
		s.ExitCode = startExitCode(err)
	})
	m.autoRemove(ctx, c)
	return err
}

// launch begins a run, and undoes what it did if that fails. The order matters:
// everything that a run needs to outlive the daemon is in place (descriptors in
// the store, the Record on disk) before anything runs.
func (m *Manager) launch(ctx context.Context, c *Container) (err error) {
	var undo cleanup
	defer undo.unless(&err)
	undo.add(c.neverRan)
	r, _ := c.snapshot()
	cfg := m.o.Config()
	if r.Run != nil {
		// The run before could not be put away.
		if err := m.endRun(ctx, c); err != nil {
			return fmt.Errorf("cannot put the run before away: %w", err)
		}
	}
	b, limits, saved, err := m.prepare(ctx, &r, cfg, &undo)
	if err != nil {
		return err
	}
	stopSignal, err := m.stopSignal(r, "")
	if err != nil {
		return err
	}
	e, err := makeEnds(c.streams.path, b.tty, b.stdin, pipeSize(r, cfg))
	if err != nil {
		return err
	}
	undo.add(e.close)
	undo.add(func() { _ = c.streams.disconnect(ctx) })
	for what := range e {
		if err := labelFiles(b.spec.Linux.MountLabel, c.streams.path(what)); err != nil {
			return err
		}
	}
	if err := m.o.Descriptors.PutAll(ctx, e.items(c.id)); err != nil {
		return fmt.Errorf("cannot keep the container's descriptors over a restart of lrd: %w", err)
	}
	for what := range e {
		saved.Descriptors = append(saved.Descriptors, what)
	}
	if err := c.beginRun(saved); err != nil {
		return err
	}
	// From here on the Record says what there is to put away.
	undo = cleanup{e.close, func() { m.abandonRun(ctx, c) }}
	m.joined(c, saved.Sandbox)
	out, err := c.output()
	if err != nil {
		return err
	}
	c.renewLog(out)
	if err := out.BeginRun(); err != nil {
		return err
	}
	if b.tty {
		// The console's reader must be there before the runtime sends it. Pipes are
		// read only after the start, so that what the runtime itself writes into
		// them when it fails does not end up as the container's output.
		if err := c.streams.connect(e); err != nil {
			return err
		}
	}
	props := unitProperties(r, b, stopSignal, stopTimeout(r, StopOptions{}, cfg), limits, m.o.Units.Version())
	if err := m.startUnit(ctx, c, b, props); err != nil {
		return err
	}
	if b.held {
		if err := b.letBegin(ctx); err != nil {
			// It waits, and would not end for a stop signal.
			return errors.Join(err, m.o.Units.Kill(ctx, unitName(c.id), units.KillMain, syscall.SIGKILL))
		}
	}
	// From here on there is a container: what fails now must not take it back.
	undo = nil
	m.started(ctx, c, e)
	return nil
}

// abandonRun ends a run that has come to nothing.
func (m *Manager) abandonRun(ctx context.Context, c *Container) {
	c.neverRan()
	if err := m.endRun(ctx, c); err != nil {
		c.logger("start").Error("Cannot put everything of a failed start away; it is tried again at the next start", "error", err)
	}
}

// started takes note of a unit that has just been started, and connects its output.
func (m *Manager) started(ctx context.Context, c *Container, e ends) {
	log := m.logger(c.id, "start")
	if err := c.streams.connect(e); err != nil {
		log.Error("Cannot read the container's output", "error", err)
		c.note(func(_ *Record, s *Status) { s.Reason = "its output is not collected: " + err.Error() })
	}
	if err := c.streams.awaitConsole(ctx); err != nil {
		log.Error("The container runs without a console", "error", err)
	}
	u, err := m.settledState(ctx, unitName(c.id))
	if err != nil {
		// It may have come and gone already; the announcements and its list of exits tell.
		log.Debug("The unit is gone already", "error", err)
		u = units.State{Name: unitName(c.id), ActiveState: "inactive", SubState: "dead"}
	}
	m.observe(ctx, c, u, err != nil)
}

// settleTimeout bounds the wait for systemd to be done with the commands around a run that is over already, and
// settlePoll is how often it is asked meanwhile. They take some 10 ms.
const (
	settleTimeout = 5 * time.Second
	settlePoll    = 2 * time.Millisecond
)

// settledState is the state of a unit that has been started. A container that was over at once is waited for, so
// that whoever asks after the start gets its exit code and not that it has never run.
func (m *Manager) settledState(ctx context.Context, name string) (units.State, error) {
	if u, ok := m.o.Units.Known(name); ok && u.ActiveState == "active" && u.MainPID != 0 {
		return u, nil // as of the end of its start, or later
	}
	for deadline := time.Now().Add(settleTimeout); ; {
		u, err := m.o.Units.State(ctx, name)
		if err != nil || settled(u) || time.Now().After(deadline) {
			return u, err
		}
		time.Sleep(settlePoll)
	}
}

// startUnit starts the unit. When that fails, the error is what the runtime had to say.
func (m *Manager) startUnit(ctx context.Context, c *Container, b bundle, props []units.Property) error {
	name := unitName(c.id)
	err := m.startOnce(ctx, name, b, props)
	if errdefs.IsAlreadyExists(err) {
		// The unit of an earlier run that has not been put away.
		if err := errors.Join(m.o.Units.Stop(ctx, name), m.o.Units.ResetFailed(ctx, name)); err != nil {
			return fmt.Errorf("cannot put the unit of the earlier run away: %w", err)
		}
		err = m.startOnce(ctx, name, b, props)
	}
	if err == nil {
		return nil
	}
	var job *units.JobError
	isJob := errors.As(err, &job)
	if notes, _ := readExits(b.path(exitsFile)); isJob && job.Lost() && len(notes) > 0 {
		return nil // it ran, and is gone: its list of exits tells the rest
	}
	said := runtimeError(b.path(runtimeLog))
	if u, stateErr := m.o.Units.State(ctx, name); isJob && stateErr == nil && ended(u) && said == "" {
		// The container ran, and was over before systemd had looked: that is an
		// exit, though systemd calls the start failed.
		return nil
	}
	if stopErr := errors.Join(m.o.Units.Stop(ctx, name), m.o.Units.ResetFailed(ctx, name)); stopErr != nil {
		m.logger(c.id, "start").Warn("Cannot put the failed unit away", "error", stopErr)
	}
	if isJob && said != "" {
		return startError("create the container", said, commandOf(c))
	}
	return fmt.Errorf("cannot start the unit: %w", err)
}

// startOnce starts the unit, again if systemd executed itself anew at the very
// moment and so never heard of it: the unit is not there, and the runtime has
// not made the container's process.
func (m *Manager) startOnce(ctx context.Context, name string, b bundle, props []units.Property) error {
	for {
		if err := os.Remove(b.path(pidFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err := m.o.Units.Start(ctx, name, props)
		var job *units.JobError
		if !errors.As(err, &job) || !job.Lost() {
			return err
		}
		if _, statErr := os.Stat(b.path(pidFile)); !errors.Is(statErr, fs.ErrNotExist) {
			return err
		}
		m.o.Log.Info("Starting the unit again, as systemd has not heard of it", "unit", name, "error", err)
	}
}
