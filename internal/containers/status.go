package containers

import (
	"time"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/units"
)

// Status is what a container is doing. The state moves like this; every arrow
// is taken by exactly one function, follow (below) or the operation named at it.
//
//	 Create
//	   │
//	   ▼      Start                       exit, policy says no more
//	created ─────────► running ◄───────┐ ───────────────────────► exited
//	   │                │   ▲          │                            │ ▲
//	   │          Pause │   │ Unpause  │ systemd starts it again    │ │
//	   │                ▼   │          │                            │ │
//	   │               paused      restarting ◄── exit, and the ────┼─┘ start limit,
//	   │                                          policy says again │   or Stop
//	   │                                                            │
//	   └──────────────────── Remove ──► removing ◄──────────────────┘
//	                                      │ (what cannot be deleted)
//	                                      ▼
//	                                     dead
//
// systemd is who knows: a state is derived from what it says of the unit, be it
// an announcement or what is found after the daemon was away. There is no other
// way for a container to become running, restarting or exited.
type Status struct {
	State container.ContainerState
	// Pid is that of the container's init while it runs, 0 otherwise.
	Pid int
	// ExitCode is that of the last run once it is over, 0 while there is one: the exit status, or 128 and the signal's number.
	ExitCode int
	// OOMKilled says that the kernel killed a process of the last invocation as memory ran out, and OOMKills how many have been told of while it runs.
	OOMKilled bool
	OOMKills  int
	// Error says why the last start failed; empty after one that did not.
	Error string
	// InvocationID is systemd's name for the last run.
	InvocationID string
	// StartedAt and FinishedAt are systemd's times of the last run's beginning and end.
	StartedAt, FinishedAt time.Time
	// RestartCount is how often systemd started the container again by itself since the last Start.
	RestartCount int
	// ManuallyStopped says that a person ended the last run. Such a container is not started at boot with the policy unless-stopped.
	ManuallyStopped bool
	// Reason says what lrd cannot do for this container, and why; empty for nearly all. The container runs on.
	Reason string
}

// Running says whether there is a process, or systemd is about to make one.
func (s Status) Running() bool {
	return s.State == container.StateRunning || s.State == container.StatePaused || s.State == container.StateRestarting
}

// incident is something that happened to a container and is told as an event.
type incident struct {
	exited bool // otherwise it started
	at     time.Time
	code   int
	oom    bool // the kernel killed some of it as memory ran out
	// oomTold says that this has been told when it happened.
	oomTold bool
}

// follow derives what a container is doing from what it was doing and what
// systemd says of its unit, and tells what has happened in between. It is pure:
// everything lrd believes about running containers goes through here.
//
// An invocation is told from another by systemd's name for it. That alone will
// not do: a unit that systemd starts again has the next name already and shows
// the process of the one before until the next one is there, if it ever is.
func follow(cur Status, u units.State) (Status, []incident) {
	var told []incident
	next := cur
	next.RestartCount = max(next.RestartCount, int(u.NRestarts))
	if !settled(u) || cur.State == container.StateRemoving || cur.State == container.StateDead {
		return cur, nil
	}
	if begun(cur, u) {
		next.State = container.StateRunning
		next.Pid = int(u.ExecMainPID)
		next.InvocationID = u.InvocationID
		next.StartedAt = u.ExecMainStart
		next.ExitCode = 0
		next.OOMKilled, next.OOMKills = false, 0
		next.Error = ""
		told = append(told, incident{at: u.ExecMainStart})
	}
	known := shown(next, u)
	switch {
	case !next.Running():
	case known && ended(u):
		if next.State != container.StateRestarting {
			next.ExitCode = exitCode(u)
			next.FinishedAt = u.ExecMainExit
			next.OOMKilled = u.Result == "oom-kill"
			told = append(told, incident{exited: true, at: next.FinishedAt, code: next.ExitCode, oom: next.OOMKilled, oomTold: next.OOMKilled && next.OOMKills > 0})
		}
		next.Pid = 0
		next.State = container.StateExited
		if awaitingRestart(u) {
			next.State = container.StateRestarting
		}
	case known && u.ActiveState == "active" && next.State != container.StateRestarting: // that one has ended
		next.State = container.StateRunning
		if u.FreezerState == "frozen" {
			next.State = container.StatePaused
		}
	}
	return next, told
}

// settled says whether the unit is in a state to draw conclusions from: while
// systemd runs the commands around the main process, the main process may have
// ended without it being decided what follows.
func settled(u units.State) bool {
	switch u.ActiveState {
	case "active", "inactive", "failed":
		return true
	}
	return awaitingRestart(u)
}

// shown says whether the process that the unit shows is the one that cur knows.
func shown(cur Status, u units.State) bool {
	return u.InvocationID != "" && u.InvocationID == cur.InvocationID || u.ExecMainStart.Equal(cur.StartedAt)
}

// begun says whether the unit shows an invocation that cur knows nothing of. One
// that has ended may be of long ago, and announced late; of one that runs there
// is no doubt, also after the clock was set back.
func begun(cur Status, u units.State) bool {
	if u.ExecMainPID == 0 || u.ExecMainStart.IsZero() || shown(cur, u) {
		return false
	}
	return u.ExecMainStart.After(cur.StartedAt) || u.ActiveState == "active" && u.MainPID != 0
}

// ended says whether the main process that the unit shows has ended.
func ended(u units.State) bool {
	return u.ExecMainCode != 0 && !u.ExecMainExit.IsZero()
}

// awaitingRestart says whether systemd will start the unit again by itself. The
// substates are those of systemd 252 and of 254 and later.
func awaitingRestart(u units.State) bool {
	switch u.SubState {
	case "auto-restart", "auto-restart-queued", "dead-before-auto-restart", "failed-before-auto-restart":
		return true
	}
	return false
}

// Codes of waitid(2) as in ExecMainCode (org.freedesktop.systemd1(5)).
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// exitCode is Docker's exit code for what systemd recorded: shells and people
// know 128 and the signal's number.
func exitCode(u units.State) int {
	if u.ExecMainCode == cldKilled || u.ExecMainCode == cldDumped {
		return 128 + int(u.ExecMainStatus)
	}
	return int(u.ExecMainStatus)
}
