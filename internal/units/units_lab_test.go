//go:build integration

package units

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// These tests run as root on a machine whose PID 1 is systemd, that is in the lab:
//
//	go test -c -tags integration -o units.test ./internal/units
//	test/lab/lab exec /path/in/the/lab/units.test -test.v

func labManager(t testing.TB) (context.Context, *Manager) {
	if _, err := os.Stat(privateSocket); err != nil {
		t.Skip("SKIPPED: this machine's PID 1 is not systemd, or this is not root: ", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	m, err := Connect(ctx, slog.New(slog.NewTextHandler(t.Output(), nil)))
	assert.NilError(t, err)
	t.Cleanup(func() {
		assert.NilError(t, m.Close())
		cancel()
	})
	return ctx, m
}

// labUnit returns a name that is not in use, and removes the unit at the end.
func labUnit(t testing.TB, m *Manager) string {
	name := fmt.Sprintf("lrd-test-%s-%d.service", strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), time.Now().UnixNano())
	t.Cleanup(func() {
		ctx := context.Background()
		_ = m.Kill(ctx, name, KillAll, syscall.SIGKILL)
		_ = m.Stop(ctx, name)
		_ = m.ResetFailed(ctx, name)
	})
	return name
}

func shell(script string, more ...Property) []Property {
	return append([]Property{Exec("ExecStart", false, "/bin/sh", "-c", script)}, more...)
}

// next returns the first change that fits.
func next(t *testing.T, w *Watch, what string, fits func(Change) bool) Change {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case c, ok := <-w.C:
			if !ok {
				t.Fatalf("the watch ended while waiting for %s", what)
			}
			t.Logf("%+v", c)
			if fits(c) {
				return c
			}
		case <-deadline:
			t.Fatalf("no %s within 20 s", what)
		}
	}
}

func run(t testing.TB, argv ...string) {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

func TestLabStartAndStop(t *testing.T) {
	ctx, m := labManager(t)
	t.Log("systemd", m.Version())
	assert.Assert(t, m.Version() >= 240)
	name := labUnit(t, m)
	started := time.Now()
	assert.NilError(t, m.Start(ctx, name, shell("exec sleep 1000",
		String("Slice", "lrd.slice"), String("Description", "a test"), Bool("Delegate", true), USec("TimeoutStopUSec", 5*time.Second),
		Uint64("TasksMax", 100), CPUs("AllowedCPUs", 0), Strings("Environment", "A=1", "B=2"), String("DevicePolicy", "closed"),
		Pairs("DeviceAllow", Pair{"/dev/null", "rw"}), Fields("LogExtraFields", "CONTAINER=x"), Int32("OOMScoreAdjust", 100),
		Limits("IOReadBandwidthMax", Limit{"/", 1 << 20}), Exec("ExecStopPost", true, "/bin/false"), Exec("ExecStopPost", true, "/bin/true"))))
	t.Log("started in", time.Since(started))
	s, err := m.State(ctx, name)
	assert.NilError(t, err)
	t.Logf("%+v", s)
	assert.Check(t, is.Equal(s.Name, name))
	assert.Check(t, is.Equal(s.ActiveState+"/"+s.SubState+"/"+s.LoadState+"/"+s.Result, "active/running/loaded/success"))
	assert.Check(t, is.Equal(s.ControlGroup, "/lrd.slice/"+name))
	assert.Check(t, is.Equal(s.Description, "a test"))
	assert.Check(t, is.Len(s.InvocationID, 32))
	assert.Check(t, s.MainPID > 1 && s.MainPID == s.ExecMainPID)
	assert.Check(t, s.ExecMainStart.After(started.Add(-time.Second)) && s.ExecMainExit.IsZero())
	assert.Check(t, is.Equal(s.FreezerState, "running"))
	v, err := m.ServiceProperty(ctx, name, "TasksMax")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(v.Value(), uint64(100)))
	_, err = m.ServiceProperty(ctx, name, "Job")
	assert.NilError(t, err)
	_, err = m.ServiceProperty(ctx, name, "Nonsense")
	assert.Check(t, errdefs.IsInvalidArgument(err), "%v", err)

	assert.Check(t, errdefs.IsAlreadyExists(m.Start(ctx, name, shell("true"))))
	assert.NilError(t, m.SetProperties(ctx, name, []Property{Uint64("TasksMax", 50)}))
	err = m.SetProperties(ctx, name, []Property{String("TasksMax", "x")})
	assert.Check(t, err != nil)
	t.Log(err)
	assert.NilError(t, m.Stop(ctx, name))
	_, err = m.State(ctx, name)
	assert.Check(t, is.ErrorIs(err, ErrNotLoaded))
	assert.Check(t, errdefs.IsNotFound(err))
	assert.NilError(t, m.Stop(ctx, name), "stopping what is not there")
	assert.NilError(t, m.ResetFailed(ctx, name))
	assert.Check(t, is.ErrorIs(m.Kill(ctx, name, KillAll, syscall.SIGTERM), ErrNotLoaded))
	assert.Check(t, is.ErrorIs(m.Freeze(ctx, name), ErrNotLoaded))
}

func TestLabFailedJob(t *testing.T) {
	ctx, m := labManager(t)
	name := labUnit(t, m)
	err := m.Start(ctx, name, shell("exit 3", String("Type", "oneshot")))
	var job *JobError
	assert.Assert(t, errors.As(err, &job), "%v", err)
	assert.Check(t, is.DeepEqual(*job, JobError{name, "failed"}))
	s, err := m.State(ctx, name)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(s.ActiveState, "failed"))
	assert.Check(t, is.Equal(s.Result, "exit-code"))
	assert.Check(t, s.ExecMainCode == 1 && s.ExecMainStatus == 3)
	assert.Check(t, errdefs.IsAlreadyExists(m.Start(ctx, name, shell("true"))))
	assert.NilError(t, m.ResetFailed(ctx, name))
	assert.NilError(t, m.Start(ctx, name, shell("true", String("Type", "oneshot"))))

	err = m.Start(ctx, labUnit(t, m), []Property{String("NoSuchProperty", "x")})
	assert.Check(t, errdefs.IsInvalidArgument(err), "%v", err)
	t.Log(err)
	err = m.Start(ctx, labUnit(t, m), []Property{Exec("ExecStart", false, "../relative")})
	assert.Check(t, errdefs.IsInvalidArgument(err), "%v", err)
	t.Log(err)
}

func TestLabContextEndsWait(t *testing.T) {
	ctx, m := labManager(t)
	name := labUnit(t, m)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	err := m.Start(short, name, shell("sleep 1000", String("Type", "oneshot")))
	assert.Check(t, is.ErrorIs(err, context.DeadlineExceeded))
	s, err := m.State(ctx, name)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(s.ActiveState, "activating"))
}

// A unit that PID 1 drops in the moment of its exit still tells how it ended.
func TestLabWatchExitOfDroppedUnit(t *testing.T) {
	ctx, m := labManager(t)
	w := m.Watch("lrd-test-")
	defer w.Close()
	for _, x := range []struct {
		script       string
		code, status int32
		result       string
	}{
		{"exit 0", 1, 0, "success"},
		{"exit 7", 1, 7, "exit-code"},
		{"kill -KILL $$$$", 2, 9, "signal"},
	} {
		name := labUnit(t, m)
		assert.NilError(t, m.Start(ctx, name, shell(x.script, String("CollectMode", "inactive-or-failed"))))
		c := next(t, w, "removal", func(c Change) bool { return c.State.Name == name && c.Removed })
		assert.Check(t, c.State.ExecMainCode == x.code && c.State.ExecMainStatus == x.status && c.State.Result == x.result, x.script)
		assert.Check(t, !c.State.ExecMainExit.IsZero() && c.State.InvocationID != "")
	}
}

// Each change is whole: general and service properties are of the same moment.
func TestLabWatchOrder(t *testing.T) {
	ctx, m := labManager(t)
	w := m.Watch("lrd-test-")
	defer w.Close()
	name := labUnit(t, m)
	assert.NilError(t, m.Start(ctx, name, shell("sleep 0.3; exit 5", Bool("RemainAfterExit", true), String("Type", "exec"))))
	var seen []string
	for last := ""; last != "failed/failed"; {
		c := next(t, w, "failure", func(c Change) bool { return c.State.Name == name })
		assert.Check(t, !c.Removed)
		if c.State.ActiveState == "failed" {
			assert.Check(t, is.Equal(c.State.ExecMainStatus, int32(5)))
		}
		if c.State.SubState == "running" {
			assert.Check(t, is.Equal(c.State.ExecMainCode, int32(0)))
		}
		last = c.State.ActiveState + "/" + c.State.SubState
		seen = append(seen, last)
	}
	t.Log(seen)
	assert.NilError(t, m.ResetFailed(ctx, name))
	next(t, w, "removal", func(c Change) bool { return c.Removed && c.State.Name == name })
}

// A forking service that systemd restarts: each run has its InvocationID, its exit, and is never seen as ended before it began.
func TestLabForkingRestart(t *testing.T) {
	ctx, m := labManager(t)
	w := m.Watch("lrd-test-")
	defer w.Close()
	name, dir := labUnit(t, m), t.TempDir()
	script := fmt.Sprintf("sh -c 'sleep 0.3; exit 6' &\necho $! >%s/pid.new\nmv %s/pid.new %s/pid\n", dir, dir, dir)
	assert.NilError(t, os.WriteFile(dir+"/start", []byte(script), 0o600))
	assert.NilError(t, m.Start(ctx, name, []Property{
		Exec("ExecStart", false, "/bin/sh", dir+"/start"), String("Type", "forking"), String("PIDFile", dir+"/pid"),
		String("Restart", "always"), USec("RestartUSec", 100*time.Millisecond), Uint32("StartLimitBurst", 0),
	}))
	exits := make(map[string]bool)
	next(t, w, "third exit", func(c Change) bool {
		s := c.State
		assert.Check(t, !c.Removed)
		switch s.ActiveState {
		case "active":
			assert.Check(t, s.ExecMainCode == 0 && s.ExecMainExit.IsZero())
		case "inactive", "failed":
			assert.Check(t, s.ExecMainStatus == 6 && s.ExecMainCode == 1)
		}
		if s.ExecMainCode == 1 && s.SubState == "auto-restart" {
			assert.Check(t, is.Equal(s.ExecMainStatus, int32(6)))
			exits[s.InvocationID] = true
		}
		return len(exits) == 3 && s.NRestarts >= 2
	})
	assert.NilError(t, m.Stop(ctx, name))
}

func TestLabKillFreezeThaw(t *testing.T) {
	ctx, m := labManager(t)
	w := m.Watch("lrd-test-")
	defer w.Close()
	name := labUnit(t, m)
	assert.NilError(t, m.Start(ctx, name, shell("exec sleep 1000", Bool("RemainAfterExit", true))))
	assert.NilError(t, m.Freeze(ctx, name))
	next(t, w, "frozen", func(c Change) bool { return c.State.FreezerState == "frozen" })
	s, err := m.State(ctx, name)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(s.FreezerState, "frozen"))
	assert.NilError(t, m.Thaw(ctx, name))
	assert.NilError(t, m.Thaw(ctx, name), "twice")
	next(t, w, "thawed", func(c Change) bool { return c.State.FreezerState == "running" })
	assert.NilError(t, m.Kill(ctx, name, KillMain, syscall.SIGUSR1))
	c := next(t, w, "end", func(c Change) bool { return c.State.ExecMainCode == 2 && c.State.ActiveState != "active" })
	assert.Check(t, is.Equal(c.State.ExecMainStatus, int32(syscall.SIGUSR1)))
	err = m.Kill(ctx, name, KillMain, syscall.SIGUSR1)
	t.Log(err)
	assert.Check(t, errdefs.IsFailedPrecondition(err), "%v", err)
	err = m.Freeze(ctx, name)
	t.Log(err)
	assert.Check(t, errdefs.IsFailedPrecondition(err), "%v", err)
}

func TestLabDaemonReload(t *testing.T) {
	ctx, m := labManager(t)
	name := labUnit(t, m)
	w := m.Watch("lrd-test-")
	defer w.Close()
	assert.NilError(t, m.Start(ctx, name, shell("exec sleep 1000")))
	before, err := m.State(ctx, name)
	assert.NilError(t, err)
	for range 3 {
		run(t, "systemctl", "daemon-reload")
		next(t, w, "resync", func(c Change) bool {
			assert.Check(t, !c.Removed)
			return c.Resync
		})
	}
	after, err := m.State(ctx, name)
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(before, after))
	assert.NilError(t, m.Stop(ctx, name))
	next(t, w, "removal", func(c Change) bool { return c.Removed })
}

func TestLabDaemonReexec(t *testing.T) {
	ctx, m := labManager(t)
	quiet, ends, slow, fails := labUnit(t, m), labUnit(t, m), labUnit(t, m), labUnit(t, m)
	w := m.Watch("lrd-test-")
	defer w.Close()
	assert.NilError(t, m.Start(ctx, quiet, shell("exec sleep 1000")))
	assert.NilError(t, m.Start(ctx, ends, shell("sleep 1.5; exit 4", Bool("RemainAfterExit", true))))
	jobs := make(chan error, 2)
	go func() {
		jobs <- m.Start(ctx, slow, shell("sleep 1.5", String("Type", "oneshot"), Bool("RemainAfterExit", true)))
	}()
	go func() { jobs <- m.Start(ctx, fails, shell("sleep 1.5; exit 1", String("Type", "oneshot"))) }()
	time.Sleep(200 * time.Millisecond)
	for range 10 { // the jobs end somewhere among these
		run(t, "systemctl", "daemon-reexec")
		states, err := m.List(ctx, "lrd-test-*")
		assert.NilError(t, err)
		assert.Check(t, is.Equal(states[quiet].SubState, "running"))
	}
	var job *JobError
	first, second := <-jobs, <-jobs
	if first != nil {
		first, second = second, first
	}
	assert.Check(t, first)
	assert.Check(t, errors.As(second, &job) && job.Unit == fails && job.Result == "failed", "%v", second)
	// The exit may be announced before the first listing is complete, or be found by it.
	var exit State
	resynced := false
	next(t, w, "exit and resync", func(c Change) bool {
		assert.Check(t, !c.Removed)
		resynced = resynced || c.Resync
		if c.State.Name == ends && c.State.ExecMainCode != 0 {
			exit = c.State
		}
		return resynced && exit.Name != ""
	})
	assert.Check(t, is.Equal(exit.ExecMainStatus, int32(4)))
	assert.NilError(t, m.Stop(ctx, quiet))
	next(t, w, "removal", func(c Change) bool { return c.Removed && c.State.Name == quiet })
}

func TestLabDBusRestart(t *testing.T) {
	ctx, m := labManager(t)
	if err := exec.Command("systemctl", "is-active", "dbus.service").Run(); err != nil {
		t.Skip("SKIPPED: dbus does not run here, so there is nothing to restart")
	}
	name := labUnit(t, m)
	w := m.Watch("lrd-test-")
	defer w.Close()
	assert.NilError(t, m.Start(ctx, name, shell("exec sleep 1000")))
	run(t, "systemctl", "restart", "dbus")
	assert.NilError(t, m.Stop(ctx, name))
	next(t, w, "removal", func(c Change) bool {
		assert.Check(t, !c.Resync)
		return c.Removed
	})
}

// A name that is merely asked for is no change, and asking for it in a circle makes none.
func TestLabMentionedUnitIsNoChange(t *testing.T) {
	ctx, m := labManager(t)
	w := m.Watch("lrd-test-")
	defer w.Close()
	_ = exec.Command("systemctl", "status", "lrd-test-mentioned.service").Run()
	_, err := m.State(ctx, "lrd-test-mentioned.service")
	assert.Check(t, is.ErrorIs(err, ErrNotLoaded))
	select {
	case c := <-w.C:
		t.Fatalf("%+v", c)
	case <-time.After(500 * time.Millisecond):
	}
}

func TestLabFiveHundred(t *testing.T) {
	const n = 500
	ctx, m := labManager(t)
	w := m.Watch("lrd-many-")
	defer w.Close()
	each := func(f func(name string) error) {
		slots, errs := make(chan bool, 16), make(chan error, n)
		for i := range n {
			slots <- true
			go func() {
				errs <- f(fmt.Sprintf("lrd-many-%d.service", i))
				<-slots
			}()
		}
		for range n {
			assert.NilError(t, <-errs)
		}
	}
	begun := time.Now()
	each(func(name string) error {
		return m.Start(ctx, name, []Property{Exec("ExecStart", false, "/bin/sleep", "1000"), String("Slice", "lrd.slice"), Bool("Delegate", true)})
	})
	t.Log("started in", time.Since(begun))
	for range 5 {
		begun = time.Now()
		states, err := m.List(ctx, "lrd-many-*.service")
		assert.NilError(t, err)
		t.Log("listed in", time.Since(begun))
		assert.Check(t, is.Len(states, n))
		for _, s := range states {
			assert.Assert(t, s.SubState == "running" && s.MainPID != 0)
		}
		begun = time.Now()
		_, err = m.State(ctx, "lrd-many-7.service")
		assert.NilError(t, err)
		t.Log("one state in", time.Since(begun))
	}
	begun = time.Now()
	each(func(name string) error { return m.Stop(ctx, name) })
	t.Log("stopped in", time.Since(begun))
	for removed := 0; removed < n; {
		if c := <-w.C; c.Removed {
			removed++
		}
	}
}
