package containers

import (
	"context"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// waiter is somebody who waits for a container.
type waiter struct {
	condition container.WaitCondition
	done      chan struct{} // closed when response is set
	response  container.WaitResponse
}

// Wait registers for a condition and returns at once; the response comes over
// the channel, which is closed without one when ctx is done. An empty condition
// is not-running.
//
//	not-running   the container is not running, now or at the end of its run
//	next-exit     its init ends the next time, also if it is started again then
//	removed       it is not there any more
//
// Errors: ErrNotFound, ErrInvalidArgument for another condition.
func (m *Manager) Wait(ctx context.Context, ref string, condition container.WaitCondition) (<-chan container.WaitResponse, error) {
	switch condition {
	case "":
		condition = container.WaitConditionNotRunning
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return nil, refused(errdefs.ErrInvalidArgument, "invalid condition: %q", condition)
	}
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	w := c.await(condition)
	responses := make(chan container.WaitResponse, 1)
	go func() {
		defer close(responses)
		select {
		case <-w.done:
			responses <- w.response
		case <-ctx.Done():
			c.forget(w)
		}
	}()
	return responses, nil
}

// await registers a waiter.
func (c *Container) await(condition container.WaitCondition) *waiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &waiter{condition: condition, done: make(chan struct{})}
	if c.gone || condition == container.WaitConditionNotRunning && !c.status.Running() {
		w.response.StatusCode = int64(c.status.ExitCode)
		close(w.done)
		return w
	}
	c.waiters = append(c.waiters, w)
	return w
}

func (c *Container) forget(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(other *waiter) bool { return other == w })
}

// wake answers those who wait for a condition.
func (c *Container) wake(condition container.WaitCondition, code int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(w *waiter) bool {
		if w.condition != condition {
			return false
		}
		w.response.StatusCode = int64(code)
		if err != nil {
			w.response.Error = &container.WaitExitError{Message: err.Error()}
		}
		close(w.done)
		return true
	})
}
