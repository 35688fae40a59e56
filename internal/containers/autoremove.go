package containers

import (
	"context"
	"sync"
	"time"
)

// followerGrace is how long after a run's end the removal of its container waits for clients that follow its logs:
// a client that reads at all needs milliseconds for the rest, and one whose terminal is stopped must not keep
// another one's `docker run --rm` from ending. It reads on from what is open, as long as lrd is not restarted.
var followerGrace = 10 * time.Second // shorter in tests

// Reading says that somebody reads the container's output: with AutoRemove it is not removed after its end
// before done is called, which may be called again. An attached client, who has no other way to it, is waited for
// as long as it takes, others for a while. It can be removed by a person all the same. Errors: ErrNotFound.
func (m *Manager) Reading(ref string, attached bool) (done func(), err error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	readers := &c.followers
	if attached {
		readers = &c.attached
	}
	*readers++
	return sync.OnceFunc(func() {
		c.mu.Lock()
		*readers--
		again := c.attached == 0 && c.removeWhenRead
		c.mu.Unlock()
		if again && m.ctx.Err() == nil {
			m.later(c, func(ctx context.Context) { m.autoRemove(ctx, c) })
		}
	}), nil
}

// autoRemove removes a container that is over and was made to be removed then, as soon as its output has been
// read. The caller holds c.op.
func (m *Manager) autoRemove(ctx context.Context, c *Container) {
	c.mu.Lock()
	if c.status.Running() || len(c.restarting) > 0 || !c.record.HostConfig.AutoRemove || c.gone {
		c.mu.Unlock()
		return
	}
	if c.attached > 0 || c.followers > 0 && !c.graceOver {
		if c.attached == 0 && !c.graceBegun {
			m.workers.Go(func() { m.endGrace(c) })
		}
		c.removeWhenRead, c.graceBegun = true, c.graceBegun || c.attached == 0
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	if err := m.remove(ctx, c, RemoveOptions{Volumes: true}); err != nil {
		m.logger(c.id, "remove").Error("Cannot remove the container after its end", "error", err)
	}
}

// endGrace lets the removal of a container wait for its followers no longer.
func (m *Manager) endGrace(c *Container) {
	select {
	case <-time.After(followerGrace):
	case <-m.ctx.Done():
		return
	}
	c.mu.Lock()
	c.graceOver = true
	c.mu.Unlock()
	m.later(c, func(ctx context.Context) { m.autoRemove(ctx, c) })
}
