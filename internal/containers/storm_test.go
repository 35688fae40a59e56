package containers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/output"
)

// expected says whether an error is one that somebody who is too early or too late gets.
func expected(err error) bool {
	return err == nil || errors.Is(err, ErrNotModified) || errdefs.IsConflict(err) || errdefs.IsNotFound(err) || errors.Is(err, output.ErrClosed)
}

// Whatever people do to a container at once, it ends as one of them wanted, and nothing is left of it.
func TestStorm(t *testing.T) {
	for _, systemd := range systemds {
		w := newWorld(t, systemd)
		ids := []string{
			w.create(), w.create(withPolicy("always", 0), withTTY), w.create(withPolicy("on-failure", 0), withStdin),
		}
		operations := []func(ctx context.Context, id string) error{
			w.m.Start, w.m.Start, w.m.Start,
			func(ctx context.Context, id string) error { return w.m.Stop(ctx, id, StopOptions{}) },
			func(ctx context.Context, id string) error { return w.m.Kill(ctx, id, "") },
			func(ctx context.Context, id string) error { return w.m.Restart(ctx, id, StopOptions{}) },
			w.m.Pause, w.m.Unpause,
			func(ctx context.Context, id string) error {
				return w.m.Rename(ctx, id, fmt.Sprintf("name%d", rand.Int()))
			},
			func(_ context.Context, id string) error { w.units.exit(id, rand.IntN(2)); return nil },
			func(_ context.Context, id string) error { w.units.restart(id); return nil },
			func(ctx context.Context, id string) error {
				_, err := w.m.Attach(ctx, id, AttachOptions{Stdin: true, Stdout: true, Stream: true})
				return err
			},
			func(ctx context.Context, id string) error { _, err := w.m.Inspect(ctx, id, false); return err },
			func(ctx context.Context, _ string) error { _, err := w.m.List(ctx, ListOptions{All: true}); return err },
			func(ctx context.Context, id string) error {
				_, err := w.m.Wait(ctx, id, container.WaitConditionNextExit)
				return err
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		var storm sync.WaitGroup
		for range 8 {
			storm.Go(func() {
				for range 60 {
					id := ids[rand.IntN(len(ids))]
					if err := operations[rand.IntN(len(operations))](ctx, id); !expected(err) {
						t.Errorf("%v", err)
					}
				}
			})
		}
		storm.Wait()
		cancel()
		for _, id := range ids {
			w.settle(id)
			// The fake systemd and lrd agree.
			_, err := w.units.State(t.Context(), unitName(id))
			assert.Check(t, is.Equal(w.status(id).Running(), err == nil), "%+v", w.status(id))
		}
		var removals sync.WaitGroup
		for range 4 {
			for _, id := range ids {
				removals.Go(func() {
					if err := w.m.Remove(t.Context(), id, RemoveOptions{Force: true}); !expected(err) {
						t.Errorf("%v", err)
					}
				})
			}
		}
		removals.Wait()
		for _, id := range ids {
			w.isGone(id)
		}
		assert.Check(t, is.Len(w.m.names, 0))
	}
}

// One container whose unit systemd does not get started holds up nobody but itself.
func TestStuckUnit(t *testing.T) {
	w := newWorld(t, 252)
	stuck, other := w.create(), w.create()
	release := make(chan struct{})
	w.units.stuck[unitName(stuck)] = release
	started := make(chan error, 1)
	go func() { started <- w.m.Start(t.Context(), stuck) }()
	eventually(t, "stuck", func() bool {
		c := w.container(stuck)
		return len(c.op) == 1
	})

	assert.NilError(t, w.m.Start(t.Context(), other))
	w.units.exit(other, 0)
	w.isExited(other)
	_, err := w.m.List(t.Context(), ListOptions{All: true})
	assert.NilError(t, err)
	_, err = w.m.Inspect(t.Context(), stuck, false)
	assert.NilError(t, err)
	// Who waits for the stuck one can give up.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	assert.ErrorIs(t, w.m.Start(ctx, stuck), context.DeadlineExceeded)
	close(release)
	assert.NilError(t, <-started)
}

func (w *world) isExited(id string) {
	w.t.Helper()
	eventually(w.t, "exited and put away", func() bool {
		r, s := w.container(id).snapshot()
		return s.State == container.StateExited && r.Run == nil
	})
}

// A start goes on when the client that asked for it has gone.
func TestStartOutlivesItsClient(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create()
	release := make(chan struct{})
	w.units.stuck[unitName(id)] = release
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan error, 1)
	go func() { started <- w.m.Start(ctx, id) }()
	eventually(t, "stuck", func() bool { return len(w.container(id).op) == 1 })
	cancel()
	close(release)
	assert.NilError(t, <-started)
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
}

// Two restarts at once leave a container with AutoRemove where it is.
func TestTwoRestarts(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withAutoRemove)
	var both sync.WaitGroup
	for range 4 {
		both.Go(func() {
			if err := w.m.Restart(t.Context(), id, StopOptions{}); err != nil {
				t.Errorf("%v", err)
			}
		})
	}
	both.Wait()
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
}

// A daemon that leaves ends what is under way, and leaves the containers alone.
func TestCloseDuringAStop(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	w.units.ignore[unitName(id)] = true
	forever := -1
	stopped := make(chan error, 1)
	go func() { stopped <- w.m.Stop(t.Context(), id, StopOptions{Timeout: &forever}) }()
	eventually(t, "being stopped", func() bool { return w.status(id).ManuallyStopped })
	w.leave()
	assert.Check(t, errdefs.IsUnavailable(<-stopped))
	w.boot()
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
}
