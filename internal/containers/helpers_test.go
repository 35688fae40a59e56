package containers

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/output"
)

// withPolicy gives a container a restart policy.
func withPolicy(name container.RestartPolicyMode, tries int) func(*CreateRequest) {
	return func(r *CreateRequest) {
		r.HostConfig.RestartPolicy = container.RestartPolicy{Name: name, MaximumRetryCount: tries}
	}
}

func withName(name string) func(*CreateRequest) { return func(r *CreateRequest) { r.Name = name } }
func withAutoRemove(r *CreateRequest)           { r.HostConfig.AutoRemove = true }
func withStdin(r *CreateRequest)                { r.Config.OpenStdin, r.Config.StdinOnce = true, true }
func withTTY(r *CreateRequest)                  { r.Config.Tty, r.Config.OpenStdin = true, true }
func withVolume(r *CreateRequest)               { r.Config.Volumes = map[string]struct{}{"/data": {}} }

func withNetworkOf(id string) func(*CreateRequest) {
	return func(r *CreateRequest) { r.HostConfig.NetworkMode = container.NetworkMode("container:" + id) }
}

// create makes a container and returns its ID.
func (w *world) create(with ...func(*CreateRequest)) string {
	w.t.Helper()
	req := CreateRequest{Config: &container.Config{Image: "app"}, HostConfig: &container.HostConfig{}}
	for _, change := range with {
		change(&req)
	}
	res, err := w.m.Create(w.t.Context(), req)
	assert.NilError(w.t, err)
	return res.ID
}

// started makes a container and starts it.
func (w *world) started(with ...func(*CreateRequest)) string {
	w.t.Helper()
	id := w.create(with...)
	assert.NilError(w.t, w.m.Start(w.t.Context(), id))
	return id
}

func (w *world) container(id string) *Container {
	w.t.Helper()
	c := w.m.get(id)
	assert.Assert(w.t, c != nil, "there is no container %s", id)
	return c
}

func (w *world) status(id string) Status { return w.container(id).Status() }

func (w *world) record(id string) Record {
	w.t.Helper()
	r, _ := w.container(id).snapshot()
	return r
}

// eventually waits for something that others bring about. The limit is for a machine that is busy.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// becomes waits for a state.
func (w *world) becomes(id string, state container.ContainerState) {
	w.t.Helper()
	eventually(w.t, string(state), func() bool { return w.status(id).State == state })
}

// isPutAway waits until nothing of a run is left.
func (w *world) isPutAway(id string) {
	w.t.Helper()
	eventually(w.t, "put away", func() bool { return w.record(id).Run == nil })
	w.leftNothing(id)
}

// leftNothing checks that nothing of any run is left: no unit, no descriptor, no mount, no address, no file.
func (w *world) leftNothing(ids ...string) {
	w.t.Helper()
	assert.Check(w.t, is.Len(w.units.names(), 0), "units")
	assert.Check(w.t, is.Len(w.store.names(), 0), "descriptors")
	mounted, _ := w.images.rootfs()
	assert.Check(w.t, is.Len(mounted, 0), "mounted root filesystems")
	assert.Check(w.t, is.Len(w.networks.names(), 0), "addresses")
	for _, id := range ids {
		_, err := os.Stat(w.m.runDir(id))
		assert.Check(w.t, os.IsNotExist(err), "the runtime directory is still there")
	}
}

// isGone waits until a container is removed, and checks that nothing of it is left.
func (w *world) isGone(id string) {
	w.t.Helper()
	eventually(w.t, "removed", func() bool { return w.m.get(id) == nil })
	eventually(w.t, "its names are free", func() bool {
		w.m.mu.RLock()
		defer w.m.mu.RUnlock()
		for _, owner := range w.m.names {
			if owner == id {
				return false
			}
		}
		return true
	})
	w.leftNothing(id)
	_, all := w.images.rootfs()
	assert.Check(w.t, !slices.Contains(all, id), "the root filesystem is still there")
	_, err := os.Stat(w.m.dataDir(id))
	assert.Check(w.t, os.IsNotExist(err), "the data directory is still there")
}

// heardOf waits until exactly these actions of a container were published.
func (w *world) heardOf(id string, want ...events.Action) {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !slices.Equal(w.events.actions(id), want) && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	assert.Check(w.t, is.DeepEqual(w.events.actions(id), want))
}

// logs is everything that a container has written to standard output.
func (w *world) logs(id string) string {
	w.t.Helper()
	lines, _, err := w.m.Logs(w.t.Context(), id, LogsOptions{LinesOptions: output.LinesOptions{Stdout: true, Stderr: true, Tail: -1}})
	assert.NilError(w.t, err)
	var all []byte
	for {
		chunk, err := lines.Next(context.Background())
		if err != nil {
			return string(all)
		}
		all = append(all, chunk.Data...)
	}
}

// wait registers for a condition.
func (w *world) wait(id string, condition container.WaitCondition) <-chan container.WaitResponse {
	w.t.Helper()
	responses, err := w.m.Wait(w.t.Context(), id, condition)
	assert.NilError(w.t, err)
	return responses
}

// answered checks that a wait ends, and with which status.
func answered(t *testing.T, responses <-chan container.WaitResponse, code int64) {
	t.Helper()
	select {
	case r := <-responses:
		assert.Check(t, is.Equal(r.StatusCode, code))
	case <-time.After(time.Minute):
		t.Error("the wait does not end")
	}
}
