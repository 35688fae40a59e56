package containers

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/units"
)

// shownUnits is a systemd that tells the same of every unit.
type shownUnits struct {
	Units
	state units.State
	err   error
}

func (f shownUnits) State(context.Context, string) (units.State, error) { return f.state, f.err }

const psText = `UID          PID    PPID  C STIME TTY          TIME CMD
root           1       0  0 10:00 ?        00:00:01 /sbin/init
app          100       1  0 10:00 pts/0    00:00:00 sh -c sleep   9; true
app          101     100  0 10:00 pts/0    00:00:00 sleep 9
root        1000       2  0 10:00 ?        00:00:00 [kworker]
`

func TestParsePS(t *testing.T) {
	got, err := parsePS(psText, map[int]bool{100: true, 101: true})
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got, container.TopResponse{
		Titles: []string{"UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"},
		Processes: [][]string{
			{"app", "100", "1", "0", "10:00", "pts/0", "00:00:00", "sh -c sleep 9; true"},
			{"app", "101", "100", "0", "10:00", "pts/0", "00:00:00", "sleep 9"},
		},
	}))
	got, err = parsePS(psText, nil)
	assert.NilError(t, err)
	assert.Check(t, got.Processes != nil && len(got.Processes) == 0, "clients expect a list, not null")
}

func TestParsePSThreads(t *testing.T) {
	got, err := parsePS("PID LWP CMD\n7 - a\n- 7 -\n8 - b\n- 8 -\n9\n", map[int]bool{8: true, 9: true})
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got.Processes, [][]string{{"8", "-", "b"}, {"-", "8", "-"}, {"9", "", ""}}))
}

func TestParsePSRefuses(t *testing.T) {
	_, err := parsePS("USER CMD\nroot init\n", nil)
	assert.Check(t, errdefs.IsInvalidArgument(err))
	assert.Check(t, is.ErrorContains(err, "cannot find the column PID"))
	_, err = parsePS("PID CMD\nx init\n", nil)
	assert.Check(t, is.ErrorContains(err, `unexpected PID "x"`))
}

func TestCheckPSArgs(t *testing.T) {
	for _, ok := range [][]string{nil, {"aux"}, {"-o", "pid,comm"}, {"-o", "pid=PID,comm=NAME"}, {"-opid=PID"}, {"--format=pid=PID"}, {"-o", "ppid"}} {
		assert.Check(t, checkPSArgs(ok), "%q", ok)
	}
	for _, bad := range [][]string{{"-o", "ppid=PID"}, {"-ocomm= PID"}, {"-o", "pid,comm=x PID"}, {"--format=comm=PID"}} {
		assert.Check(t, errdefs.IsInvalidArgument(checkPSArgs(bad)), "%q", bad)
	}
}

func TestCgroupPIDs(t *testing.T) {
	hierarchy := fstest.MapFS{
		"lrd.slice/cgroup.procs":             {Data: []byte("1\n")},
		"lrd.slice/u.service/cgroup.procs":   {Data: []byte("100\n101\n")},
		"lrd.slice/u.service/memory.max":     {Data: []byte("max\n")},
		"lrd.slice/u.service/a/cgroup.procs": {},
		// A group that goes away meanwhile has no files any more.
		"lrd.slice/u.service/gone/x":           {},
		"lrd.slice/u.service/a/b/cgroup.procs": {Data: []byte("102\n")},
		"lrd.slice/v.service/cgroup.procs":     {Data: []byte("2\n")},
	}
	got, err := cgroupPIDs(hierarchy, "lrd.slice/u.service")
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got, map[int]bool{100: true, 101: true, 102: true}))

	got, err = cgroupPIDs(hierarchy, "lrd.slice/gone.service")
	assert.NilError(t, err)
	assert.Check(t, is.Len(got, 0))

	hierarchy["lrd.slice/v.service/cgroup.procs"].Data = []byte("x\n")
	_, err = cgroupPIDs(hierarchy, "lrd.slice/v.service")
	assert.Check(t, is.ErrorContains(err, "cannot read the processes of control group /lrd.slice/v.service"))
}

func TestTopNeedsProcesses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		status SavedStatus
		units  shownUnits
		want   string
		kind   func(error) bool
	}{
		{"created", SavedStatus{State: container.StateCreated}, shownUnits{}, "is not running", errdefs.IsConflict},
		{"restarting", SavedStatus{State: container.StateRestarting}, shownUnits{}, "is restarting", errdefs.IsConflict},
		{"unit just gone", SavedStatus{State: container.StateRunning}, shownUnits{err: errdefs.ErrNotFound}, "is not running", errdefs.IsConflict},
		{"just ended", SavedStatus{State: container.StateRunning}, shownUnits{}, "is not running", errdefs.IsConflict},
		{"no systemd", SavedStatus{State: container.StateRunning}, shownUnits{err: errdefs.ErrUnavailable}, "cannot list the processes", errdefs.IsUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, _ := shownManager(t, Record{ID: longID("1"), Name: "web", Status: tc.status})
			m.o.Units = tc.units
			_, err := m.Top(t.Context(), "web", nil)
			assert.Check(t, is.ErrorContains(err, tc.want))
			assert.Check(t, tc.kind(err), "%v", err)
		})
	}
}

func TestRunPS(t *testing.T) {
	if _, err := exec.LookPath("ps"); err != nil {
		t.Skip("this host has no ps(1)")
	}
	for _, args := range [][]string{nil, {"aux"}, {"-e", "-o", "pid,args"}} {
		out, err := runPS(t.Context(), args)
		assert.NilError(t, err)
		got, err := parsePS(out, map[int]bool{os.Getpid(): true})
		assert.NilError(t, err)
		assert.Assert(t, is.Len(got.Processes, 1))
		assert.Check(t, is.Contains(got.Processes[0], strconv.Itoa(os.Getpid())))
	}
	_, err := runPS(t.Context(), []string{"--no-such-argument"})
	assert.Check(t, errdefs.IsInvalidArgument(err), "%v", err)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = runPS(ctx, nil)
	assert.Check(t, errors.Is(err, context.Canceled), "%v", err)
}

func TestRunPSWithoutPS(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := runPS(t.Context(), nil)
	assert.Check(t, errdefs.IsUnavailable(err))
	assert.Check(t, is.ErrorContains(err, "this host has no ps"))
}

// The whole way, with the control group of the test itself in place of a unit's.
func TestTop(t *testing.T) {
	if _, err := exec.LookPath("ps"); err != nil {
		t.Skip("this host has no ps(1)")
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	assert.NilError(t, err)
	group, unified := strings.CutPrefix(strings.TrimSpace(string(own)), "0::")
	if _, err := os.Stat(cgroupRoot + group + "/cgroup.procs"); !unified || err != nil {
		t.Skipf("this process has no control group of a unified hierarchy at %s: %q", cgroupRoot, own)
	}
	m, _ := shownManager(t, Record{ID: longID("1"), Name: "web", Status: SavedStatus{State: container.StateRunning}})
	m.o.Units = shownUnits{state: units.State{ControlGroup: group}}
	got, err := m.Top(t.Context(), "web", []string{"-e", "-o", "pid,args"})
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got.Titles, []string{"PID", "COMMAND"}))
	assert.Check(t, slices.ContainsFunc(got.Processes, func(p []string) bool { return p[0] == strconv.Itoa(os.Getpid()) }))
}
