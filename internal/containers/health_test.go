package containers

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/units"
)

const (
	onHealthy   = events.ActionHealthStatusHealthy
	onUnhealthy = events.ActionHealthStatusUnhealthy
)

func withHealth(r *CreateRequest) {
	r.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD-SHELL", "true"}, Retries: 1, Timeout: time.Second}
}

// probed adds lines to a container's results: its beginning, and probes with these exit codes.
func (w *world) probed(id string, codes ...int) {
	w.t.Helper()
	dir := w.m.healthDir(id)
	f, err := os.OpenFile(filepath.Join(dir, "results"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	assert.NilError(w.t, err)
	defer f.Close()
	invocation := w.unit(id).InvocationID
	data, _ := os.ReadFile(f.Name())
	fmt.Fprintf(f, "%s begun 1.000000000\n", invocation)
	for i, code := range codes {
		n := len(data) + i + 1 // larger than those before
		fmt.Fprintf(f, "%s probe %d 5.000000000 6.000000000 %d\n", invocation, n, code)
		assert.NilError(w.t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("output.%d", n%5)), []byte("said\n"), 0o600))
	}
}

// probeOver announces the end of a probe's unit.
func (w *world) probeOver(id string) {
	w.say(units.State{Name: "lrd-health-" + id + ".service", ActiveState: "inactive", SubState: "dead"}, false)
	w.settle(id)
}

func (w *world) health(id string) container.Health {
	w.t.Helper()
	info, err := w.m.Inspect(w.t.Context(), id, false)
	assert.NilError(w.t, err)
	assert.Assert(w.t, info.State.Health != nil)
	return *info.State.Health
}

func (w *world) listed(id string) container.Summary {
	w.t.Helper()
	list, err := w.m.List(w.t.Context(), ListOptions{All: true, Filters: Filters{"id": {id: true}}})
	assert.NilError(w.t, err)
	assert.Assert(w.t, is.Len(list, 1))
	return list[0]
}

func TestHealth(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withHealth)
	assert.Check(t, is.Equal(w.health(id).Status, container.Starting))
	assert.Check(t, is.Contains(w.listed(id).Status, "(health: starting)"))

	w.probed(id, 0)
	w.probeOver(id)
	got := w.health(id)
	assert.Check(t, is.Equal(got.Status, container.Healthy))
	assert.Check(t, is.Equal(got.Log[0].Output, "said\n"))
	assert.Check(t, is.Contains(w.listed(id).Status, "(healthy)"))
	w.heardOf(id, onCreate, onStart, onHealthy)

	// What happens while the daemon is away is told when it is back, once.
	w.restart(func() { w.probed(id, 1) })
	assert.Check(t, is.Equal(w.health(id).Status, container.Unhealthy))
	assert.Check(t, is.Equal(w.listed(id).Health.FailingStreak, 1))
	w.restart(nil)
	w.probeOver(id)
	w.heardOf(id, onCreate, onStart, onHealthy, onUnhealthy)

	// It is known after the end, when its files are gone, and begins anew with the next start.
	w.units.exit(id, 0)
	w.becomes(id, container.StateExited)
	w.isPutAway(id)
	got = w.health(id)
	assert.Check(t, is.Equal(got.Status, container.Unhealthy))
	assert.Check(t, is.Len(got.Log, 2))
	assert.Check(t, is.Equal(got.Log[1].Output, "said\n"))
	assert.NilError(t, w.m.Start(t.Context(), id))
	assert.Check(t, is.Equal(w.health(id).Status, container.Starting))
	assert.Check(t, is.Len(w.health(id).Log, 0))
	w.probed(id, 0)
	w.probeOver(id)
	assert.Check(t, is.Equal(w.health(id).Status, container.Healthy))
}

func TestHealthFilter(t *testing.T) {
	w := newWorld(t, 252)
	with, without := w.started(withHealth), w.started()
	for status, want := range map[string]string{"starting": with, "none": without, "healthy": ""} {
		list, err := w.m.List(t.Context(), ListOptions{Filters: Filters{"health": {status: true}}})
		assert.NilError(t, err)
		if want == "" {
			assert.Check(t, is.Len(list, 0))
			continue
		}
		assert.Assert(t, is.Len(list, 1), status)
		assert.Check(t, is.Equal(list[0].ID, want))
	}
	info, err := w.m.Inspect(t.Context(), without, false)
	assert.NilError(t, err)
	assert.Check(t, info.State.Health == nil)
}

func TestHealthRefused(t *testing.T) {
	w := newWorld(t, 252)
	_, err := w.m.Create(t.Context(), CreateRequest{HostConfig: &container.HostConfig{}, Config: &container.Config{Image: "app", Healthcheck: &container.HealthConfig{Test: []string{"SOMEHOW"}}}})
	assert.Check(t, is.ErrorContains(err, "unknown health check type"))
}
