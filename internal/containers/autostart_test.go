package containers

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestPolicyWantsStart(t *testing.T) {
	var (
		failed    = Status{ExitCode: 1}
		clean     = Status{}
		stopped   = Status{ExitCode: 143, ManuallyStopped: true}
		exhausted = Status{ExitCode: 1, RestartCount: 3}
	)
	type wants struct{ restart, boot bool } // of the daemon, of the machine
	never, boot, both := wants{}, wants{boot: true}, wants{true, true}
	for _, tc := range []struct {
		policy                             container.RestartPolicy
		clean, failed, stopped, exhausted_ wants
	}{
		{container.RestartPolicy{}, never, never, never, never},
		{container.RestartPolicy{Name: "no"}, never, never, never, never},
		{container.RestartPolicy{Name: "always"}, both, both, boot, both},
		{container.RestartPolicy{Name: "unless-stopped"}, both, both, never, both},
		{container.RestartPolicy{Name: "on-failure"}, never, both, never, both},
		{container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}, never, both, never, never},
	} {
		for _, is_ := range []struct {
			status Status
			want   wants
		}{{clean, tc.clean}, {failed, tc.failed}, {stopped, tc.stopped}, {exhausted, tc.exhausted_}} {
			got := wants{policyWantsStart(tc.policy, is_.status, false), policyWantsStart(tc.policy, is_.status, true)}
			assert.Check(t, is.Equal(got, is_.want), "%v, %+v", tc.policy, is_.status)
		}
	}
}

func TestAutostart(t *testing.T) {
	w := newWorld(t, 252)
	created := w.create(withPolicy("always", 0))
	always, unless := w.started(withPolicy("always", 0)), w.started(withPolicy("unless-stopped", 0))
	stopped := w.started(withPolicy("always", 0))
	assert.NilError(t, w.m.Stop(t.Context(), stopped, StopOptions{}))
	once := w.started()
	assert.NilError(t, w.m.Shutdown(t.Context(), time.Minute))
	for _, id := range []string{always, unless, once} {
		w.isExited(id)
	}
	running := func() (ids []string) {
		for _, id := range []string{created, always, unless, stopped, once} {
			if w.status(id).Running() {
				ids = append(ids, id)
			}
		}
		return ids
	}
	w.restart(nil)
	w.m.Autostart(t.Context())
	assert.Check(t, is.DeepEqual(running(), []string{always, unless}))
	w.m.Autostart(t.Context()) // they run already

	w.reboot()
	w.m.Autostart(t.Context())
	assert.Check(t, is.DeepEqual(running(), []string{always, unless, stopped}))
	w.arm("Units.Start", errFault)
	w.reboot()
	w.m.Autostart(t.Context()) // says so in the log
	assert.Check(t, is.Len(running(), 0))
}

// What stands on another one's network is started after that, however long it takes.
func TestAutostartOrder(t *testing.T) {
	w := newWorld(t, 252)
	owner := w.started(withName("owner"), withPolicy("always", 0))
	guest := w.started(withNetworkOf("owner"), withPolicy("always", 0))
	w.reboot()
	release := make(chan struct{})
	w.units.stuck[unitName(owner)] = release
	time.AfterFunc(50*time.Millisecond, func() { close(release) })
	w.m.Autostart(t.Context())
	assert.Check(t, w.status(owner).Running())
	assert.Check(t, w.status(guest).Running(), w.status(guest).Error)
}

// What stands on another one's network ends before that.
func TestShutdownOrder(t *testing.T) {
	w := newWorld(t, 252)
	owner := w.started(withName("owner"))
	guest := w.started(withNetworkOf("owner"))
	other := w.started()
	paused := w.started()
	assert.NilError(t, w.m.Pause(t.Context(), paused))
	w.config.DefaultStopTimeout = time.Minute
	assert.NilError(t, w.m.Shutdown(t.Context(), -1))
	for _, id := range []string{owner, guest, other, paused} {
		w.isExited(id)
		assert.Check(t, !w.status(id).ManuallyStopped)
		assert.Check(t, is.Equal(w.status(id).ExitCode, 143))
	}
	assert.Check(t, !w.status(guest).FinishedAt.After(w.status(owner).FinishedAt))
	w.events.mu.Lock()
	defer w.events.mu.Unlock()
	var order []string
	for _, m := range w.events.all {
		if m.Action == onDie {
			order = append(order, m.Actor.ID)
		}
	}
	assert.Check(t, is.Equal(order[0], guest))
	assert.NilError(t, w.m.Shutdown(context.Background(), 0)) // nothing runs
}

func TestShutdownTimeout(t *testing.T) {
	w := newWorld(t, 252)
	w.config.DefaultStopTimeout = -1
	var ids []string
	for range 5 {
		id := w.started(withPolicy("always", 0))
		w.units.ignore[unitName(id)] = true
		ids = append(ids, id)
	}
	begin := time.Now()
	assert.NilError(t, w.m.Shutdown(t.Context(), 1500*time.Millisecond))
	assert.Check(t, time.Since(begin) < killTimeout, "one after the other")
	for _, id := range ids {
		w.isExited(id)
		assert.Check(t, is.Equal(w.status(id).ExitCode, 137))
	}
	w.restart(nil)
	w.m.Autostart(t.Context())
	assert.Check(t, !slices.ContainsFunc(ids, func(id string) bool { return !w.status(id).Running() }))
}

func TestShutdownTellsWhatDidNotWork(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	w.arm("Units.Kill", errFault)
	err := w.m.Shutdown(t.Context(), time.Second)
	assert.ErrorContains(t, err, "cannot stop container "+id)
	assert.ErrorIs(t, err, errFault)
}
