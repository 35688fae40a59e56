package containers

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/errdefs"

	"lrd/internal/health"
	"lrd/internal/output"
)

// run is what is live of a container's run. What of it has to outlive the
// daemon is Record.Run, which is there from begin to end.
//
//	          begin: Start                          end: nothing follows
//	nothing ────────────────► run ────────────────────────────────────────► nothing
//	          adopt: Restore   │ ▲
//	                           ▼ │ invoked, exited: systemd starts the unit, its main process ends
//
// Container.mu guards it.
type run struct {
	// exited is closed at the end of the present invocation, or, while there is none, of the next one: a client
	// attaches before it starts the container. It is never nil.
	exited chan struct{}
	// stopping says that lrd is ending the run: the restart policy does not hold for it.
	stopping bool
}

// beginRun makes saved the container's run. It is on disk before anything is started. The caller holds c.op.
func (c *Container) beginRun(saved *Run) error {
	c.inbox.clear() // what was said of an earlier unit of this name
	return c.update(func(r *Record, s *Status) {
		r.Run, r.LastBoot = saved, saved.BootID
		s.RestartCount, s.ManuallyStopped, s.Error, s.OOMKilled, s.OOMKills = 0, false, "", false, 0
		c.run.stopping = false
	})
}

// adoptRun goes on with the run that an earlier daemon has begun: it collects
// the output from descriptors, which it takes over.
func (c *Container) adoptRun(descriptors ends) {
	if r, _ := c.snapshot(); r.Run == nil {
		descriptors.close()
		return
	}
	if err := c.streams.connect(descriptors); err != nil {
		c.logger("restore").Error("Cannot collect the container's output", "error", err)
		c.note(func(_ *Record, s *Status) { s.Reason = "its output is not collected: " + err.Error() })
	}
}

// endRun puts everything away that a run stood on, and then the run. If
// something cannot be put away the run stays on record, and it is tried again at
// the next start of the container or of the daemon. The caller holds c.op.
func (m *Manager) endRun(ctx context.Context, c *Container) error {
	r, _ := c.snapshot()
	errs := []error{m.endExecs(ctx, c)}
	var left error
	var leaving sync.WaitGroup // nft(8) takes as long as PID 1 does
	if r.Run != nil && r.Run.Sandbox != nil {
		leaving.Go(func() { left = m.leaveNetworks(ctx, c, r.Run.Sandbox) })
	}
	errs = append(errs, c.streams.disconnect(ctx))
	unitErr := m.putUnitAway(ctx, &r)
	leaving.Wait()
	errs = append(errs, unitErr, left)
	if c.foreign { // what else it stands on is not known
		return errors.Join(append(errs, m.o.Networks.Detach(ctx, c.id))...)
	}
	if _, ok := healthCheck(&r); ok {
		m.keepHealth(c)
		for _, unit := range health.Units(c.id) { // stopped already, unless the unit's last commands were killed
			errs = append(errs, m.o.Units.Stop(ctx, unit))
		}
	}
	errs = append(errs, m.unmountRootfs(ctx, &r), m.returnVolumes(&r), m.removeDropIns(c.id))
	if unitErr == nil { // else its last command is still to be run from there
		// The runtime's own state is gone already, unless its "delete" was killed, as by systemctl kill.
		errs = append(errs, removeAll(m.runDir(c.id), filepath.Join(m.runtimeDir(), c.id)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if r.Run != nil {
		m.publishUnmounts(&r)
	}
	c.note(func(r *Record, s *Status) {
		r.Run = nil
		s.Reason = homeReason(*r, m.o.Images.Driver())
	})
	return nil
}

// putUnitAway ends a container's unit, if it has not ended, and makes systemd forget it.
func (m *Manager) putUnitAway(ctx context.Context, r *Record) error {
	name := unitName(r.ID)
	if r.HostConfig != nil && !restarts(r.HostConfig.RestartPolicy) {
		if u, ok := m.o.Units.Known(name); ok && u.ActiveState == "failed" {
			return m.o.Units.ResetFailed(ctx, name) // nothing of it runs, and nothing follows
		}
	}
	return errors.Join(m.o.Units.Stop(ctx, name), m.o.Units.ResetFailed(ctx, name))
}

// unmountRootfs unmounts a container's root filesystem, if it is one that this
// daemon's storage driver knows.
func (m *Manager) unmountRootfs(ctx context.Context, r *Record) error {
	if r.Home.StorageDriver != m.o.Images.Driver() || m.held(r.ID) {
		return nil // who holds it unmounts it
	}
	err := m.o.Images.UnmountRootfs(ctx, r.ID)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// invoked draws the beginning of an invocation in the output.
func (c *Container) invoked() {
	out, err := c.output()
	if err == nil {
		err = out.BeginRun()
	}
	if err != nil && !errors.Is(err, output.ErrClosed) {
		c.logger("start").Error("Cannot begin a run in the output store", "error", err)
	}
}

// exited takes over what an invocation has left in its pipes, and lets those know who follow it.
func (c *Container) exited() {
	c.m.ooms.remove(c.id)
	c.streams.drainRest()
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.run.exited)
	c.run.exited = make(chan struct{})
}

// neverRan lets those know that it has come to nothing who have attached before a start that failed.
func (c *Container) neverRan() {
	if c.streams.opened() != nil {
		c.invoked()
	}
	c.exited()
}

// ended is closed when the present invocation has ended, or, while there is none, the next one.
func (c *Container) ended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run.exited
}

// consoleStored and inputClosed keep the names of the run's descriptors.

func (c *Container) consoleStored() {
	c.noteDescriptors(func(run *Run) {
		if !slices.Contains(run.Descriptors, fdConsole) {
			run.Descriptors = append(run.Descriptors, fdConsole)
		}
	})
}

func (c *Container) inputClosed() {
	c.noteDescriptors(func(run *Run) {
		run.StdinClosed = true
		run.Descriptors = slices.DeleteFunc(run.Descriptors, func(d string) bool { return d == fdStdin })
	})
}

func (c *Container) noteDescriptors(change func(*Run)) {
	c.note(func(r *Record, _ *Status) {
		if r.Run == nil {
			return
		}
		run := *r.Run
		run.Descriptors = slices.Clone(run.Descriptors)
		change(&run)
		r.Run = &run
	})
}
