package containers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/units"
)

func updateOf(memory int64, policy container.RestartPolicyMode) container.UpdateConfig {
	return container.UpdateConfig{Resources: container.Resources{Memory: memory}, RestartPolicy: container.RestartPolicy{Name: policy}}
}

// inspected is a container's host configuration as a client sees it.
func (w *world) inspected(id string) container.HostConfig {
	w.t.Helper()
	info, err := w.m.Inspect(w.t.Context(), id, false)
	assert.NilError(w.t, err)
	return *info.HostConfig
}

func TestUpdate(t *testing.T) {
	w := newWorld(t, 252)
	stopped, running := w.create(), w.started()
	for _, id := range []string{stopped, running} {
		_, err := w.m.Update(t.Context(), id, updateOf(64<<20, "always"))
		assert.NilError(t, err)
		h := w.record(id).HostConfig
		assert.Check(t, is.Equal(h.Memory, int64(64<<20)))
		assert.Check(t, is.Equal(h.RestartPolicy.Name, container.RestartPolicyAlways))
		assert.Check(t, is.DeepEqual(w.inspected(id).Resources, h.Resources))
	}
	assert.Check(t, is.Equal(w.units.loaded[unitName(running)].props["MemoryMax"], uint64(64<<20)))
	dropIn, err := os.ReadFile(filepath.Join(w.m.dropIn(running), "50-restart.conf"))
	assert.NilError(t, err)
	assert.Check(t, is.Contains(string(dropIn), "Restart=always"))
	w.heardOf(stopped, onCreate, events.ActionUpdate)

	// What an administrator says is shown, stays with the next change, and does not outlive the run.
	assert.NilError(t, w.units.SetProperties(t.Context(), unitName(running), []units.Property{units.Uint64("TasksMax", 7), units.CPUs("AllowedCPUs", 0, 1, 2)}))
	_, err = w.m.Update(t.Context(), running, updateOf(80<<20, ""))
	assert.NilError(t, err)
	h := w.inspected(running)
	assert.Check(t, is.Equal(*h.PidsLimit, int64(7)))
	assert.Check(t, is.Equal(h.CpusetCpus, "0-2"))
	assert.Check(t, is.Equal(h.Memory, int64(80<<20)))
	assert.NilError(t, w.m.Stop(t.Context(), running, StopOptions{}))
	_, err = os.Stat(w.m.dropIn(running))
	assert.Check(t, os.IsNotExist(err))
}

func TestUpdateRefused(t *testing.T) {
	w := newWorld(t, 252)
	id, removed := w.started(), w.started(withAutoRemove)
	_, err := w.m.Update(t.Context(), id, updateOf(1, ""))
	assert.Check(t, errdefs.IsInvalidArgument(err), "%v", err)
	_, err = w.m.Update(t.Context(), id, updateOf(0, "sometimes"))
	assert.Check(t, errdefs.IsInvalidArgument(err), "%v", err)
	_, err = w.m.Update(t.Context(), removed, updateOf(0, "always"))
	assert.Check(t, errdefs.IsConflict(err), "%v", err)

	// What systemd does not take has not happened.
	for _, step := range []string{"Units.SetProperties", "Units.ReloadUnits"} {
		w.arm(step, errFault)
		before := *w.record(id).HostConfig
		_, err = w.m.Update(t.Context(), id, updateOf(64<<20, "always"))
		assert.Check(t, is.ErrorIs(err, errFault))
		assert.Check(t, is.DeepEqual(*w.record(id).HostConfig, before))
		w.arm(step, nil)
	}
}

// The drop-in says what the properties of a new unit say.
func TestRestartDropIn(t *testing.T) {
	b := bundle{dir: "/run/100% $x"}
	for _, systemd := range systemds {
		b.policy = container.RestartPolicy{}
		assert.Check(t, strings.HasSuffix(restartDropIn(b, systemd), "[Service]\nRestart=no\nRemainAfterExit=yes\n"))
		b.policy = container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}
		got := restartDropIn(b, systemd)
		for _, line := range []string{
			"StartLimitIntervalSec=infinity", "StartLimitBurst=4", "Restart=on-failure", "RemainAfterExit=no",
			`ExecCondition=/bin/sh "/run/100%% $$x/again"`, "RestartForceExitStatus=SIGHUP SIGINT SIGPIPE SIGTERM",
		} {
			assert.Check(t, is.Contains(got, "\n"+line+"\n"))
		}
		assert.Check(t, is.Equal(strings.Contains(got, "RestartSteps=9"), systemd >= 254))
	}
}
