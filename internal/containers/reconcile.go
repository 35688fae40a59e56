package containers

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"lrd/internal/units"
)

// Verdict is what becomes of one container when the daemon starts.
type Verdict struct {
	Action Action
	// Reason says what lrd cannot do for the container any more, for the person who looks; empty for most.
	Reason string
	// Reopen are descriptors that systemd's store has lost and that are opened again by path.
	Reopen []string
}

// Action is what Restore does with a container.
type Action int

// The actions. None of them ends a process.
const (
	Keep     Action = iota // nothing of it runs: there is nothing to do
	Adopt                  // it runs, or is about to: its output is collected on
	Over                   // its run has ended: take note, tell, put away
	NeverRan               // a start was interrupted before there was a process: put its preparations away
	Foreign                // a unit, and no Record that can be read: show it, let it be stopped
	Broken                 // a Record that cannot be read, and no unit: show it
)

func (a Action) String() string {
	return [...]string{"keep", "adopt", "over", "never ran", "foreign", "broken"}[a]
}

// evidence is all that there is to know of one container at a start of the daemon.
type evidence struct {
	record *Record // nil: there is none
	err    error   // why the Record cannot be used
	unit   *units.State
	// stored and onDisk are the descriptors in systemd's store, and those that can be opened again by path.
	stored, onDisk []string
	network        error // what has become of its place in the network, if it is not as it was
	exits          []exitNote

	storageDriver string // now
}

// reconcile decides on one container. It is pure, so that every case that can
// come up can be written down as a line of a table.
func reconcile(e evidence) Verdict {
	alive := e.unit != nil && (unitAlive(*e.unit) || awaitingRestart(*e.unit))
	switch {
	case e.record == nil || e.err != nil:
		return reconcileUnreadable(e, alive)
	case e.record.Run == nil && alive:
		return Verdict{Action: Adopt, Reason: "its unit was started by somebody else than lrd: its output is not collected"}
	case e.record.Run == nil && len(e.stored) > 0:
		return Verdict{Action: NeverRan, Reason: homeReason(*e.record, e.storageDriver)} // interrupted before it was on record
	case e.record.Run == nil:
		return Verdict{Action: Keep, Reason: homeReason(*e.record, e.storageDriver)}
	case alive:
		return reconcileAlive(e)
	case !e.ran():
		return Verdict{Action: NeverRan, Reason: homeReason(*e.record, e.storageDriver)}
	}
	// What its pipes still hold are its last words.
	reopen, _ := e.missing()
	reopen = slices.DeleteFunc(reopen, func(what string) bool { return what == fdListener })
	return Verdict{Action: Over, Reason: homeReason(*e.record, e.storageDriver), Reopen: reopen}
}

// ran says whether the Record's run came about: the Record knows of it, or it
// has left an end behind. The list of exits is that of this run alone.
func (e evidence) ran() bool {
	return e.record.Status.live().Running() || e.unit != nil && ended(*e.unit) || len(e.exits) > 0
}

// missing are the descriptors of the run that the store does not have: those
// that can be opened again by path, and the others. The listener, from which
// nobody has anything yet, is made anew.
func (e evidence) missing() (reopen, lost []string) {
	for _, what := range e.record.Run.Descriptors {
		switch {
		case slices.Contains(e.stored, what):
		case what == fdListener || what != fdConsole && slices.Contains(e.onDisk, what):
			reopen = append(reopen, what)
		default:
			lost = append(lost, what)
		}
	}
	return reopen, lost
}

// runsOn ends the reason of a container that runs and cannot be taken back.
const runsOn = ". It runs on, and can be stopped"

// reconcileUnreadable is for a Record that is of another version of lrd, is
// damaged, or is not there, as with another data-root.
func reconcileUnreadable(e evidence, alive bool) Verdict {
	why := "lrd has no record of it; it was probably made with another data-root"
	var schema *SchemaError
	switch {
	case errors.As(e.err, &schema):
		why = e.err.Error() + "; use the version of lrd that made it"
	case e.err != nil:
		why = e.err.Error()
	}
	if alive {
		return Verdict{Action: Foreign, Reason: why + runsOn}
	}
	return Verdict{Action: Broken, Reason: why}
}

// reconcileAlive is for a container that runs: it is taken back, with whatever is missing said.
func reconcileAlive(e evidence) Verdict {
	reopen, lost := e.missing()
	v := Verdict{Action: Adopt, Reopen: reopen}
	var reasons []string
	if slices.Contains(lost, fdConsole) {
		reasons = append(reasons, "disconnected: systemd did not keep its console while lrd was stopped")
	} else if len(lost) > 0 {
		reasons = append(reasons, "disconnected: while lrd was stopped, nobody kept its "+strings.Join(lost, " and "))
	}
	if e.network != nil {
		reasons = append(reasons, e.network.Error())
	}
	if home := homeReason(*e.record, e.storageDriver); home != "" {
		reasons = append(reasons, home)
	}
	v.Reason = strings.Join(reasons, "; ")
	return v
}

// homeReason says why a container cannot be started with the daemon's present
// configuration; empty if it can.
func homeReason(r Record, storageDriver string) string {
	if r.Home.StorageDriver != "" && r.Home.StorageDriver != storageDriver {
		return fmt.Sprintf("its root filesystem was made with storage-driver %s and lrd now uses %s", r.Home.StorageDriver, storageDriver)
	}
	return ""
}

// unitAlive says whether the unit has processes, or is about to.
func unitAlive(u units.State) bool {
	switch u.ActiveState {
	case "active":
		return u.SubState != "exited"
	case "activating", "deactivating", "reloading":
		return true
	}
	return false
}
