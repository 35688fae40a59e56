package containers

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/units"
)

var noteCmp = cmp.AllowUnexported(exitNote{}, incident{})

func TestParseExit(t *testing.T) {
	when := time.Unix(1700000000, 123456789)
	for _, tc := range []struct {
		line string
		want exitNote
		ok   bool
	}{
		{"aa 1700000000.123456789 success exited 0 0", exitNote{"aa", when, 0, 0}, true},
		{"aa 1700000000.123456789 exit-code exited 7 0", exitNote{"aa", when, 7, 0}, true},
		{"aa 1700000000.123456789 signal killed KILL 0", exitNote{"aa", when, 137, 0}, true},
		{"aa 1700000000.123456789 core-dump dumped SEGV 0", exitNote{"aa", when, 139, 0}, true},
		{"aa 1700000000.123456789 oom-kill killed KILL 2", exitNote{"aa", when, 137, 2}, true},
		{"- 1700000000.000000000 success exited 0 0", exitNote{unknown, time.Unix(1700000000, 0), 0, 0}, true},
		{line: ""},
		{line: "aa 1700000000.123456789 success exited 0"},       // torn
		{line: "aa 1700000000.123456789 success exited 0 0 0"},   // two in one
		{line: "aa 1700000000.123456789 exit-code - - 0"},        // there was no process
		{line: "aa 1700000000.123456789 exit-code exited x 0"},   // no status
		{line: "aa 1700000000.123456789 signal killed NOPE 0"},   // no signal
		{line: "aa 1700000000 success exited 0 0"},               // no fraction
		{line: "aa 1700000000.%N success exited 0 0"},            // a date(1) that cannot
		{line: "aa 1700000000.-1 success exited 0 0"},            //
		{line: "aa 1700000000.1234567890 success exited 0 0"},    //
		{line: "aa x.123456789 success exited 0 0"},              //
		{line: "aa 99999999999999999999.1 success exited 0 0"},   //
		{line: strings.Repeat("aa ", 1000) + "success exited 0"}, //
	} {
		got, ok := parseExit(tc.line)
		assert.Check(t, is.Equal(ok, tc.ok), tc.line)
		assert.Check(t, is.DeepEqual(got, tc.want, noteCmp), tc.line)
	}
}

func FuzzParseExit(f *testing.F) {
	f.Add("aa 1700000000.123456789 success exited 0 0")
	f.Add("aa 1700000000.123456789 signal killed KILL 1")
	f.Fuzz(func(t *testing.T, line string) {
		n, ok := parseExit(line)
		if !ok && n != (exitNote{}) {
			t.Errorf("half a note: %v", n)
		}
		if ok && (n.invocation == "" || len(strings.Fields(line)) != 6) {
			t.Errorf("a note out of nothing: %v", n)
		}
	})
}

func TestReadExits(t *testing.T) {
	path := filepath.Join(t.TempDir(), exitsFile)
	notes, err := readExits(path)
	assert.NilError(t, err)
	assert.Check(t, is.Len(notes, 0))

	whole := "a 1.000000000 success exited 0 0\n"
	assert.NilError(t, os.WriteFile(path, []byte(whole+"\x00\x00\n"+whole+"b 2.000000000 signal killed TERM 0\nc 3.0000"), 0o600))
	notes, err = readExits(path)
	assert.NilError(t, err)
	assert.Check(t, is.Len(notes, 3))
	assert.Check(t, is.Equal(notes[2].code, 143))

	_, err = readExits(t.TempDir())
	assert.ErrorIs(t, err, syscall.EISDIR)
}

func noteOf(invocation string, second, code int) exitNote {
	return exitNote{invocation: invocation, at: at(second), code: code}
}

func TestVanished(t *testing.T) {
	running := Status{State: container.StateRunning, Pid: 10, StartedAt: at(1), InvocationID: "a"}
	restarting := Status{State: container.StateRestarting, ExitCode: 1, StartedAt: at(1), FinishedAt: at(2), InvocationID: "a"}
	exited := Status{State: container.StateExited, ExitCode: 1, StartedAt: at(1), FinishedAt: at(2), InvocationID: "a"}
	known := unitEnd(10, 1, 4, cldExited, 3, "failed", "failed", "exit-code")
	known.InvocationID = "a"
	stale := unitRun(10, 1)
	for _, tc := range []struct {
		name  string
		cur   Status
		unit  units.State // as systemd announced it last
		notes []exitNote
		state container.ContainerState
		code  int
		end   time.Time
		told  int
	}{
		{"systemd has told", running, known, []exitNote{noteOf("a", 4, 3)}, container.StateExited, 3, at(4), 1},
		{"systemd has told, no list", running, known, nil, container.StateExited, 3, at(4), 1},
		{"the list knows", running, units.State{}, []exitNote{noteOf("a", 4, 3)}, container.StateExited, 3, at(4), 1},
		{"the list knows, the announcement is old", running, stale, []exitNote{noteOf("a", 4, 3)}, container.StateExited, 3, at(4), 1},
		{"the list knows of a later run", running, units.State{}, []exitNote{noteOf("a", 4, 3), noteOf("b", 6, 0)}, container.StateExited, 0, at(6), 2},
		{"the list lacks this run and knows of a later one", running, units.State{}, []exitNote{noteOf("b", 6, 0)}, container.StateExited, 0, at(6), 2},
		{"between two runs", restarting, units.State{}, []exitNote{noteOf("a", 2, 1)}, container.StateExited, 1, at(2), 0},
		{"between two runs, and then another", restarting, units.State{}, []exitNote{noteOf("a", 2, 1), noteOf("b", 6, 9)}, container.StateExited, 9, at(6), 2},
		{"known already", exited, known, []exitNote{noteOf("a", 4, 3)}, container.StateExited, 1, at(2), 0},
		{"known already, nothing else", exited, units.State{}, nil, container.StateExited, 1, at(2), 0},
		{"a start of which only the list knows", exited, units.State{}, []exitNote{noteOf("b", 6, 9)}, container.StateExited, 9, at(6), 2},
		{"a first start of which only the list knows", isCreated, units.State{}, []exitNote{noteOf("b", 6, 9)}, container.StateExited, 9, at(6), 2},
		{"a list without invocations", running, units.State{}, []exitNote{noteOf(unknown, 4, 3)}, container.StateExited, 3, at(4), 1},
		{"a list of an earlier run", running, units.State{}, []exitNote{noteOf("z", 0, 3)}, container.StateExited, lostExitCode, time.Time{}, 1},
		{"nobody knows", running, units.State{}, nil, container.StateExited, lostExitCode, time.Time{}, 1},
		{"never ran", isCreated, units.State{}, nil, container.StateCreated, 0, time.Time{}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, told := follow(tc.cur, vanished(tc.unit, tc.cur, tc.notes))
			assert.Check(t, is.Equal(got.State, tc.state))
			assert.Check(t, is.Equal(got.ExitCode, tc.code))
			assert.Check(t, is.Len(told, tc.told))
			if tc.code != lostExitCode {
				assert.Check(t, got.FinishedAt.Equal(tc.end), "%s", got.FinishedAt)
			}
			assert.Check(t, !got.FinishedAt.Before(got.StartedAt))
		})
	}
}

func TestAddMissed(t *testing.T) {
	cur := Status{State: container.StateRunning, StartedAt: at(1), InvocationID: "a"}
	waiting := Status{State: container.StateRestarting, StartedAt: at(1), FinishedAt: at(2), InvocationID: "a"}
	over := Status{State: container.StateExited, StartedAt: at(1), FinishedAt: at(2), InvocationID: "a"}
	next := func(invocation string) Status {
		return Status{State: container.StateRunning, StartedAt: at(9), InvocationID: invocation}
	}
	exit := func(second, code int) incident { return incident{exited: true, at: at(second), code: code} }
	start := incident{at: at(9)}
	oom := noteOf("a", 4, 137)
	oom.oomKills = 2
	killed := func(n int) Status {
		s := cur
		s.OOMKilled, s.OOMKills = true, n
		return s
	}
	for _, tc := range []struct {
		name      string
		cur, next Status
		told      []incident
		notes     []exitNote
		want      []incident
	}{
		{"nothing was missed", cur, cur, []incident{exit(4, 1)}, []exitNote{noteOf("a", 4, 1)}, []incident{exit(4, 1)}},
		{"the out-of-memory killer", cur, cur, []incident{exit(4, 137)}, []exitNote{oom}, []incident{{exited: true, at: at(4), code: 137, oom: true}}},
		{"its work was told", killed(2), killed(2), []incident{exit(4, 137)}, []exitNote{oom}, []incident{{exited: true, at: at(4), code: 137, oom: true, oomTold: true}}},
		{"a part of its work was told", killed(1), killed(1), []incident{exit(4, 137)}, []exitNote{oom}, []incident{{exited: true, at: at(4), code: 137, oom: true}}},
		{"its work was told, and a restart was missed", killed(2), next("b"), []incident{start}, []exitNote{oom}, []incident{{exited: true, at: at(4), code: 137, oom: true, oomTold: true}, start}},
		{"one restart", cur, next("b"), []incident{start}, []exitNote{noteOf("a", 4, 1)}, []incident{exit(4, 1), start}},
		{"three restarts", cur, next("d"), []incident{start}, []exitNote{noteOf("a", 4, 1), noteOf("b", 5, 2), noteOf("c", 6, 3)}, []incident{exit(4, 1), exit(5, 2), exit(6, 3), start}},
		{"a restart whose end is known", waiting, next("b"), []incident{start}, []exitNote{noteOf("a", 2, 1)}, []incident{start}},
		{"two restarts, the first end is known", waiting, next("c"), []incident{start}, []exitNote{noteOf("a", 2, 1), noteOf("b", 5, 2)}, []incident{exit(5, 2), start}},
		{"a start by a person", over, next("b"), []incident{start}, nil, []incident{start}},
		{"no list", cur, next("b"), []incident{start}, nil, []incident{start}},
	} {
		assert.Check(t, is.DeepEqual(addMissed(tc.cur, tc.next, tc.told, tc.notes), tc.want, noteCmp), tc.name)
	}
}
