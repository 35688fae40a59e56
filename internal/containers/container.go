package containers

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"lrd/internal/output"
	"lrd/internal/units"
)

// Container is the live form of a container. Its fields are reached through
// methods only; Manager has the operations.
type Container struct {
	id      string
	created time.Time

	// op serialises what sets a run up or puts it away: start, the end of a run,
	// removal, renaming, freezing. It holds one token and is taken with lock, so
	// that waiting for it can be given up. It is taken before mu. Stop and Kill do
	// without: a container that takes its time to stop can be killed meanwhile.
	op chan struct{}

	// restarting holds one token while Restart is at work: the end of the run is
	// then not the container's. It is taken before op.
	restarting chan struct{}

	// mu guards what follows. It is held for a few instructions and for the
	// writing of the Record, never over a call to systemd.
	mu     sync.Mutex
	record Record
	status Status
	out    *output.Log
	std    stdio
	// runEnded is closed at the end of the current run; nil while there is none.
	runEnded chan struct{}
	waiters  []*waiter
	// readers of the output are served before an AutoRemove; removeWhenRead says that the last of them is waited for.
	readers        int
	removeWhenRead bool
	gone           bool // removed: nothing may be written any more
	// stopping says that the run is being ended by lrd: the restart policy does not hold for it.
	stopping bool

	// queue holds what systemd said and nobody has looked at; worker says that somebody is at it.
	queue  []units.Change
	worker bool

	// foreign says that there is no Record that this version of lrd can read. Such
	// a container is shown and can be stopped; nothing is written. It never changes.
	foreign bool

	m *Manager
}

// newContainer is the live form of a Record.
func (m *Manager) newContainer(r Record) *Container {
	c := &Container{
		id: r.ID, created: r.Created, m: m,
		op:         make(chan struct{}, 1),
		restarting: make(chan struct{}, 1),
		record:     r,
		status:     r.Status.live(),
	}
	return c
}

// Status tells what the container is doing.
func (c *Container) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// snapshot is the Record and the Status as of now. What the Record points to is never changed in place.
func (c *Container) snapshot() (Record, Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record, c.status
}

// lock takes op.
func (c *Container) lock(ctx context.Context) error {
	select {
	case c.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Container) unlock() { <-c.op }

// update changes the Record and the Status, saves, and then publishes both: if
// the disk refuses, nothing has changed. change must replace what the Record
// points to rather than write into it.
func (c *Container) update(change func(*Record, *Status)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.updateLocked(change)
}

func (c *Container) updateLocked(change func(*Record, *Status)) error {
	if c.gone {
		return refused(errdefs.ErrNotFound, "No such container: %s", c.id)
	}
	r, s := c.record, c.status
	change(&r, &s)
	r.Status = saved(s)
	if !c.foreign {
		if err := c.m.records.save(&r); err != nil {
			return err
		}
	}
	c.record, c.status = r, s
	return nil
}

// note changes the Status and publishes it whether or not the disk takes it:
// for what has happened already and cannot be refused. A Record that is behind
// is put right by the next Restore, which asks systemd.
func (c *Container) note(change func(*Record, *Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return
	}
	if err := c.updateLocked(change); err != nil {
		c.m.logger(c.id, "save").Error("Cannot save what happened; it will be asked of systemd again at the next start", "error", err)
		change(&c.record, &c.status)
	}
}

// output returns the container's output store, opening it when it is needed for the first time.
func (c *Container) output() (*output.Log, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil, refused(errdefs.ErrNotFound, "No such container: %s", c.id)
	}
	if c.out == nil {
		out, err := output.Open(c.m.outputDir(c.id), output.Options{Log: c.m.logger(c.id, "output")})
		if err != nil {
			return nil, err
		}
		c.out = out
	}
	return c.out, nil
}

// A Container is a streamer.

func (c *Container) streamID() string                     { return c.id }
func (c *Container) pipe(what string) string              { return c.m.pipePath(c.id, what) }
func (c *Container) logger(operation string) *slog.Logger { return c.m.logger(c.id, operation) }

func (c *Container) streams(change func(*stdio)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.std)
}

func (c *Container) consoleStored() {
	c.note(func(r *Record, _ *Status) {
		if r.Run != nil && !slices.Contains(r.Run.Descriptors, fdConsole) {
			run := *r.Run
			run.Descriptors = append(slices.Clone(run.Descriptors), fdConsole)
			r.Run = &run
		}
	})
}

// leave closes what the daemon has open of a container that goes on without it.
func (c *Container) leave() error {
	c.mu.Lock()
	out := c.out
	std := c.std
	c.std = stdio{}
	c.mu.Unlock()
	var errs []error
	if out != nil {
		errs = append(errs, out.Close())
	}
	errs = append(errs, std.close())
	return errors.Join(errs...)
}

// requireState is the one sentence for a move that the drawing above Status does not have.
func requireState(r Record, s Status, action string, allowed ...container.ContainerState) error {
	for _, a := range allowed {
		if s.State == a {
			return nil
		}
	}
	return refused(errdefs.ErrConflict, "cannot %s container %s: it is %s", action, r.Name, s.State)
}

// removeAll removes directories that belong to a container, all of them even if one fails.
func removeAll(dirs ...string) error {
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
