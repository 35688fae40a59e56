package containers

import (
	"errors"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

const (
	onCreate  = events.ActionCreate
	onStart   = events.ActionStart
	onDie     = events.ActionDie
	onKill    = events.ActionKill
	onStop    = events.ActionStop
	onPause   = events.ActionPause
	onUnpause = events.ActionUnPause
	onDestroy = events.ActionDestroy
	onRestart = events.ActionRestart
	onRename  = events.ActionRename
)

// systemds are the versions whose differences this package knows.
var systemds = []int{252, 257}

func TestLifeOfAContainer(t *testing.T) {
	for _, systemd := range systemds {
		w := newWorld(t, systemd)
		id := w.create(withName("web"))
		assert.Check(t, is.Equal(w.status(id).State, container.StateCreated))
		w.leftNothing(id)

		assert.NilError(t, w.m.Start(t.Context(), "web"))
		s := w.status(id)
		assert.Check(t, is.Equal(s.State, container.StateRunning))
		assert.Check(t, s.Pid != 0 && !s.StartedAt.IsZero())
		assert.Check(t, errdefs.IsNotModified(w.m.Start(t.Context(), id)))
		assert.NilError(t, w.units.print(id, "hello\n"))

		over := w.wait(id, container.WaitConditionNotRunning)
		next := w.wait(id, container.WaitConditionNextExit)
		removed := w.wait(id, container.WaitConditionRemoved)
		w.units.exit(id, 7)
		answered(t, over, 7)
		answered(t, next, 7)
		w.isPutAway(id)
		assert.Check(t, is.Equal(w.logs(id), "hello\n"))
		s = w.status(id)
		assert.Check(t, is.Equal(s.State, container.StateExited))
		assert.Check(t, is.Equal(s.ExitCode, 7))
		assert.Check(t, is.Equal(s.Pid, 0))
		answered(t, w.wait(id, ""), 7)

		assert.NilError(t, w.m.Start(t.Context(), id))
		assert.NilError(t, w.units.print(id, "again\n"))
		assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{}))
		assert.Check(t, is.Equal(w.status(id).ExitCode, 143))
		assert.Check(t, w.status(id).ManuallyStopped)
		assert.Check(t, errdefs.IsNotModified(w.m.Stop(t.Context(), id, StopOptions{})))
		assert.Check(t, is.Equal(w.logs(id), "hello\nagain\n"))
		w.isPutAway(id)
		select {
		case <-removed:
			t.Error("removed?")
		default:
		}
		assert.NilError(t, w.m.Remove(t.Context(), id, RemoveOptions{}))
		answered(t, removed, 143)
		w.isGone(id)
		w.heardOf(id, onCreate, onStart, onDie, onStart, onDie, onStop, onDestroy)
	}
}

func TestStopKillsWhatIgnoresIt(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	w.units.ignore[unitName(id)] = true
	seconds := 0
	assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{Timeout: &seconds}))
	assert.Check(t, is.Equal(w.status(id).ExitCode, 137))
	w.isPutAway(id)
}

func TestStopOfAPausedContainer(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	assert.NilError(t, w.m.Pause(t.Context(), id))
	forever := -1
	assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{Timeout: &forever}))
	assert.Check(t, is.Equal(w.status(id).ExitCode, 143))
	w.isPutAway(id)
}

func TestKill(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withPolicy("always", 0))
	assert.Check(t, errdefs.IsInvalidArgument(w.m.Kill(t.Context(), id, "SIGNONSENSE")))
	assert.NilError(t, w.m.Kill(t.Context(), id, "WINCH"))
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
	assert.NilError(t, w.m.Kill(t.Context(), id, ""))
	w.becomes(id, container.StateExited)
	assert.Check(t, is.Equal(w.status(id).ExitCode, 137))
	w.isPutAway(id)
	assert.Check(t, errdefs.IsConflict(w.m.Kill(t.Context(), id, "")))
	eventually(t, "all events", func() bool { return len(w.events.actions(id)) == 5 })
	assert.Check(t, is.Equal(len(w.events.actions(id)), 5)) // create, start, kill, kill, die
}

func TestPause(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	assert.Check(t, errdefs.IsConflict(w.m.Unpause(t.Context(), id)))
	assert.NilError(t, w.m.Pause(t.Context(), id))
	assert.Check(t, is.Equal(w.status(id).State, container.StatePaused))
	assert.Check(t, errdefs.IsConflict(w.m.Pause(t.Context(), id)))
	assert.Check(t, errdefs.IsConflict(w.m.Start(t.Context(), id)))
	assert.Check(t, errdefs.IsConflict(w.m.Remove(t.Context(), id, RemoveOptions{})))
	assert.NilError(t, w.m.Unpause(t.Context(), id))
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
	w.heardOf(id, onCreate, onStart, onPause, onUnpause)
	assert.Check(t, is.Equal(w.m.Counts(), Counts{Total: 1, Running: 1}))
}

func TestRestart(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withAutoRemove)
	first := w.status(id)
	assert.NilError(t, w.m.Restart(t.Context(), id, StopOptions{}))
	s := w.status(id)
	assert.Check(t, is.Equal(s.State, container.StateRunning))
	assert.Check(t, s.Pid != first.Pid && !s.ManuallyStopped)
	w.heardOf(id, onCreate, onStart, onDie, onStart, onRestart)

	w.units.exit(id, 0)
	w.isGone(id) // only now
}

func TestRestartStartsWhatDoesNotRun(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create()
	assert.NilError(t, w.m.Restart(t.Context(), id, StopOptions{}))
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
	w.heardOf(id, onCreate, onStart, onRestart)
}

func TestAutoRemove(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withAutoRemove, withVolume)
	volume := w.record(id).Mounts[0].Volume
	removed := w.wait(id, container.WaitConditionRemoved)
	w.units.exit(id, 3)
	answered(t, removed, 3)
	w.isGone(id)
	w.heardOf(id, onCreate, onStart, onDie, onDestroy)
	_, err := w.volumes.Get(t.Context(), volume)
	assert.Check(t, errdefs.IsNotFound(err), "its anonymous volume is still there")
}

func TestRemove(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withVolume)
	assert.Check(t, errdefs.IsConflict(w.m.Remove(t.Context(), id, RemoveOptions{})))
	assert.Check(t, errdefs.IsNotImplemented(w.m.Remove(t.Context(), id, RemoveOptions{Link: true})))
	volume := w.record(id).Mounts[0].Volume
	assert.NilError(t, w.m.Remove(t.Context(), id, RemoveOptions{Force: true}))
	w.isGone(id)
	w.heardOf(id, onCreate, onStart, onKill, onDie, onDestroy)
	assert.Check(t, errdefs.IsNotFound(w.m.Start(t.Context(), id)))
	_, err := w.volumes.Get(t.Context(), volume)
	assert.Check(t, err, "the volume is gone though nobody asked for that")
}

func TestForceRemoveInEveryState(t *testing.T) {
	for name, prepare := range map[string]func(*world) string{
		"created":    func(w *world) string { return w.create() },
		"running":    func(w *world) string { return w.started(withPolicy("always", 0)) },
		"restarting": func(w *world) string { return w.restarting() },
		"paused": func(w *world) string {
			id := w.started()
			assert.NilError(w.t, w.m.Pause(w.t.Context(), id))
			return id
		},
		"exited": func(w *world) string {
			id := w.started()
			assert.NilError(w.t, w.m.Stop(w.t.Context(), id, StopOptions{}))
			return id
		},
	} {
		for _, systemd := range systemds {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, systemd)
				id := prepare(w)
				assert.Check(t, is.Equal(string(w.status(id).State), name))
				assert.NilError(t, w.m.Remove(t.Context(), id, RemoveOptions{Force: true}))
				w.isGone(id)
			})
		}
	}
}

// restarting is a container between two runs.
func (w *world) restarting() string {
	w.t.Helper()
	id := w.started(withPolicy("always", 0))
	w.units.exit(id, 1)
	w.becomes(id, container.StateRestarting)
	return id
}

func TestStopBetweenTwoRuns(t *testing.T) {
	for _, end := range []struct {
		name string
		do   func(*world, string) error
	}{
		{"stop", func(w *world, id string) error { return w.m.Stop(w.t.Context(), id, StopOptions{}) }},
		{"kill", func(w *world, id string) error { return w.m.Kill(w.t.Context(), id, "") }},
		{"kill with the stop signal", func(w *world, id string) error { return w.m.Kill(w.t.Context(), id, "TERM") }},
	} {
		t.Run(end.name, func(t *testing.T) {
			w := newWorld(t, 252)
			id := w.restarting()
			assert.NilError(t, end.do(w, id))
			assert.Check(t, is.Equal(w.status(id).State, container.StateExited))
			assert.Check(t, is.Equal(w.status(id).ExitCode, 1))
			assert.Check(t, w.status(id).ManuallyStopped)
			w.isPutAway(id)
			w.units.restart(id)
			assert.Check(t, is.Equal(w.status(id).State, container.StateExited))
		})
	}
}

func TestPolicyRestarts(t *testing.T) {
	for _, systemd := range systemds {
		w := newWorld(t, systemd)
		id := w.started(withPolicy("on-failure", 0))
		first := w.status(id).Pid
		over := w.wait(id, container.WaitConditionNotRunning)
		next := w.wait(id, container.WaitConditionNextExit)
		w.units.exit(id, 1)
		answered(t, next, 1)
		w.becomes(id, container.StateRestarting)
		w.units.restart(id)
		w.becomes(id, container.StateRunning)
		assert.Check(t, w.status(id).Pid != first)
		assert.Check(t, is.Equal(w.status(id).RestartCount, 1))
		assert.NilError(t, w.units.print(id, "second\n"))
		w.units.exit(id, 0)
		answered(t, over, 0)
		w.isPutAway(id)
		assert.Check(t, is.Equal(w.logs(id), "second\n"))
		w.heardOf(id, onCreate, onStart, onDie, onStart, onDie)
	}
}

// A container that ends before its start is through has run.
func TestExitDuringTheStart(t *testing.T) {
	for _, policy := range []container.RestartPolicyMode{"no", "on-failure", "always"} {
		for code := range 2 {
			w := newWorld(t, 252)
			id := w.create(withPolicy(policy, 0))
			w.units.early[unitName(id)] = code
			assert.NilError(t, w.m.Start(t.Context(), id))
			want := container.StateExited
			if policy == "always" || policy == "on-failure" && code != 0 {
				want = container.StateRestarting
			}
			w.becomes(id, want)
			w.heardOf(id, onCreate, onStart, onDie)
			assert.Check(t, is.Equal(w.status(id).ExitCode, code), policy)
			if want == container.StateExited {
				w.isPutAway(id)
			}
			time.Sleep(10 * time.Millisecond) // what is still in the queue changes nothing
			assert.Check(t, is.Equal(w.status(id).State, want))
			w.heardOf(id, onCreate, onStart, onDie)
		}
	}
}

func TestRename(t *testing.T) {
	w := newWorld(t, 252)
	id, other := w.create(withName("one")), w.create(withName("other"))
	assert.Check(t, errdefs.IsConflict(w.m.Rename(t.Context(), "one", "other")))
	assert.Check(t, errdefs.IsInvalidArgument(w.m.Rename(t.Context(), "one", "")))
	assert.Check(t, errdefs.IsInvalidArgument(w.m.Rename(t.Context(), "one", "one")))
	assert.Check(t, errdefs.IsInvalidArgument(w.m.Rename(t.Context(), "one", "not/good")))
	assert.NilError(t, w.m.Rename(t.Context(), "one", "/two"))
	assert.Check(t, is.Equal(w.record(id).Name, "two"))
	_, err := w.m.find("one")
	assert.Check(t, errdefs.IsNotFound(err))
	assert.NilError(t, w.m.Rename(t.Context(), other, "one"))
	w.heardOf(id, onCreate, onRename)
	w.restart(nil)
	assert.Check(t, is.Equal(w.record(id).Name, "two"))
	assert.NilError(t, w.m.Remove(t.Context(), "two", RemoveOptions{}))
	w.isGone(id)
}

func TestWaitRefusesOtherConditions(t *testing.T) {
	w := newWorld(t, 252)
	_, err := w.m.Wait(t.Context(), w.create(), "sometime")
	assert.Check(t, errdefs.IsInvalidArgument(err))
}

func TestUpdateOnAFullDisk(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	w.blockRecord(id)
	assert.Check(t, w.m.Rename(t.Context(), id, "new") != nil, "a name that cannot be saved")
	_, err := w.m.find("new")
	assert.Check(t, errdefs.IsNotFound(err))
	w.units.exit(id, 4) // what has happened cannot be refused
	w.becomes(id, container.StateExited)
	assert.Check(t, is.Equal(w.status(id).ExitCode, 4))
}

var errFault = errors.New("a fault of the test")
