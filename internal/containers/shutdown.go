package containers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Shutdown ends all containers, as a stop of the daemon without live-restore
// does: those that share another one's namespaces before that one, the others
// at the same time. What does not end in time is killed. The next start of the
// daemon starts again what its policy wants.
func (m *Manager) Shutdown(ctx context.Context, timeout time.Duration) error {
	return m.shutdown(ctx, timeout, m.all())
}

// ShutdownLeft is Shutdown for what a daemon without live-restore has left
// running because it crashed. It is called after Restore, with Run at work.
// Containers that lrd has no Record of are not its own, and are left alone.
func (m *Manager) ShutdownLeft(ctx context.Context, timeout time.Duration) error {
	return m.shutdown(ctx, timeout, slices.DeleteFunc(m.all(), func(c *Container) bool { return c.foreign }))
}

func (m *Manager) shutdown(ctx context.Context, timeout time.Duration, which []*Container) error {
	if timeout >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var errs []error
	for _, layer := range shutdownOrder(which) {
		var mu sync.Mutex
		var group sync.WaitGroup
		for _, c := range layer {
			group.Go(func() {
				if err := m.shutdownOne(ctx, c); err != nil {
					mu.Lock()
					errs = append(errs, fmt.Errorf("cannot stop container %s: %w", c.id, err))
					mu.Unlock()
				}
			})
		}
		group.Wait()
	}
	return errors.Join(errs...)
}

// shutdownOne stops a container within what ctx leaves of time.
func (m *Manager) shutdownOne(ctx context.Context, c *Container) error {
	if !c.Status().Running() {
		return nil
	}
	r, _ := c.snapshot()
	o := StopOptions{}
	if deadline, ok := ctx.Deadline(); ok {
		left := max(int(time.Until(deadline).Seconds()), 0)
		if own := stopTimeout(r, o, m.o.Config()); own < 0 || time.Duration(left)*time.Second < own {
			o.Timeout = &left
		}
	}
	return m.stop(context.WithoutCancel(ctx), c, o, byDaemon)
}

// shutdownOrder is the running containers in layers: those in a later layer
// stand on one in it no more.
func shutdownOrder(all []*Container) [][]*Container {
	var dependents, others []*Container
	for _, c := range all {
		r, s := c.snapshot()
		if !s.Running() {
			continue
		}
		if dependent(r) {
			dependents = append(dependents, c)
		} else {
			others = append(others, c)
		}
	}
	return [][]*Container{dependents, others}
}

// dependent says whether a container shares another one's namespaces.
func dependent(r Record) bool {
	h := r.HostConfig
	return h.NetworkMode.IsContainer() || h.PidMode.IsContainer() || h.IpcMode.IsContainer()
}
