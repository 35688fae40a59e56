package containers

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"lrd/internal/output"
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
	run    run
	// waiters wait for the container; see Wait.
	waiters []*waiter
	// attached and followers are how many read the output, who are served before an AutoRemove; see Reading.
	// removeWhenRead says that the removal waits for them, graceBegun for followers alone, and graceOver that it does not any more.
	attached, followers                   int
	removeWhenRead, graceBegun, graceOver bool

	gone bool // removed: nothing may be written any more

	// streams, logging and inbox have locks of their own.
	streams *streams
	logging logging
	inbox   inbox

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
		run:        run{exited: make(chan struct{})},
	}
	c.logging.options = m.logOptions(&r)
	c.streams = &streams{id: c.id, dir: m.runDir(c.id), m: m, owner: c}
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

// locked finds a container and takes its op, for the caller to give back. The context that it returns does not end
// with the client: a change runs to its end.
func (m *Manager) locked(ctx context.Context, ref string) (*Container, context.Context, error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, nil, err
	}
	ctx = context.WithoutCancel(ctx)
	return c, ctx, c.lock(ctx)
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
		err := c.m.records.save(&r)
		if err != nil && c.status.State == container.StateRemoving {
			// Its directory has gone under the hands of one who, say, wants to kill it.
			return refused(errdefs.ErrConflict, "removal of container %s is already in progress", c.id)
		}
		if err != nil {
			return err
		}
	}
	c.record, c.status = r, s
	return nil
}

// show changes the Status for all to see, and does not save: for what is told next, and noted after that. A daemon
// that is killed before the note finds it out again, and tells it again (publishOnce).
func (c *Container) show(change func(*Record, *Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone {
		change(&c.record, &c.status)
	}
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

// output is the store of what the container writes, opened when it is needed for the first time.
func (c *Container) output() (*output.Log, error) {
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	if gone {
		return nil, refused(errdefs.ErrNotFound, "No such container: %s", c.id)
	}
	return c.streams.output()
}

// A Container is a streamOwner; see run.go for the rest of it.

func (c *Container) logger(operation string) *slog.Logger { return c.m.logger(c.id, operation) }

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
