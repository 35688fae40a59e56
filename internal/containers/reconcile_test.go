package containers

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/units"
)

// evidenceOf is what there is of a container that runs and of which nothing is lost; change tells the story.
func evidenceOf(change ...func(*evidence)) evidence {
	u := unitRun(10, 1)
	e := evidence{
		record: &Record{
			ID: longID("1"), Name: "web", Home: Home{StorageDriver: "overlay"},
			Config: &container.Config{}, HostConfig: &container.HostConfig{},
			Run:    &Run{BootID: "boot", Descriptors: []string{fdStdout, fdStderr}},
			Status: saved(isRunning),
		},
		unit:   &u,
		stored: []string{fdStdout, fdStderr}, onDisk: []string{fdStdout, fdStderr},
		storageDriver: "overlay",
	}
	for _, c := range change {
		c(&e)
	}
	return e
}

func unitIs(u units.State) func(*evidence) { return func(e *evidence) { e.unit = &u } }
func unitGone(e *evidence)                 { e.unit = nil }
func savedAs(s Status) func(*evidence)     { return func(e *evidence) { e.record.Status = saved(s) } }
func noRun(e *evidence)                    { e.record.Run = nil }
func noRecord(e *evidence)                 { e.record = nil }
func unreadable(err error) func(*evidence) { return func(e *evidence) { e.err = err } }
func stored(what ...string) func(*evidence) {
	return func(e *evidence) { e.stored = what }
}

func onDisk(what ...string) func(*evidence) {
	return func(e *evidence) { e.onDisk = what }
}

func exits(notes ...exitNote) func(*evidence) {
	return func(e *evidence) { e.exits = notes }
}

func console(e *evidence) {
	e.record.Config.Tty = true
	e.record.Run.Descriptors = []string{fdListener, fdVia, fdConsole}
	e.stored, e.onDisk = []string{fdListener, fdVia, fdConsole}, []string{fdVia}
}

func rebooted(e *evidence) {
	e.unit, e.stored, e.onDisk = nil, nil, nil
}
func otherDriver(e *evidence)   { e.storageDriver = "btrfs" }
func networkBroken(e *evidence) { e.network = errors.New("its address is not in the bridge's network") }

const (
	driverReason  = "its root filesystem was made with storage-driver overlay and lrd now uses btrfs"
	networkReason = "its address is not in the bridge's network"
	otherRoot     = "lrd has no record of it; it was probably made with another data-root"
	newerSchema   = "its record has schema 9.0 and this version of lrd reads 1.0 to 1.2; use the version of lrd that made it"
)

func TestReconcile(t *testing.T) {
	var (
		activating  = units.State{ActiveState: "activating", SubState: "start"}
		startPost   = units.State{ActiveState: "activating", SubState: "start-post", MainPID: 10, ExecMainPID: 10, ExecMainStart: at(1)}
		failedStart = units.State{ActiveState: "failed", SubState: "failed", Result: "exit-code"}
		stopping    = unitEnd(10, 1, 4, cldExited, 0, "deactivating", "stop-post", "success")
		exited      = unitEnd(10, 1, 4, cldExited, 0, "active", "exited", "success")
		failed      = unitEnd(10, 1, 4, cldExited, 7, "failed", "failed", "exit-code")
		autoRestart = unitEnd(10, 1, 4, cldExited, 7, "activating", "auto-restart", "exit-code")
		secondRun   = withRestarts(unitRun(20, 5), 1)
		note        = exitNote{invocation: "a", at: at(4)}
		schema      = &SchemaError{Found: Schema{9, 0}}
		corrupt     = &DamageError{"record.json", errors.New("unexpected end of JSON input")}
		missing     = &fs.PathError{Op: "open", Path: "/record.json", Err: fs.ErrNotExist}
		isRemoving  = Status{State: container.StateDead}
	)
	for _, tc := range []struct {
		name   string
		e      evidence
		want   Action
		reason string
		reopen []string
	}{
		// Nothing runs.
		{name: "created", e: evidenceOf(noRun, savedAs(isCreated), unitGone, stored()), want: Keep},
		{name: "exited and put away", e: evidenceOf(noRun, savedAs(isExited), unitGone, stored()), want: Keep},
		{name: "put away but for the unit", e: evidenceOf(noRun, savedAs(isExited), unitIs(failed), stored()), want: Keep},
		{name: "dead", e: evidenceOf(noRun, savedAs(isRemoving), unitGone, stored()), want: Keep},
		{name: "created, other storage driver", e: evidenceOf(noRun, savedAs(isCreated), unitGone, stored(), otherDriver), want: Keep, reason: driverReason},

		// A start that was interrupted, further on with each line.
		{name: "start: descriptors stored", e: evidenceOf(noRun, savedAs(isCreated), unitGone), want: NeverRan},
		{name: "start: on record", e: evidenceOf(savedAs(isCreated), unitGone), want: NeverRan},
		{name: "start again: on record", e: evidenceOf(savedAs(isExited), unitGone), want: NeverRan},
		{name: "start: unit begins", e: evidenceOf(savedAs(isCreated), unitIs(activating)), want: Adopt},
		{name: "start: unit has a process", e: evidenceOf(savedAs(isCreated), unitIs(startPost)), want: Adopt},
		{name: "start: unit failed", e: evidenceOf(savedAs(isCreated), unitIs(failedStart)), want: NeverRan},
		{name: "start again: unit failed", e: evidenceOf(savedAs(isExited), unitIs(failedStart)), want: NeverRan},
		{name: "start: it runs", e: evidenceOf(savedAs(isCreated)), want: Adopt},
		{name: "start again: it runs", e: evidenceOf(savedAs(isExited), unitIs(secondRun)), want: Adopt},
		{name: "start: it ran", e: evidenceOf(savedAs(isCreated), unitIs(exited)), want: Over},
		{name: "start: it ran and failed", e: evidenceOf(savedAs(isCreated), unitIs(failed)), want: Over},
		{name: "start: it ran and is gone", e: evidenceOf(savedAs(isCreated), unitGone, exits(note)), want: Over},
		{name: "start: it waits for its restart", e: evidenceOf(savedAs(isCreated), unitIs(autoRestart)), want: Adopt},
		{name: "start, then a reboot", e: evidenceOf(savedAs(isCreated), rebooted), want: NeverRan},
		{name: "start, other storage driver", e: evidenceOf(savedAs(isCreated), unitGone, otherDriver), want: NeverRan, reason: driverReason},

		// It runs.
		{name: "running", e: evidenceOf(), want: Adopt},
		{name: "paused", e: evidenceOf(savedAs(isPaused), unitIs(withFreezer(unitRun(10, 1), "frozen"))), want: Adopt},
		{name: "ending", e: evidenceOf(unitIs(stopping)), want: Adopt},
		{name: "waiting for its restart", e: evidenceOf(unitIs(autoRestart)), want: Adopt},
		{name: "started again meanwhile", e: evidenceOf(savedAs(isRestarting), unitIs(secondRun)), want: Adopt},
		{name: "start limit hit meanwhile", e: evidenceOf(savedAs(isRestarting), unitIs(failed)), want: Over},
		{name: "started by somebody else", e: evidenceOf(noRun, savedAs(isExited), unitIs(secondRun), stored()), want: Adopt, reason: "its unit was started by somebody else than lrd: its output is not collected"},
		{name: "running, other storage driver", e: evidenceOf(otherDriver), want: Adopt, reason: driverReason},
		{name: "running, network gone", e: evidenceOf(networkBroken), want: Adopt, reason: networkReason},
		{name: "running, all is wrong", e: evidenceOf(console, stored(fdListener, fdVia), networkBroken, otherDriver), want: Adopt, reason: "disconnected: systemd did not keep its console while lrd was stopped; " + networkReason + "; " + driverReason},

		// It runs, and descriptors are lost.
		{name: "pipes not stored", e: evidenceOf(stored()), want: Adopt, reopen: []string{fdStdout, fdStderr}},
		{name: "one pipe not stored", e: evidenceOf(stored(fdStderr)), want: Adopt, reopen: []string{fdStdout}},
		{name: "pipes neither stored nor on disk", e: evidenceOf(stored(), onDisk()), want: Adopt, reason: "disconnected: while lrd was stopped, nobody kept its stdout and stderr"},
		{name: "one pipe lost", e: evidenceOf(stored(fdStdout), onDisk()), want: Adopt, reason: "disconnected: while lrd was stopped, nobody kept its stderr"},
		{name: "console", e: evidenceOf(console), want: Adopt},
		{name: "console lost", e: evidenceOf(console, stored(fdListener, fdVia)), want: Adopt, reason: "disconnected: systemd did not keep its console while lrd was stopped"},
		{name: "console's pipe not stored", e: evidenceOf(console, stored(fdListener, fdConsole)), want: Adopt, reopen: []string{fdVia}},
		{name: "listener not stored", e: evidenceOf(console, stored(fdConsole, fdVia)), want: Adopt, reopen: []string{fdListener}},
		{name: "nothing of a console stored", e: evidenceOf(console, stored()), want: Adopt, reopen: []string{fdListener, fdVia}, reason: "disconnected: systemd did not keep its console while lrd was stopped"},

		// Its run is over.
		{name: "exit", e: evidenceOf(unitIs(exited)), want: Over},
		{name: "failure", e: evidenceOf(unitIs(failed)), want: Over},
		{name: "exit while it was paused", e: evidenceOf(savedAs(isPaused), unitIs(failed)), want: Over},
		{name: "unit gone, exit on the list", e: evidenceOf(unitGone, exits(note)), want: Over},
		{name: "unit gone, nobody knows", e: evidenceOf(unitGone), want: Over},
		{name: "unit gone between two runs", e: evidenceOf(savedAs(isRestarting), unitGone), want: Over},
		{name: "exit, pipes not stored", e: evidenceOf(unitIs(exited), stored()), want: Over, reopen: []string{fdStdout, fdStderr}},
		{name: "exit, pipes neither stored nor on disk", e: evidenceOf(unitIs(exited), stored(), onDisk()), want: Over},
		{name: "exit, console lost", e: evidenceOf(console, unitIs(exited), stored()), want: Over, reopen: []string{fdVia}},
		{name: "exit noted, not put away", e: evidenceOf(savedAs(isExited), unitIs(failed), exits(note)), want: Over},
		{name: "exit noted, unit put away", e: evidenceOf(savedAs(isExited), unitGone, exits(note)), want: Over},
		{name: "exit noted, all but the record put away", e: evidenceOf(savedAs(isExited), unitGone, stored(), onDisk()), want: NeverRan},
		{name: "the machine went down", e: evidenceOf(rebooted), want: Over},
		{name: "the machine went down, other storage driver", e: evidenceOf(rebooted, otherDriver), want: Over, reason: driverReason},

		// No Record that could be used.
		{name: "other data-root, running", e: evidenceOf(noRecord), want: Foreign, reason: otherRoot + runsOn},
		{name: "other data-root, waiting for its restart", e: evidenceOf(noRecord, unitIs(autoRestart)), want: Foreign, reason: otherRoot + runsOn},
		{name: "other data-root, over", e: evidenceOf(noRecord, unitIs(failed)), want: Broken, reason: otherRoot},
		{name: "schema, running", e: evidenceOf(unreadable(schema)), want: Foreign, reason: newerSchema + runsOn},
		{name: "schema, over", e: evidenceOf(unreadable(schema), unitIs(exited)), want: Broken, reason: newerSchema},
		{name: "schema, no unit", e: evidenceOf(unreadable(schema), unitGone), want: Broken, reason: newerSchema},
		{name: "corrupt, running", e: evidenceOf(unreadable(corrupt)), want: Foreign, reason: corrupt.Error() + runsOn},
		{name: "corrupt, no unit", e: evidenceOf(unreadable(corrupt), unitGone), want: Broken, reason: corrupt.Error()},
		{name: "record deleted, running", e: evidenceOf(unreadable(missing)), want: Foreign, reason: missing.Error() + runsOn},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := reconcile(tc.e)
			assert.Check(t, is.Equal(v.Action.String(), tc.want.String()))
			assert.Check(t, is.Equal(v.Reason, tc.reason))
			assert.Check(t, is.DeepEqual(v.Reopen, tc.reopen, cmpopts.EquateEmpty()))
		})
	}
}
