package containers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"lrd/internal/health"
)

// Remove deletes a container that does not run, or, with Force, ends it first.
// Errors: ErrConflict when it runs.
func (m *Manager) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	if o.Link {
		return refused(errdefs.ErrNotImplemented, "cannot remove the link %s: lrd has no legacy links", ref)
	}
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	r, s := c.snapshot()
	switch {
	case !s.Running():
	case c.foreign: // nothing of it is known but that it runs
		return cannotRemove(r, s)
	case !o.Force && s.State == container.StatePaused:
		return refused(errdefs.ErrConflict, "cannot remove container %q: container is paused and must be unpaused first", "/"+r.Name)
	case !o.Force:
		return refused(errdefs.ErrConflict, "cannot remove container %q: container is %s: stop the container before removing or force remove", "/"+r.Name, s.State)
	default:
		if err := m.forceStop(ctx, c); err != nil {
			return err
		}
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	if s := c.Status(); s.Running() {
		return refused(errdefs.ErrConflict, "cannot remove container %q: it was started again meanwhile", "/"+r.Name)
	}
	return m.remove(ctx, c, o)
}

// forceStop kills a container without a grace period.
func (m *Manager) forceStop(ctx context.Context, c *Container) error {
	stopped := c.await(container.WaitConditionNotRunning)
	if err := m.markStopping(c, byPerson); err != nil {
		return err
	}
	if err := m.thaw(ctx, c, c.Status()); err != nil {
		return err
	}
	m.publish(c, events.ActionKill, time.Time{}, map[string]string{"signal": strconv.Itoa(int(syscall.SIGKILL))})
	if err := m.signal(ctx, c, syscall.SIGKILL); err != nil {
		return err
	}
	return m.killAndWait(ctx, c, stopped)
}

// cannotRemove is for a container that runs, and of which nobody knows what it is made of.
func cannotRemove(r Record, s Status) error {
	return refused(errdefs.ErrFailedPrecondition, "cannot remove container %s: %s", r.Name, s.Reason)
}

// remove deletes everything of a container. The caller holds c.op. What goes
// wrong leaves it dead: what is left is shown, and can be removed again.
func (m *Manager) remove(ctx context.Context, c *Container, o RemoveOptions) error {
	r, s := c.snapshot()
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return nil
	}
	c.status.State = container.StateRemoving
	c.mu.Unlock()
	err := m.removeParts(ctx, c, &r, o)
	var at time.Time
	if err == nil {
		at, err = m.setAside(c.id)
	}
	if err != nil {
		c.note(func(_ *Record, s *Status) {
			s.State = container.StateDead
			s.Error = err.Error()
		})
		return fmt.Errorf("cannot remove container %s: %w", r.Name, err)
	}
	m.mu.Lock()
	delete(m.byID, c.id)
	if m.names[r.Name] == c.id {
		delete(m.names, r.Name)
	}
	m.mu.Unlock()
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	c.inbox.clear()
	m.publishOnce(c, events.ActionDestroy, at, nil)
	if err := os.RemoveAll(m.dataDir(c.id) + removedSuffix); err != nil {
		c.logger("remove").Error("Cannot delete all files of a container that is gone; it is tried again at the next start", "error", err)
	}
	for _, condition := range []container.WaitCondition{container.WaitConditionRemoved, container.WaitConditionNextExit, container.WaitConditionNotRunning} {
		c.wake(condition, s.ExitCode, nil)
	}
	return nil
}

func (m *Manager) removeParts(ctx context.Context, c *Container, r *Record, o RemoveOptions) error {
	if r.Run != nil || c.foreign { // of a Record that cannot be read it is not known
		if err := m.endRun(ctx, c); err != nil {
			return err
		}
	}
	if c.foreign {
		if err := m.dropUnknownRun(ctx, c); err != nil {
			return err
		}
	}
	c.forwardRest(ctx)
	c.closingOutput()
	if out := c.streams.forget(); out != nil {
		m.drained.add(c.logging.options.Driver, c.drainedFrom(out))
		// A client that reads more slowly than the container wrote gets the rest: with --rm it has no other way to.
		if err := out.Retire(); err != nil {
			return err
		}
	}
	var errs []error
	if r.ImageID != "" || c.foreign {
		errs = append(errs, m.o.Images.RemoveRootfs(ctx, c.id))
	}
	if o.Volumes {
		errs = append(errs, m.removeVolumes(ctx, r))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, e := range m.execsIn(c) {
		// How it ended can be asked for a while yet: its client may not have come to that.
		if err := removeAll(m.execDir(e.id)); err != nil {
			return err
		}
	}
	// The Record goes last: until then a crash leaves something to go on from.
	return removeAll(m.runDir(c.id), filepath.Join(m.runtimeDir(), c.id), m.outputDir(c.id))
}

// dropUnknownRun puts away what a container may have had of whose run nothing is known.
func (m *Manager) dropUnknownRun(ctx context.Context, c *Container) error {
	errs := []error{m.dropPins(c.id), m.removeDropIns(c.id)}
	for _, unit := range health.Units(c.id) {
		errs = append(errs, m.o.Units.Stop(ctx, unit))
	}
	return errors.Join(errs...)
}

// removedSuffix ends the name of the data directory of a container that is gone, and of which this is to be told: a daemon
// that is killed meanwhile leaves it to the next one.
const removedSuffix = ".removed"

// setAside makes a container one that is gone, and returns when that was: as the time of its Record, the next daemon finds it.
func (m *Manager) setAside(id string) (at time.Time, err error) {
	now := time.Now()
	err = os.Chtimes(m.records.path(id), now, now)
	if errors.Is(err, fs.ErrNotExist) { // it has none
		return now, os.RemoveAll(m.dataDir(id))
	}
	if err != nil {
		return at, err
	}
	info, err := os.Stat(m.records.path(id)) // as exact as the file system is
	if err != nil {
		return at, err
	}
	return info.ModTime(), os.Rename(m.dataDir(id), m.dataDir(id)+removedSuffix)
}

// tellRemoved tells of containers that an earlier daemon has removed, if it had not come to that, and deletes what is left of
// them. Restore calls it.
func (m *Manager) tellRemoved() {
	left, _ := filepath.Glob(filepath.Join(m.records.dir, "*"+removedSuffix)) // the pattern is a good one
	for _, dir := range left {
		id := strings.TrimSuffix(filepath.Base(dir), removedSuffix)
		path := filepath.Join(dir, recordFile)
		data, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err == nil && statErr == nil && isID(id) { // else it was told
			r, _ := parseRecord(data)
			r.ID, r.Name = id, cmp.Or(r.Name, id[:12])
			m.publishOnce(m.newContainer(*r), events.ActionDestroy, info.ModTime(), nil)
		}
		if err := os.RemoveAll(dir); err != nil {
			m.o.Log.Error("Cannot delete all files of a container that is gone", "directory", dir, "error", err)
		}
	}
}
