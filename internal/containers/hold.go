package containers

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/errdefs"
)

// holds counts who reads or writes a container's files from outside: its root filesystem then stays mounted though
// the container does not run.
//
// A hold is also a file, <exec-root>/holds/<id>, so that whoever is the daemon next unmounts what a crash has left
// mounted.
type holds struct {
	// mu guards count. A container's first hold and its last release are serialised by its op, which is taken before.
	mu    sync.Mutex
	count map[string]int
}

// add changes a container's count and returns what it is then.
func (h *holds) add(id string, n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count == nil {
		h.count = map[string]int{}
	}
	h.count[id] += n
	left := h.count[id]
	if left == 0 {
		delete(h.count, id)
	}
	return left
}

func (m *Manager) holdsDir() string          { return filepath.Join(m.o.ExecRoot, "holds") }
func (m *Manager) holdPath(id string) string { return filepath.Join(m.holdsDir(), id) }

// holdRootfs mounts a container's root filesystem, if it is not mounted, and keeps it so until release is called, once.
func (m *Manager) holdRootfs(ctx context.Context, c *Container) (dir string, release func() error, err error) {
	if err := c.lock(ctx); err != nil {
		return "", nil, err
	}
	defer c.unlock()
	r, s := c.snapshot()
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	switch why := homeReason(r, m.o.Images.Driver()); {
	case gone:
		return "", nil, refused(errdefs.ErrNotFound, "No such container: %s", c.id)
	case c.foreign:
		return "", nil, refused(errdefs.ErrFailedPrecondition, "cannot reach the files of container %s: %s", r.Name, s.Reason)
	case why != "":
		return "", nil, refused(errdefs.ErrFailedPrecondition, "cannot reach the files of container %s: %s", r.Name, why)
	}
	if m.holds.add(c.id, 1) == 1 {
		err = m.noteHold(c.id)
	}
	if err == nil {
		dir, err = m.o.Images.MountRootfs(ctx, c.id)
	}
	if err != nil {
		return "", nil, errors.Join(err, m.releaseLocked(context.WithoutCancel(ctx), c))
	}
	return dir, func() error {
		// Not the caller's context: it may be done, and this has to happen.
		if err := c.lock(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		defer c.unlock()
		return m.releaseLocked(context.WithoutCancel(ctx), c)
	}, nil
}

func (m *Manager) noteHold(id string) error {
	if err := os.MkdirAll(m.holdsDir(), 0o700); err != nil {
		return err
	}
	return os.WriteFile(m.holdPath(id), nil, 0o600)
}

// releaseLocked gives one hold back. The caller holds c.op.
func (m *Manager) releaseLocked(ctx context.Context, c *Container) error {
	if m.holds.add(c.id, -1) > 0 {
		return nil
	}
	r, s := c.snapshot()
	if r.Run == nil && !s.Running() {
		if err := m.unmountRootfs(ctx, &r); err != nil {
			return err
		}
	}
	if err := os.Remove(m.holdPath(c.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// held says whether somebody holds a container's root filesystem.
func (m *Manager) held(id string) bool {
	m.holds.mu.Lock()
	defer m.holds.mu.Unlock()
	return m.holds.count[id] > 0
}

// dropHolds unmounts what the daemon before has held when it was killed. It is called by Restore.
func (m *Manager) dropHolds(ctx context.Context) {
	entries, err := os.ReadDir(m.holdsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.o.Log.Warn("Cannot find out which root filesystems the daemon before was copying", "error", err)
	}
	for _, e := range entries {
		c := m.get(e.Name())
		if c == nil {
			_ = os.Remove(m.holdPath(e.Name()))
			continue
		}
		m.later(c, func(context.Context) {
			if m.held(c.id) || c.foreign {
				return
			}
			m.holds.add(c.id, 1)
			if err := m.releaseLocked(ctx, c); err != nil {
				m.logger(c.id, "restore").Warn("Cannot unmount what the daemon before was copying", "error", err)
			}
		})
	}
}
