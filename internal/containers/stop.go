package containers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"lrd/internal/config"
	"lrd/internal/oci"
	"lrd/internal/units"
)

// killTimeout bounds the wait for the end of a container that was sent SIGKILL.
// Processes in uninterruptible sleep do not die of it.
const killTimeout = 10 * time.Second

// Stop ends a container: its stop signal, a grace period, SIGKILL. It returns
// when the container has stopped. Errors: ErrNotModified when it does not run.
//
// A stop that has begun goes on if the caller goes away.
func (m *Manager) Stop(ctx context.Context, ref string, o StopOptions) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	if !c.Status().Running() {
		return ErrNotModified
	}
	if err := m.stop(context.WithoutCancel(ctx), c, o, byPerson); err != nil {
		return err
	}
	m.publish(c, events.ActionStop, time.Time{}, nil)
	return nil
}

// stop is Stop without its event.
func (m *Manager) stop(ctx context.Context, c *Container, o StopOptions, by stopper) error {
	r, s := c.snapshot()
	sig, err := m.stopSignal(r, o.Signal)
	if err != nil {
		return err
	}
	stopped := c.await(container.WaitConditionNotRunning)
	if err := m.markStopping(c, by); err != nil {
		return err
	}
	if err := m.thaw(ctx, c, s); err != nil {
		return err
	}
	if err := m.signal(ctx, c, sig); err != nil {
		return err
	}
	var grace <-chan time.Time
	if t := stopTimeout(r, o, m.o.Config()); t >= 0 {
		timer := time.NewTimer(t)
		defer timer.Stop()
		grace = timer.C
	}
	select {
	case <-stopped.done:
		return nil
	case <-m.ctx.Done():
		return refused(errdefs.ErrUnavailable, "lrd is being stopped; container %s has been sent its stop signal", r.Name)
	case <-grace:
	}
	m.logger(c.id, "stop").Info("The container did not stop in time and is killed", "signal", sig)
	return m.killAndWait(ctx, c, stopped)
}

// killAndWait ends all processes of a container: those of its PID namespace die
// with its init, and systemd kills what else there is in the control group once
// it has. Only if that does not help, the whole control group is killed at once:
// systemd 257 does that bit by bit, and so hits its own ExecStopPost=, which
// notes the exit and puts the runtime's state away.
func (m *Manager) killAndWait(ctx context.Context, c *Container, stopped *waiter) error {
	for _, who := range []units.Who{units.KillMain, units.KillAll} {
		if err := m.o.Units.Kill(ctx, unitName(c.id), who, syscall.SIGKILL); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
			return err
		}
		timer := time.NewTimer(killTimeout)
		defer timer.Stop()
		select {
		case <-stopped.done:
			return nil
		case <-m.ctx.Done():
			return refused(errdefs.ErrUnavailable, "lrd is being stopped; container %s has been killed", c.id)
		case <-timer.C:
		}
	}
	return refused(errdefs.ErrUnavailable,
		"container %s did not end within %s of being killed; a process of it is probably in uninterruptible sleep (see systemctl status %s)", c.id, 2*killTimeout, unitName(c.id))
}

// Kill sends a signal, SIGKILL if it is empty, to the container's init. After
// SIGKILL or its stop signal the container is not restarted by its policy.
// Errors: ErrConflict when it does not run.
func (m *Manager) Kill(ctx context.Context, ref, signal string) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	sig := syscall.SIGKILL
	if signal != "" {
		if sig, err = oci.ParseSignal(signal); err != nil {
			return err
		}
	}
	r, s := c.snapshot()
	if !s.Running() {
		return refused(errdefs.ErrConflict, "cannot kill container: %s: container %s is not running", ref, c.id)
	}
	stop, err := m.stopSignal(r, "")
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if sig == syscall.SIGKILL || sig == stop {
		if err := m.markStopping(c, byPerson); err != nil {
			return err
		}
	}
	stopped := c.await(container.WaitConditionNotRunning)
	if sig == syscall.SIGKILL || sig == stop {
		if err := m.thaw(ctx, c, s); err != nil {
			return err
		}
	}
	// Told first, as the end may be told before the signal's sender comes to anything else.
	m.publish(c, events.ActionKill, time.Time{}, map[string]string{"signal": strconv.Itoa(int(sig))})
	if err := m.signal(ctx, c, sig); err != nil {
		return err
	}
	if sig == syscall.SIGKILL {
		return m.killAndWait(ctx, c, stopped)
	}
	return nil
}

// thaw lets a paused container go on, so that it can answer the signal that ends it.
func (m *Manager) thaw(ctx context.Context, c *Container, s Status) error {
	if s.State != container.StatePaused {
		return nil
	}
	err := m.resume(ctx, c.id)
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return nil // it has ended
	}
	return err
}

// signal sends a signal to the container's init, or, between two runs, keeps
// systemd from beginning the next one.
func (m *Manager) signal(ctx context.Context, c *Container, sig syscall.Signal) error {
	err := m.o.Units.Kill(ctx, unitName(c.id), units.KillMain, sig)
	if err == nil || !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return err
	}
	// No process: it has ended just now, or it waits to be started again.
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if !c.Status().Running() {
		return nil
	}
	u, err := m.o.Units.State(ctx, unitName(c.id))
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	m.observe(ctx, c, u, err != nil)
	return nil
}

// stopper is who wants a container to end.
type stopper bool

const (
	byPerson stopper = true  // not to be started again by its policy
	byDaemon stopper = false // to be started again when the daemon is back
)

// markStopping makes the coming end of the container a wanted one, for this
// daemon, for systemd and for a daemon that finds the stop half done.
func (m *Manager) markStopping(c *Container, by stopper) error {
	if by == byPerson {
		if err := c.update(func(_ *Record, s *Status) { s.ManuallyStopped = true }); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.run.stopping = true
	policy := c.record.HostConfig.RestartPolicy
	c.mu.Unlock()
	if !restarts(policy) {
		return nil
	}
	err := os.WriteFile(filepath.Join(m.runDir(c.id), stoppingFile), nil, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil // there is no run any more
	}
	return err
}

// Restart stops a container that runs and starts it. Errors: those of Stop and Start.
func (m *Manager) Restart(ctx context.Context, ref string, o StopOptions) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	// One at a time: the second would stop what the first has just started. And a
	// container that removes itself at its end does not do so now.
	select {
	case c.restarting <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	over := sync.OnceFunc(func() { <-c.restarting })
	defer over()
	ctx = context.WithoutCancel(ctx)
	if c.Status().Running() {
		if err := m.stop(ctx, c, o, byPerson); err != nil {
			return err
		}
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	over() // from here on, an end is the container's again
	if err := m.start(ctx, c); err != nil && !errors.Is(err, ErrNotModified) {
		return err
	}
	m.publish(c, events.ActionRestart, time.Time{}, nil)
	return nil
}

// Pause suspends all processes of a container. Errors: ErrConflict when it does not run, or is paused.
func (m *Manager) Pause(ctx context.Context, ref string) error {
	return m.freeze(ctx, ref, container.StateRunning, m.suspend)
}

// Unpause is the opposite of Pause. Errors: ErrConflict when the container is not paused.
func (m *Manager) Unpause(ctx context.Context, ref string) error {
	return m.freeze(ctx, ref, container.StatePaused, m.resume)
}

func (m *Manager) freeze(ctx context.Context, ref string, from container.ContainerState, do func(ctx context.Context, id string) error) error {
	c, ctx, err := m.locked(ctx, ref)
	if err != nil {
		return err
	}
	defer c.unlock()
	if _, s := c.snapshot(); s.State != from {
		return notFreezable(c.id, s.State, from)
	}
	if err := do(ctx, c.id); err != nil {
		return err
	}
	u, err := m.o.Units.State(ctx, unitName(c.id))
	if err != nil {
		return err
	}
	m.observe(ctx, c, u, false)
	return nil
}

// notFreezable says in Docker's words why a container that is not in the state from can be neither paused nor unpaused.
func notFreezable(id string, state, from container.ContainerState) error {
	switch {
	case from == container.StatePaused:
		return refused(errdefs.ErrConflict, "Container %s is not paused", id)
	case state == container.StatePaused:
		return refused(errdefs.ErrConflict, "Container %s is already paused", id)
	case state == container.StateRestarting:
		return refused(errdefs.ErrConflict, "Container %s is restarting, wait until the container is running", id)
	}
	return refused(errdefs.ErrConflict, "container %s is not running", id)
}

// stopSignal is the signal that ends a container: the one asked for, its own, or SIGTERM.
func (m *Manager) stopSignal(r Record, asked string) (syscall.Signal, error) {
	for _, name := range []string{asked, r.Config.StopSignal} {
		if name != "" {
			return oci.ParseSignal(name)
		}
	}
	return syscall.SIGTERM, nil
}

// stopTimeout is the grace period between stop signal and SIGKILL: the one asked
// for, the container's own, or the daemon's. A negative one never ends.
func stopTimeout(r Record, o StopOptions, cfg *config.Config) time.Duration {
	for _, seconds := range []*int{o.Timeout, r.Config.StopTimeout} {
		if seconds != nil {
			return time.Duration(*seconds) * time.Second
		}
	}
	return cfg.DefaultStopTimeout
}
