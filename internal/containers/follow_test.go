package containers

import (
	"os"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/units"
)

// loaded is the state of a container's unit.
func (w *world) unit(id string) units.State {
	w.t.Helper()
	u, err := w.units.State(w.t.Context(), unitName(id))
	assert.NilError(w.t, err)
	return u
}

// say announces a state of a unit, be it true or not.
func (w *world) say(u units.State, removed bool) {
	w.units.changes <- units.Change{State: u, Removed: removed}
}

// settle waits until all announcements were looked at.
func (w *world) settle(id string) {
	w.t.Helper()
	c := w.container(id)
	quiet := 0
	eventually(w.t, "all is looked at", func() bool {
		c.inbox.mu.Lock()
		defer c.inbox.mu.Unlock()
		if quiet++; len(w.units.changes) > 0 || len(c.inbox.changes) > 0 || c.inbox.worker {
			quiet = 0
		}
		return quiet > 5 // one may be on its way from the channel to the queue
	})
}

// What is announced late is not believed.
func TestStaleAnnouncements(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	first := w.unit(id)
	over := first
	over.ActiveState, over.SubState, over.MainPID = "failed", "failed", 0
	over.ExecMainCode, over.ExecMainStatus, over.ExecMainExit = cldExited, 9, time.Now()
	assert.NilError(t, w.m.Restart(t.Context(), id, StopOptions{}))
	second := w.status(id)

	w.say(first, false)
	w.say(over, false)
	w.say(over, true) // the first unit was dropped; the second has its name
	w.settle(id)
	assert.Check(t, is.DeepEqual(w.status(id), second))
	assert.Check(t, w.record(id).Run != nil, "the second run was put away")
	w.heardOf(id, onCreate, onStart, onDie, onStart, onRestart)
}

func TestAnnouncementsOfNobody(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	w.units.changes <- units.Change{Resync: true}
	w.say(units.State{Name: "lrd.service", ActiveState: "failed"}, false)
	w.say(units.State{Name: unitName(longID("f")), ActiveState: "failed"}, true)
	w.settle(id)
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
}

// A systemd that does not answer is asked again, and meanwhile nothing is concluded.
func TestFollowWithoutAnAnswer(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withPolicy("always", 0))
	w.settle(id)
	w.arm("Units.State", errFault)
	w.units.exit(id, 1) // systemd 252 says failed, first
	c := w.container(id)
	eventually(t, "asked", func() bool {
		c.inbox.mu.Lock()
		defer c.inbox.mu.Unlock()
		return len(c.inbox.changes) > 0 && c.inbox.changes[0].State.ActiveState == "failed"
	})
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
	w.arm("Units.State", nil)
	w.becomes(id, container.StateRestarting)
	w.heardOf(id, onCreate, onStart, onDie)
}

// A container that was stopped behind lrd's back is not started again behind its owner's.
func TestBehindOurBack(t *testing.T) {
	for _, tc := range []struct {
		name     string
		policy   container.RestartPolicyMode
		shutdown bool
		stop     func(w *world, id string)
		want     bool
	}{
		{"systemctl stop", "always", false, systemctlStop, true},
		{"systemctl stop, unless-stopped", "unless-stopped", false, systemctlStop, true},
		{"systemctl stop, no policy", "no", false, systemctlStop, false},
		{"systemctl stop, on-failure", "on-failure", false, systemctlStop, true},
		{"shutdown of the machine", "always", true, systemctlStop, false},
		{"docker stop", "always", false, func(w *world, id string) {
			assert.NilError(w.t, w.m.Stop(w.t.Context(), id, StopOptions{}))
		}, true},
		{"stop of the daemon", "always", false, func(w *world, _ string) {
			assert.NilError(w.t, w.m.Shutdown(w.t.Context(), time.Second))
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, 252)
			id := w.started(withPolicy(tc.policy, 0))
			w.systemStopping = tc.shutdown
			tc.stop(w, id)
			w.becomes(id, container.StateExited)
			assert.Check(t, is.Equal(w.status(id).ManuallyStopped, tc.want))
			w.isPutAway(id)
		})
	}
}

func systemctlStop(w *world, id string) {
	assert.NilError(w.t, w.units.Stop(w.t.Context(), unitName(id)))
}

func TestStartLimit(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withPolicy("on-failure", 2))
	for range 2 {
		w.units.exit(id, 1)
		w.becomes(id, container.StateRestarting)
		w.units.restart(id)
		w.becomes(id, container.StateRunning)
	}
	w.units.exit(id, 5)
	w.becomes(id, container.StateRestarting)
	over := w.wait(id, container.WaitConditionNotRunning)
	// systemd counts the restart that it refuses, too.
	w.units.mu.Lock()
	one := w.units.loaded[unitName(id)]
	one.state.NRestarts, one.state.ActiveState, one.state.SubState, one.state.Result = 3, "failed", "failed", "start-limit-hit"
	w.units.tell(one)
	w.units.mu.Unlock()
	answered(t, over, 5)
	assert.Check(t, is.Equal(w.status(id).RestartCount, 2))
	assert.Check(t, !w.status(id).ManuallyStopped)
	w.isPutAway(id)
	w.heardOf(id, onCreate, onStart, onDie, onStart, onDie, onStart, onDie)
}

// A restart by systemd that was faster than lrd.
func TestMissedRun(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withPolicy("always", 0))
	next := w.wait(id, container.WaitConditionNextExit)
	c := w.container(id)
	assert.NilError(t, c.lock(t.Context()))
	for range 3 {
		w.units.exit(id, 3)
		w.units.restart(id)
	}
	c.unlock()
	answered(t, next, 3)
	w.settle(id)
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
	assert.Check(t, is.Equal(w.status(id).RestartCount, 3))
	w.heardOf(id, onCreate, onStart, onDie, onDie, onDie, onStart)
	assert.NilError(t, w.units.print(id, "fourth\n"))
	assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{}))
	assert.Check(t, is.Equal(w.logs(id), "fourth\n"))
}

// With the marker there, systemd itself does not begin another run, whoever is alive.
func TestStopMarker(t *testing.T) {
	for _, policy := range []container.RestartPolicyMode{"no", "always"} {
		w := newWorld(t, 252)
		id := w.started(withPolicy(policy, 0))
		w.units.ignore[unitName(id)] = true
		forever := -1
		done := make(chan error, 1)
		go func() { done <- w.m.Stop(t.Context(), id, StopOptions{Timeout: &forever}) }()
		eventually(t, "being stopped", func() bool {
			c := w.container(id)
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.run.stopping
		})
		eventually(t, "marked", func() bool {
			_, err := os.Stat(w.m.pipePath(id, stoppingFile))
			return (err == nil) == (policy == "always")
		})
		w.units.exit(id, 4)
		assert.NilError(t, <-done)
		assert.Check(t, is.Equal(w.status(id).ExitCode, 4))
		w.isPutAway(id)
		assert.NilError(t, w.m.Start(t.Context(), id))
		_, err := os.Stat(w.m.pipePath(id, stoppingFile))
		assert.Check(t, os.IsNotExist(err), "the mark of an earlier stop")
		w.units.ignore[unitName(id)] = false
	}
}

func TestOutOfMemoryIsTold(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	u := w.unit(id)
	w.units.mu.Lock()
	one := w.units.loaded[unitName(id)]
	one.state.ActiveState, one.state.SubState, one.state.MainPID, one.state.Result = "failed", "failed", 0, "signal"
	one.state.ExecMainCode, one.state.ExecMainStatus, one.state.ExecMainExit = cldKilled, 9, time.Now()
	list := u.InvocationID + " 1.000000000 signal killed KILL 1\n"
	assert.Check(t, os.WriteFile(w.m.pipePath(id, exitsFile), []byte(list), 0o600))
	w.units.tell(one)
	w.units.mu.Unlock()
	w.becomes(id, container.StateExited)
	assert.Check(t, w.status(id).OOMKilled)
	w.heardOf(id, onCreate, onStart, events.ActionOOM, onDie)
}
