package health

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/shell"
)

const invocation = "0123456789abcdef0123456789abcdef"

// scriptIn is a check with a runtime that does what the shell commands in the
// file do, with an init that is this process, and with a systemd that notes what it is asked for.
func scriptIn(t *testing.T, dir string, c Check) Script {
	t.Helper()
	s := Script{
		Check: c, ID: strings.Repeat("a", 64), Name: "web", Dir: filepath.Join(dir, "health"), PIDFile: filepath.Join(dir, "pid"),
		Cgroup: filepath.Join(dir, "group"),
		Exec: func(process, pidFile string) []string {
			return []string{"/bin/sh", filepath.Join(dir, "runtime"), process, pidFile}
		},
	}
	assert.NilError(t, os.MkdirAll(s.Dir, 0o700))
	assert.NilError(t, os.MkdirAll(s.Cgroup, 0o700))
	assert.NilError(t, os.MkdirAll(filepath.Join(dir, "bin"), 0o700))
	for path, text := range map[string]string{
		s.PIDFile:                                fmt.Sprint(os.Getpid()),
		filepath.Join(s.Cgroup, "cgroup.events"): "populated 1\nfrozen 0\n",
		filepath.Join(s.Cgroup, "cgroup.procs"):  "",
		filepath.Join(dir, "runtime"):            "exit 0\n",
		filepath.Join(dir, "bin", "systemd-run"): "#!/bin/sh\necho run \"$@\" >>" + shell.Quote(filepath.Join(dir, "asked")),
		filepath.Join(dir, "bin", "systemctl"):   "#!/bin/sh\necho ctl \"$@\" >>" + shell.Quote(filepath.Join(dir, "asked")),
		filepath.Join(s.Dir, "process.json"):     "{}",
		filepath.Join(dir, "begin"):              s.Begin(),
	} {
		assert.NilError(t, os.WriteFile(path, []byte(text), 0o700))
	}
	assert.NilError(t, s.Write())
	s.sh(t, filepath.Join(dir, "begin"))
	return s
}

// sh runs a script as systemd does.
func (s Script) sh(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "INVOCATION_ID="+invocation, "PATH="+filepath.Join(filepath.Dir(s.Dir), "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	assert.Check(t, is.Equal(string(out), ""))
}

// behaves says what the command in the container does from now on.
func (s Script) behaves(t *testing.T, script string) {
	t.Helper()
	assert.NilError(t, os.WriteFile(filepath.Join(filepath.Dir(s.Dir), "runtime"), []byte(script), 0o600))
}

func (s Script) state(t *testing.T) State {
	t.Helper()
	results, err := Read(s.Dir)
	assert.NilError(t, err)
	state, _ := s.Add(State{}, results)
	return s.WithOutput(state, s.Dir)
}

func (s Script) asked(t *testing.T) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(s.Dir), "asked")
	data, _ := os.ReadFile(path)
	_ = os.Remove(path)
	return string(data)
}

func TestProbe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `it's "a" $HOME $(touch pwned)`)
	s := scriptIn(t, dir, Check{Interval: time.Minute, Timeout: 10 * time.Second, Retries: 2})
	assert.Check(t, is.Contains(s.asked(t), "--unit=lrd-health-"+s.ID+" "))
	assert.Check(t, is.Equal(s.state(t).Status, container.Starting))
	probe := s.path(probeFile)

	before := time.Now()
	s.behaves(t, "echo fine; echo too >&2; exit 0")
	s.sh(t, probe)
	got := s.state(t)
	assert.Check(t, is.Equal(got.Status, container.Healthy))
	assert.Check(t, is.Equal(got.Probes[0].Output, "fine\ntoo\n"))
	assert.Check(t, !got.Probes[0].Start.Before(before) && !got.Probes[0].End.Before(got.Probes[0].Start) && !got.Probes[0].End.After(time.Now()))

	s.behaves(t, "head -c 100000 /dev/zero | tr '\\0' x; exit 3")
	s.sh(t, probe)
	got = s.state(t)
	assert.Check(t, is.Equal(got.Probes[1].ExitCode, 3))
	assert.Check(t, is.Equal(got.Probes[1].Output, strings.Repeat("x", maxOutput)+"..."))
	s.sh(t, probe)
	assert.Check(t, is.Equal(s.state(t).Status, container.Unhealthy))

	// A paused container is not probed, and one that has ended neither.
	assert.NilError(t, os.WriteFile(filepath.Join(s.Cgroup, "cgroup.events"), []byte("frozen 1\n"), 0o600))
	s.sh(t, probe)
	assert.NilError(t, os.WriteFile(filepath.Join(s.Cgroup, "cgroup.events"), []byte("frozen 0\n"), 0o600))
	assert.NilError(t, os.WriteFile(s.PIDFile, []byte("4194305\n"), 0o600))
	s.sh(t, probe)
	assert.Check(t, is.Equal(s.state(t).Number, 3))
	assert.Check(t, is.Equal(s.asked(t), ""))
}

func TestProbeTakesTooLong(t *testing.T) {
	s := scriptIn(t, t.TempDir(), Check{Interval: time.Minute, Timeout: 2 * time.Second, Retries: 1})
	s.behaves(t, "sleep 1000 & printf %s $! >$2; echo begun; wait")
	s.sh(t, s.path(probeFile))
	got := s.state(t)
	assert.Check(t, is.Equal(got.Status, container.Unhealthy))
	assert.Check(t, is.Equal(got.Probes[0].ExitCode, -1))
	assert.Check(t, is.Contains(got.Probes[0].Output, "Health check exceeded timeout (2s): begun\n"))
	pid, err := os.ReadFile(s.path("pid"))
	assert.NilError(t, err)
	// The command itself is killed, not only the runtime that waits for it.
	for range 1000 {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the command runs on")
}

func TestStartInterval(t *testing.T) {
	s := scriptIn(t, t.TempDir(), Check{Interval: time.Minute, StartInterval: time.Second, StartPeriod: time.Hour, Timeout: time.Minute, Retries: 1})
	asked := s.asked(t)
	assert.Check(t, is.Contains(asked, "--unit=lrd-health-"+s.ID+"-start "))
	assert.Check(t, is.Contains(asked, "--on-active=1.000s "))
	s.behaves(t, "exit 1")
	s.sh(t, s.path(probeFile), startSuffix)
	assert.Check(t, is.Equal(s.asked(t), ""), "the start period goes on")
	s.behaves(t, "exit 0")
	s.sh(t, s.path(probeFile), startSuffix)
	asked = s.asked(t)
	assert.Check(t, is.Contains(asked, "--unit=lrd-health-"+s.ID+" "))
	assert.Check(t, is.Contains(asked, "--on-unit-inactive=60.000s "))
	assert.Check(t, is.Contains(asked, "ctl stop --no-block lrd-health-"+s.ID+"-start.timer"))
	s.sh(t, s.path(probeFile), "")
	assert.Check(t, is.Equal(s.asked(t), ""))
	assert.Check(t, is.Equal(s.state(t).Number, 3))
}

func TestResultsStaySmall(t *testing.T) {
	s := scriptIn(t, t.TempDir(), Check{Interval: time.Minute, Timeout: time.Minute, Retries: 1})
	assert.NilError(t, os.WriteFile(s.path(numberFile), []byte("499\n"), 0o600))
	assert.NilError(t, os.WriteFile(s.path(resultsFile), []byte(strings.Repeat(invocation+" probe 1 1.000000000 1.000000000 0\n", 990)), 0o600))
	s.sh(t, s.path(probeFile))
	results, err := Read(s.Dir)
	assert.NilError(t, err)
	assert.Check(t, is.Len(results.entries, 500))
	assert.Check(t, is.Equal(results.entries[499].Number, 500))
}

func TestUnits(t *testing.T) {
	for _, unit := range Units("abc") {
		id, ok := UnitOf(unit)
		assert.Check(t, is.Equal(ok, strings.HasSuffix(unit, ".service")), unit)
		assert.Check(t, !ok || id == "abc", unit)
	}
	_, ok := UnitOf("lrd-abc.service")
	assert.Check(t, !ok)
}
