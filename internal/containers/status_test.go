package containers

import (
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/units"
)

// at is a moment of the story that a test tells, in seconds after its beginning.
func at(second int) time.Time { return noon.Add(time.Duration(second) * time.Second) }

// unitRun is a unit with a process, pid, since a second of the story.
func unitRun(pid uint32, start int) units.State {
	return units.State{
		LoadState: "loaded", ActiveState: "active", SubState: "running", Result: "success", FreezerState: "running",
		MainPID: pid, ExecMainPID: pid, ExecMainStart: at(start),
	}
}

// unitEnd is a unit whose process has ended: code and status are those of waitid(2).
func unitEnd(pid uint32, start, end int, code, status int32, active, sub, result string) units.State {
	u := unitRun(pid, start)
	u.MainPID, u.ExecMainExit, u.ExecMainCode, u.ExecMainStatus = 0, at(end), code, status
	u.ActiveState, u.SubState, u.Result = active, sub, result
	return u
}

func withRestarts(u units.State, n uint32) units.State {
	u.NRestarts = n
	return u
}

func withFreezer(u units.State, state string) units.State {
	u.FreezerState = state
	return u
}

// The states that most stories begin with.
var (
	isCreated    = Status{State: container.StateCreated}
	isRunning    = Status{State: container.StateRunning, Pid: 10, StartedAt: at(1)}
	isPaused     = Status{State: container.StatePaused, Pid: 10, StartedAt: at(1)}
	isRestarting = Status{State: container.StateRestarting, ExitCode: 1, StartedAt: at(1), FinishedAt: at(2)}
	isExited     = Status{State: container.StateExited, ExitCode: 1, StartedAt: at(1), FinishedAt: at(2)}
)

func TestFollow(t *testing.T) {
	started := func(second int) incident { return incident{at: at(second)} }
	exited := func(second, code int) incident { return incident{exited: true, at: at(second), code: code} }

	for _, tc := range []struct {
		name string
		cur  Status
		unit units.State
		want Status
		told []incident
	}{
		// Beginnings.
		{
			name: "start", cur: isCreated, unit: unitRun(10, 1),
			want: isRunning, told: []incident{started(1)},
		},
		{
			name: "start again", cur: isExited, unit: unitRun(20, 5),
			want: Status{State: container.StateRunning, Pid: 20, StartedAt: at(5), FinishedAt: at(2)},
			told: []incident{started(5)},
		},
		{
			name: "a start clears what went wrong before",
			cur:  Status{State: container.StateExited, ExitCode: 137, OOMKilled: true, Error: "no such file", StartedAt: at(1), FinishedAt: at(2)},
			unit: unitRun(20, 5),
			want: Status{State: container.StateRunning, Pid: 20, StartedAt: at(5), FinishedAt: at(2)},
			told: []incident{started(5)},
		},
		{
			name: "nothing is concluded before the start is through", cur: isCreated,
			unit: units.State{ActiveState: "activating", SubState: "start-post", MainPID: 10, ExecMainPID: 10, ExecMainStart: at(1)},
			want: isCreated,
		},
		{
			name: "failed start without a process", cur: isCreated,
			unit: units.State{ActiveState: "failed", SubState: "failed", Result: "exit-code"},
			want: isCreated,
		},
		{
			name: "failed start after an earlier run", cur: isExited,
			unit: units.State{ActiveState: "failed", SubState: "failed", Result: "timeout"},
			want: isExited,
		},
		{
			name: "over before anybody looked", cur: isCreated,
			unit: unitEnd(10, 1, 1, cldExited, 3, "failed", "failed", "exit-code"),
			want: Status{State: container.StateExited, ExitCode: 3, StartedAt: at(1), FinishedAt: at(1)},
			told: []incident{started(1), exited(1, 3)},
		},
		{
			name: "over before anybody looked, and to be restarted", cur: isCreated,
			unit: unitEnd(10, 1, 1, cldExited, 3, "activating", "auto-restart", "exit-code"),
			want: Status{State: container.StateRestarting, ExitCode: 3, StartedAt: at(1), FinishedAt: at(1)},
			told: []incident{started(1), exited(1, 3)},
		},

		// Ends.
		{
			name: "clean exit of a unit that remains", cur: isRunning,
			unit: unitEnd(10, 1, 4, cldExited, 0, "active", "exited", "success"),
			want: Status{State: container.StateExited, StartedAt: at(1), FinishedAt: at(4)},
			told: []incident{exited(4, 0)},
		},
		{
			name: "exit with a status", cur: isRunning,
			unit: unitEnd(10, 1, 4, cldExited, 7, "failed", "failed", "exit-code"),
			want: Status{State: container.StateExited, ExitCode: 7, StartedAt: at(1), FinishedAt: at(4)},
			told: []incident{exited(4, 7)},
		},
		{
			name: "killed", cur: isRunning,
			unit: unitEnd(10, 1, 4, cldKilled, 9, "failed", "failed", "signal"),
			want: Status{State: container.StateExited, ExitCode: 137, StartedAt: at(1), FinishedAt: at(4)},
			told: []incident{exited(4, 137)},
		},
		{
			name: "ended by SIGTERM, which is a clean end to systemd", cur: isRunning,
			unit: unitEnd(10, 1, 4, cldKilled, 15, "inactive", "dead", "success"),
			want: Status{State: container.StateExited, ExitCode: 143, StartedAt: at(1), FinishedAt: at(4)},
			told: []incident{exited(4, 143)},
		},
		{
			name: "dumped core", cur: isRunning,
			unit: unitEnd(10, 1, 4, cldDumped, 11, "failed", "failed", "core-dump"),
			want: Status{State: container.StateExited, ExitCode: 139, StartedAt: at(1), FinishedAt: at(4)},
			told: []incident{exited(4, 139)},
		},
		{
			name: "out of memory", cur: isRunning,
			unit: unitEnd(10, 1, 4, cldKilled, 9, "failed", "failed", "oom-kill"),
			want: Status{State: container.StateExited, ExitCode: 137, OOMKilled: true, StartedAt: at(1), FinishedAt: at(4)},
			told: []incident{{exited: true, at: at(4), code: 137, oom: true}},
		},
		{
			name: "killed while paused", cur: isPaused,
			unit: withFreezer(unitEnd(10, 1, 4, cldKilled, 9, "failed", "failed", "signal"), "frozen"),
			want: Status{State: container.StateExited, ExitCode: 137, StartedAt: at(1), FinishedAt: at(4)},
			told: []incident{exited(4, 137)},
		},
		{
			name: "nothing is concluded while the exit is tidied up after", cur: isRunning,
			unit: unitEnd(10, 1, 4, cldExited, 7, "deactivating", "stop-post", "exit-code"),
			want: isRunning,
		},
		{
			name: "an exit is told once", cur: isExited,
			unit: unitEnd(10, 1, 2, cldExited, 1, "failed", "failed", "exit-code"),
			want: isExited,
		},

		// Restarts by systemd.
		{
			name: "waits for a restart, 252", cur: isRunning,
			unit: unitEnd(10, 1, 2, cldExited, 1, "activating", "auto-restart", "exit-code"),
			want: isRestarting, told: []incident{exited(2, 1)},
		},
		{
			name: "waits for a restart, 254 after a clean end", cur: isRunning,
			unit: unitEnd(10, 1, 2, cldExited, 1, "inactive", "dead-before-auto-restart", "success"),
			want: isRestarting, told: []incident{exited(2, 1)},
		},
		{
			name: "waits for a restart, 254 after a failure", cur: isRunning,
			unit: unitEnd(10, 1, 2, cldExited, 1, "failed", "failed-before-auto-restart", "exit-code"),
			want: isRestarting, told: []incident{exited(2, 1)},
		},
		{
			name: "still waits, 254", cur: isRestarting,
			unit: unitEnd(10, 1, 2, cldExited, 1, "activating", "auto-restart-queued", "exit-code"),
			want: isRestarting,
		},
		{
			name: "is being restarted and shows the process before", cur: isRestarting,
			unit: withRestarts(unitEnd(10, 1, 2, cldExited, 1, "activating", "start", "success"), 1),
			want: isRestarting,
		},
		{
			name: "restarted", cur: isRestarting, unit: withRestarts(unitRun(20, 3), 1),
			want: Status{State: container.StateRunning, Pid: 20, StartedAt: at(3), FinishedAt: at(2), RestartCount: 1},
			told: []incident{started(3)},
		},
		{
			name: "restarted and over again", cur: isRestarting,
			unit: withRestarts(unitEnd(20, 3, 4, cldExited, 2, "activating", "auto-restart", "exit-code"), 1),
			want: Status{State: container.StateRestarting, ExitCode: 2, StartedAt: at(3), FinishedAt: at(4), RestartCount: 1},
			told: []incident{started(3), exited(4, 2)},
		},
		{
			name: "restarted while nobody was there", cur: isRunning, unit: withRestarts(unitRun(30, 9), 5),
			want: Status{State: container.StateRunning, Pid: 30, StartedAt: at(9), RestartCount: 5},
			told: []incident{started(9)},
		},
		{
			name: "a restart that failed is counted", cur: isRestarting,
			unit: withRestarts(unitEnd(10, 1, 2, cldExited, 1, "activating", "auto-restart", "exit-code"), 2),
			want: Status{State: container.StateRestarting, ExitCode: 1, StartedAt: at(1), FinishedAt: at(2), RestartCount: 2},
		},
		{
			name: "restarts are not counted down", cur: Status{State: container.StateExited, StartedAt: at(1), FinishedAt: at(2), RestartCount: 4},
			unit: units.State{ActiveState: "inactive", SubState: "dead"},
			want: Status{State: container.StateExited, StartedAt: at(1), FinishedAt: at(2), RestartCount: 4},
		},
		{
			name: "start limit hit", cur: isRestarting,
			unit: withRestarts(unitEnd(10, 1, 2, cldExited, 1, "failed", "failed", "start-limit-hit"), 3),
			want: Status{State: container.StateExited, ExitCode: 1, StartedAt: at(1), FinishedAt: at(2), RestartCount: 3},
		},
		{
			name: "start limit hit while nobody was there", cur: isRunning,
			unit: withRestarts(unitEnd(30, 8, 9, cldExited, 1, "failed", "failed", "start-limit-hit"), 3),
			want: Status{State: container.StateExited, ExitCode: 1, StartedAt: at(8), FinishedAt: at(9), RestartCount: 3},
			told: []incident{started(8), exited(9, 1)},
		},
		{
			name: "stopped before the restart", cur: isRestarting,
			unit: unitEnd(10, 1, 2, cldExited, 1, "inactive", "dead", "exit-code"),
			want: isExited,
		},

		// Pauses.
		{name: "frozen", cur: isRunning, unit: withFreezer(unitRun(10, 1), "frozen"), want: isPaused},
		{name: "not yet frozen", cur: isRunning, unit: withFreezer(unitRun(10, 1), "freezing"), want: isRunning},
		{name: "thawed", cur: isPaused, unit: unitRun(10, 1), want: isRunning},
		{
			name: "started and frozen", cur: isCreated, unit: withFreezer(unitRun(10, 1), "frozen"),
			want: isPaused, told: []incident{started(1)},
		},

		// What comes late, or says nothing.
		{name: "nothing new", cur: isRunning, unit: unitRun(10, 1), want: isRunning},
		{name: "the run before, still running", cur: Status{State: container.StateExited, StartedAt: at(1), FinishedAt: at(2)}, unit: unitRun(10, 1), want: Status{State: container.StateExited, StartedAt: at(1), FinishedAt: at(2)}},
		{
			name: "the end of the run before", cur: Status{State: container.StateRunning, Pid: 20, StartedAt: at(5)},
			unit: unitEnd(10, 1, 2, cldExited, 1, "failed", "failed", "exit-code"),
			want: Status{State: container.StateRunning, Pid: 20, StartedAt: at(5)},
		},
		{
			name: "the restart of the run before", cur: Status{State: container.StateRunning, Pid: 20, StartedAt: at(5)},
			unit: unitEnd(10, 1, 2, cldExited, 1, "activating", "auto-restart", "exit-code"),
			want: Status{State: container.StateRunning, Pid: 20, StartedAt: at(5)},
		},
		{
			// Whoever finds the unit gone says how it ended: see vanished.
			name: "a unit that says nothing", cur: isRunning, unit: units.State{ActiveState: "inactive", SubState: "dead"}, want: isRunning,
		},
		{name: "a unit that says nothing at all", cur: isRunning, unit: units.State{}, want: isRunning},

		// A clock that was set back by an hour.
		{
			name: "restarted unseen, clock set back", cur: isRunning, unit: withRestarts(unitRun(20, -3600), 1),
			want: Status{State: container.StateRunning, Pid: 20, StartedAt: at(-3600), RestartCount: 1},
			told: []incident{started(-3600)},
		},
		{
			name: "restarted, clock set back", cur: isRestarting, unit: withRestarts(unitRun(20, -3600), 1),
			want: Status{State: container.StateRunning, Pid: 20, StartedAt: at(-3600), FinishedAt: at(2), RestartCount: 1},
			told: []incident{started(-3600)},
		},
		{
			// As on a machine whose clock does not run while it is off.
			name: "start again, clock set back", cur: isExited, unit: unitRun(20, -3600),
			want: Status{State: container.StateRunning, Pid: 20, StartedAt: at(-3600), FinishedAt: at(2)},
			told: []incident{started(-3600)},
		},
		{
			name: "exit, clock set back", cur: isRunning,
			unit: unitEnd(10, 1, -3600, cldExited, 1, "failed", "failed", "exit-code"),
			want: Status{State: container.StateExited, ExitCode: 1, StartedAt: at(1), FinishedAt: at(-3600)},
			told: []incident{exited(-3600, 1)},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, told := follow(tc.cur, tc.unit)
			assert.Check(t, is.Equal(got, tc.want))
			assert.Check(t, is.Len(told, len(tc.told)))
			for i := range min(len(told), len(tc.told)) {
				assert.Check(t, is.Equal(told[i], tc.told[i]))
			}
			// What has been followed once says nothing the second time.
			again, told := follow(got, tc.unit)
			assert.Check(t, is.Equal(again, got))
			assert.Check(t, is.Len(told, 0))
		})
	}
}

// What follow does not derive from the unit, it leaves alone.
func TestFollowKeepsTheRest(t *testing.T) {
	cur := isRunning
	cur.ManuallyStopped, cur.Reason = true, "another bridge"
	for _, u := range []units.State{unitRun(10, 1), unitRun(20, 5), unitEnd(10, 1, 2, cldExited, 1, "failed", "failed", "exit-code")} {
		got, _ := follow(cur, u)
		assert.Check(t, got.ManuallyStopped)
		assert.Check(t, is.Equal(got.Reason, cur.Reason))
	}
}

// A whole life in the order in which systemd 252 tells it.
func TestFollowALife(t *testing.T) {
	s := isCreated
	var states []container.ContainerState
	var told []incident
	for _, u := range []units.State{
		{ActiveState: "activating", SubState: "start"},
		{ActiveState: "activating", SubState: "start-post", MainPID: 10, ExecMainPID: 10, ExecMainStart: at(1)},
		unitRun(10, 1),
		withFreezer(unitRun(10, 1), "freezing"),
		withFreezer(unitRun(10, 1), "frozen"),
		withFreezer(unitRun(10, 1), "thawing"),
		unitRun(10, 1),
		unitEnd(10, 1, 3, cldExited, 1, "deactivating", "stop-sigterm", "exit-code"),
		unitEnd(10, 1, 3, cldExited, 1, "deactivating", "stop-post", "exit-code"),
		unitEnd(10, 1, 3, cldExited, 1, "activating", "auto-restart", "exit-code"),
		withRestarts(unitEnd(10, 1, 3, cldExited, 1, "activating", "start", "success"), 1),
		withRestarts(unitRun(20, 4), 1),
		withRestarts(unitEnd(20, 4, 6, cldExited, 0, "inactive", "dead", "success"), 1),
	} {
		next, more := follow(s, u)
		if next.State != s.State {
			states = append(states, next.State)
		}
		s = next
		told = append(told, more...)
	}
	assert.Check(t, is.DeepEqual(states, []container.ContainerState{"running", "paused", "running", "restarting", "running", "exited"}))
	assert.Check(t, is.Len(told, 4))
	assert.Check(t, is.Equal(s, Status{State: container.StateExited, StartedAt: at(4), FinishedAt: at(6), RestartCount: 1}))
}

func TestRunningStates(t *testing.T) {
	for state, want := range map[container.ContainerState]bool{
		container.StateCreated: false, container.StateRunning: true, container.StatePaused: true, container.StateRestarting: true,
		container.StateRemoving: false, container.StateExited: false, container.StateDead: false,
	} {
		assert.Check(t, is.Equal(Status{State: state}.Running(), want), string(state))
	}
}
