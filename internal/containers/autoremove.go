package containers

import (
	"context"
	"sync"
)

// Reading says that somebody reads the container's output: with AutoRemove it is not removed after its end
// before done is called, which may be called again. It can be removed by a person all the same. Errors: ErrNotFound.
func (m *Manager) Reading(ref string) (done func(), err error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readers++
	return sync.OnceFunc(func() { m.doneReading(c) }), nil
}

// doneReading removes the container if this reader was the last that its removal has waited for.
func (m *Manager) doneReading(c *Container) {
	c.mu.Lock()
	c.readers--
	remove := c.readers == 0 && c.removeWhenRead
	if remove {
		c.removeWhenRead = false
	}
	c.mu.Unlock()
	if remove && m.ctx.Err() == nil {
		m.later(c, func(ctx context.Context) { m.autoRemove(ctx, c) })
	}
}

// autoRemove removes a container that is over and was made to be removed then, as soon as nobody reads its
// output any more. The caller holds c.op.
func (m *Manager) autoRemove(ctx context.Context, c *Container) {
	c.mu.Lock()
	if c.status.Running() || len(c.restarting) > 0 || !c.record.HostConfig.AutoRemove {
		c.mu.Unlock()
		return
	}
	if c.readers > 0 {
		c.removeWhenRead = true
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	if err := m.remove(ctx, c, RemoveOptions{Volumes: true}); err != nil {
		m.logger(c.id, "remove").Error("Cannot remove the container after its end", "error", err)
	}
}
