package containers

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/fdstore"
	"lrd/internal/networks"
	"lrd/internal/units"
)

func TestRestartOfTheDaemon(t *testing.T) {
	for name, with := range map[string]func(*CreateRequest){"pipes": withStdin, "console": withTTY} {
		for _, systemd := range systemds {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, systemd)
				id := w.started(with)
				before, kept := w.status(id), w.store.names()
				w.restart(func() { assert.NilError(t, w.units.print(id, "while you were out\n")) })
				assert.Check(t, is.DeepEqual(w.status(id), before))
				assert.Check(t, is.DeepEqual(w.store.names(), kept))
				assert.Check(t, is.DeepEqual(w.networks.names(), []string{id}))
				a, err := w.m.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
				assert.NilError(t, err)
				w.units.exit(id, 0)
				<-a.Done
				w.isPutAway(id)
				assert.Check(t, slices.Contains([]string{"while you were out\n", "while you were out\r\n"}, w.logs(id)), "%q", w.logs(id))
				w.heardOf(id, onCreate, onStart, onDie)
			})
		}
	}
}

func TestExitsWhileTheDaemonIsAway(t *testing.T) {
	once := func(code int) func(*world, string) {
		return func(w *world, id string) { w.units.exit(id, code) }
	}
	for _, tc := range []struct {
		name   string
		policy container.RestartPolicyMode
		away   func(*world, string)
		state  container.ContainerState
		code   int
		hears  []events.Action
	}{
		{"clean", "no", once(0), container.StateExited, 0, []events.Action{onDie}},
		{"failure", "no", once(7), container.StateExited, 7, []events.Action{onDie}},
		{"clean, of a unit that does not stay", "on-failure", once(0), container.StateExited, 0, []events.Action{onDie}},
		{"to be restarted", "on-failure", once(1), container.StateRestarting, 1, []events.Action{onDie}},
		{"restarted", "always", func(w *world, id string) {
			w.units.exit(id, 1)
			w.units.restart(id)
		}, container.StateRunning, 0, []events.Action{onDie, onStart}},
		{"restarted twice", "always", func(w *world, id string) {
			for range 2 {
				w.units.exit(id, 1)
				w.units.restart(id)
			}
		}, container.StateRunning, 0, []events.Action{onDie, onDie, onStart}},
		{"restarted, then clean and gone", "on-failure", func(w *world, id string) {
			w.units.exit(id, 1)
			w.units.restart(id)
			time.Sleep(time.Millisecond)
			w.units.exit(id, 0)
		}, container.StateExited, 0, []events.Action{onDie, onStart, onDie}},
		{"vanished", "no", func(w *world, id string) { w.units.vanish(id) }, container.StateExited, lostExitCode, []events.Action{onDie}},
		{"stopped with systemctl", "always", func(w *world, id string) {
			assert.NilError(w.t, w.units.Stop(w.t.Context(), unitName(id)))
			assert.NilError(w.t, w.units.ResetFailed(w.t.Context(), unitName(id)))
		}, container.StateExited, 143, []events.Action{onDie}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, 252)
			id := w.started(withPolicy(tc.policy, 0))
			w.restart(func() {
				assert.NilError(t, w.units.print(id, "last words\n"))
				tc.away(w, id)
			})
			w.becomes(id, tc.state)
			assert.Check(t, is.Equal(w.status(id).ExitCode, tc.code))
			assert.Check(t, is.Equal(w.status(id).ManuallyStopped, tc.name == "stopped with systemctl"))
			w.heardOf(id, append([]events.Action{onCreate, onStart}, tc.hears...)...)
			if tc.state == container.StateExited {
				w.isPutAway(id)
				assert.Check(t, !w.status(id).FinishedAt.Before(w.status(id).StartedAt))
			}
			assert.Check(t, is.Equal(w.logs(id), "last words\n"))
		})
	}
}

func TestAutoRemoveWhileTheDaemonIsAway(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withAutoRemove)
	w.restart(func() { w.units.exit(id, 0) })
	w.isGone(id)
	w.heardOf(id, onCreate, onStart, onDie, onDestroy)
}

func TestReboot(t *testing.T) {
	w := newWorld(t, 252)
	plain, unless := w.started(), w.started(withPolicy("unless-stopped", 0))
	stopped := w.started(withPolicy("unless-stopped", 0))
	assert.NilError(t, w.m.Stop(t.Context(), stopped, StopOptions{}))
	w.reboot()
	eventually(t, "both are put away", func() bool { return w.record(plain).Run == nil && w.record(unless).Run == nil })
	for _, id := range []string{plain, unless} {
		w.isPutAway(id)
		s := w.status(id)
		assert.Check(t, is.Equal(s.State, container.StateExited))
		assert.Check(t, is.Equal(s.ExitCode, lostExitCode))
		assert.Check(t, is.Equal(s.Error, "the machine was restarted while the container ran"))
		assert.Check(t, !s.ManuallyStopped)
	}
	w.m.Autostart(t.Context())
	assert.Check(t, is.Equal(w.status(plain).State, container.StateExited))
	assert.Check(t, is.Equal(w.status(unless).State, container.StateRunning))
	assert.Check(t, is.Equal(w.status(stopped).State, container.StateExited))
}

// What a start that was interrupted has left is put away, and the container can be started.
func TestInterruptedStart(t *testing.T) {
	for _, onRecord := range []bool{false, true} {
		w := newWorld(t, 252)
		id := w.started()
		run := w.record(id).Run
		w.restart(func() {
			// As if the daemon had died just before it started the unit.
			w.units.vanish(id)
			c := w.container(id)
			r, _ := c.snapshot()
			r.Status = SavedStatus{State: container.StateCreated}
			if r.Run = nil; onRecord {
				r.Run = run
			}
			assert.NilError(t, w.m.records.save(&r))
		})
		eventually(t, "put away", func() bool {
			_, err := os.Stat(w.m.runDir(id))
			return w.record(id).Run == nil && os.IsNotExist(err)
		})
		w.isPutAway(id)
		assert.Check(t, is.Equal(w.status(id).State, container.StateCreated))
		w.heardOf(id, onCreate, onStart)
		assert.NilError(t, w.m.Start(t.Context(), id))
		assert.Check(t, is.Len(w.store.names(), 2))
	}
}

// The unit of an interrupted start was still being started when the daemon came back.
func TestInterruptedStartThatComesToNothing(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withAutoRemove)
	w.restart(func() {
		one := w.units.loaded[unitName(id)]
		one.hangUp()
		one.state = units.State{Name: unitName(id), LoadState: "loaded", ActiveState: "activating", SubState: "start"}
		r, _ := w.container(id).snapshot()
		r.Status = SavedStatus{State: container.StateCreated}
		assert.NilError(t, w.m.records.save(&r))
	})
	assert.Check(t, is.Equal(w.status(id).State, container.StateCreated))
	assert.Check(t, w.record(id).Run != nil)
	w.units.mu.Lock()
	one := w.units.loaded[unitName(id)]
	one.state.ActiveState, one.state.SubState = "failed", "failed"
	w.units.tell(one)
	w.units.mu.Unlock()
	w.isGone(id)
}

// A daemon that died between taking note of an exit and putting the run away.
func TestInterruptedPuttingAway(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	w.restart(func() {
		assert.NilError(t, w.units.print(id, "last words\n"))
		w.units.exit(id, 5)
		r, s := w.container(id).snapshot()
		u, err := w.units.State(t.Context(), unitName(id))
		assert.NilError(t, err)
		next, _ := follow(s, u)
		r.Status = saved(next)
		assert.NilError(t, w.m.records.save(&r))
	})
	w.isPutAway(id)
	assert.Check(t, is.Equal(w.status(id).ExitCode, 5))
	assert.Check(t, is.Equal(w.logs(id), "last words\n"))
}

func TestRestoreWithoutARecord(t *testing.T) {
	for name, spoil := range map[string]func(w *world, id string){
		"another data-root": func(w *world, id string) { assert.NilError(w.t, os.RemoveAll(w.m.dataDir(id))) },
		"damaged": func(w *world, id string) {
			assert.NilError(w.t, os.WriteFile(w.m.records.path(id), []byte("{"), 0o600))
			assert.NilError(w.t, os.Remove(w.m.records.copyPath(id)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 252)
			id := w.started(withPolicy("always", 0), withTTY)
			kept := w.store.names()
			w.restart(func() { spoil(w, id) })
			s := w.status(id)
			assert.Check(t, is.Equal(s.State, container.StateRunning))
			assert.Check(t, is.Contains(s.Reason, "It runs on"))
			assert.Check(t, is.DeepEqual(w.store.names(), kept), "its console is hung up")
			w.heardOf(id, onCreate, onStart)
			err := w.m.Remove(t.Context(), id, RemoveOptions{Force: true})
			assert.Check(t, errdefs.IsFailedPrecondition(err))
			assert.Check(t, is.Equal(w.status(id).State, container.StateRunning), "killed for nothing")
			_, err = w.m.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
			assert.Check(t, errdefs.IsFailedPrecondition(err))

			over := w.wait(id, container.WaitConditionNotRunning)
			assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{}))
			answered(t, over, 143)
			assert.Check(t, is.Len(w.store.names(), 0))
			assert.Check(t, is.Len(w.units.names(), 0))
			if name == "damaged" {
				w.becomes(id, container.StateDead)
				assert.Check(t, w.status(id).Reason != "")
				data, err := os.ReadFile(w.m.records.path(id))
				assert.NilError(t, err)
				assert.Check(t, is.Equal(string(data), "{"), "it was written to")
				w.restart(nil)
				assert.Check(t, is.Equal(w.status(id).State, container.StateDead))
			} else {
				eventually(t, "forgotten", func() bool { return w.m.get(id) == nil })
			}
		})
	}
}

// What the making or the removal of a container left half done is removed.
func TestRestoreRemovesHalfAContainer(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create()
	w.restart(func() { assert.NilError(t, os.Remove(w.m.records.path(id))) })
	w.isGone(id)
}

// The store has two descriptors of one name, and can remove only both.
func TestRestoreWithADescriptorTwice(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withTTY)
	kept := w.store.names()
	w.restart(func() {
		name := fdName(id, fdConsole)
		assert.NilError(t, w.store.PutAll(t.Context(), []fdstore.Item{{Name: name, File: w.store.files[name][0]}}))
	})
	assert.Check(t, is.DeepEqual(w.store.names(), kept))
	assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{}))
	w.isPutAway(id)
}

func TestRestoreDropsDescriptorsOfNobody(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	w.restart(func() {
		w.units.vanish(id)
		assert.NilError(t, os.RemoveAll(w.m.dataDir(id)))
	})
	assert.Check(t, is.Len(w.store.names(), 0))
}

// A store that does not let go of something keeps no daemon from starting.
func TestRestoreWithAStoreThatFails(t *testing.T) {
	w := newWorld(t, 252)
	id, other := w.started(), w.started()
	w.restart(func() {
		w.units.vanish(id)
		assert.NilError(t, os.RemoveAll(w.m.dataDir(id)))
		w.arm("Descriptors.Remove", errFault)
	})
	w.arm("Descriptors.Remove", nil)
	assert.Check(t, is.Equal(w.status(other).State, container.StateRunning))
}

func TestRestoreOpensPipesAgain(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withStdin)
	kept := w.store.names()
	w.restart(func() {
		assert.NilError(t, w.store.Remove(t.Context(), kept...))
		assert.NilError(t, w.units.print(id, "still here\n"))
	})
	assert.Check(t, is.Equal(w.status(id).Reason, ""))
	assert.Check(t, is.DeepEqual(w.store.names(), kept))
	w.units.exit(id, 0)
	w.isPutAway(id)
	assert.Check(t, is.Equal(w.logs(id), "still here\n"))
}

func TestRestoreTellsOfTheNetwork(t *testing.T) {
	for _, all := range []bool{false, true} {
		w := newWorld(t, 252)
		id, other := w.started(), w.started()
		w.restart(func() {
			w.arm("Networks.Restore", &networks.RestoreError{Containers: map[string]error{id: errFault}})
			if all {
				w.arm("Networks.Restore", errFault)
			}
		})
		assert.Check(t, is.Equal(w.status(id).Reason, errFault.Error()))
		assert.Check(t, is.Equal(w.status(other).Reason != "", all))
		_, err := w.m.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
		assert.NilError(t, err)
		assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{}))
		w.arm("Networks.Restore", nil)
		eventually(t, "free of reasons", func() bool { return w.status(id).Reason == "" })
		assert.NilError(t, w.m.Start(t.Context(), id))
	}
}

// Whatever is wrong with one container, the others are taken back.
func TestRestoreWithAMix(t *testing.T) {
	w := newWorld(t, 252)
	var running []string
	for range 12 {
		running = append(running, w.started(withPolicy("always", 0)))
	}
	created, damaged, over := w.create(), w.create(), w.started()
	w.restart(func() {
		assert.NilError(t, os.WriteFile(w.m.records.path(damaged), nil, 0o600))
		assert.NilError(t, os.Mkdir(filepath.Join(w.root, "data", "containers", "no container"), 0o700))
		w.units.exit(over, 1)
	})
	for _, id := range running {
		assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
	}
	assert.Check(t, is.Equal(w.status(created).State, container.StateCreated))
	assert.Check(t, is.Equal(w.status(damaged).State, container.StateDead))
	w.becomes(over, container.StateExited)
	assert.Check(t, is.Equal(w.m.Counts(), Counts{Total: 15, Running: 12, Stopped: 3}))
}

func TestRestoreNeedsSystemd(t *testing.T) {
	w := newWorld(t, 252)
	w.leave()
	w.newManager()
	w.arm("Units.List", errFault)
	err := w.m.Restore(t.Context(), w.store.handBack(t), nil)
	assert.Check(t, errors.Is(err, errFault))
	w.arm("Units.List", nil)
}

// A stop that a daemon began and did not finish is finished by systemd, and known to the next one.
func TestHalfDoneStop(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withPolicy("always", 0))
	w.restart(func() {
		assert.NilError(t, os.WriteFile(w.m.pipePath(id, stoppingFile), nil, 0o600))
	})
	w.units.exit(id, 0)
	w.becomes(id, container.StateExited)
	w.isPutAway(id)
	assert.Check(t, !w.status(id).ManuallyStopped, "it was the daemon that stopped it")
}

// The published ports of a container whose Record is of another version go on while it runs, and go with it.
func TestForeignKeepsItsNetwork(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started()
	w.restart(func() {
		data, err := os.ReadFile(w.m.records.path(id))
		assert.NilError(t, err)
		newer := changed(t, data, map[string]any{"schema": Schema{schemaMajor + 1, 0}, "config": 7})
		assert.NilError(t, os.WriteFile(w.m.records.path(id), newer, 0o600))
	})
	assert.Check(t, w.container(id).foreign)
	assert.Check(t, is.DeepEqual(w.networks.names(), []string{id}))
	_, err := w.m.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
	assert.Check(t, errdefs.IsFailedPrecondition(err), "%v", err)
	// It can be taken out of a network by force only: what is on record is not this version's to change.
	err = w.m.DisconnectNetwork(t.Context(), id, "bridge", false)
	assert.Check(t, errdefs.IsFailedPrecondition(err), "%v", err)
	assert.NilError(t, w.m.DisconnectNetwork(t.Context(), id, "bridge", true))
	assert.Check(t, is.Len(w.networks.attached[id].Endpoints, 0))
	w.arm("Networks.Disconnect", refused(errdefs.ErrFailedPrecondition, "it is not known"))
	assert.ErrorContains(t, w.m.DisconnectNetwork(t.Context(), id, "bridge", true), "endpoint "+id+" not found")
	assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{}))
	w.becomes(id, container.StateDead)
	eventually(t, "its network is gone", func() bool { return len(w.networks.names()) == 0 })
}
