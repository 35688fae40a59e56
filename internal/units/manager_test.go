package units

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/godbus/dbus/v5"
	"go.uber.org/goleak"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

const (
	testUnit = "lrd-a.service"
	testJob  = dbus.ObjectPath("/org/freedesktop/systemd1/job/1")
)

// running is a unit's properties while it runs.
func running() map[string]any {
	return map[string]any{
		"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": "success", "Description": "d",
		"InvocationID": []byte{0xab, 0xcd}, "ControlGroup": "/x", "FreezerState": "running",
		"MainPID": uint32(7), "ExecMainPID": uint32(7), "ExecMainCode": int32(0), "ExecMainStatus": int32(0),
		"ExecMainStartTimestamp": uint64(5_000_000), "ExecMainExitTimestamp": uint64(0), "NRestarts": uint32(0),
		"Job": struct {
			ID   uint32
			Path dbus.ObjectPath
		}{0, "/"},
	}
}

// exited is what changes when it exits.
func exited(status int32) map[string]any {
	return map[string]any{
		"ActiveState": "failed", "SubState": "failed", "Result": "exit-code", "MainPID": uint32(0),
		"ExecMainCode": int32(1), "ExecMainStatus": status, "ExecMainExitTimestamp": uint64(6_000_000),
	}
}

func receive(t *testing.T, w *Watch) Change {
	t.Helper()
	select {
	case c, ok := <-w.C:
		assert.Assert(t, ok, "the watch is closed")
		return c
	case <-time.After(time.Minute):
		t.Fatal("no change within a minute")
		return Change{}
	}
}

func TestConnectWithoutSystemd(t *testing.T) {
	_, err := connect(t.Context(), nil, "/nonexistent/private")
	assert.Check(t, errdefs.IsUnavailable(err))
	assert.Check(t, is.ErrorContains(err, "cannot connect to systemd at /nonexistent/private: "))
}

func TestCloseEndsEverything(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	f := startFake(t)
	m := f.connect(t)
	w := m.Watch("lrd-")
	waits := make(chan error, 2)
	go func() { waits <- m.Start(context.Background(), testUnit, nil) }() // a job that never ends
	for {
		f.mu.Lock()
		n := len(f.calls)
		f.mu.Unlock()
		if n > 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	assert.NilError(t, m.Close())
	assert.NilError(t, m.Close())
	assert.Check(t, is.ErrorIs(<-waits, ErrClosed))
	_, open := <-w.C
	assert.Check(t, !open)
	w.Close()
	_, open = <-m.Watch("lrd-").C
	assert.Check(t, !open)
	_, err := m.State(t.Context(), testUnit)
	assert.Check(t, is.ErrorIs(err, ErrClosed))
	f.drop()
	f.wg.Wait()
}

func TestStateAndList(t *testing.T) {
	f := startFake(t)
	f.set(testUnit, running())
	f.set("lrd-stub.service", map[string]any{"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"})
	m := f.connect(t)
	assert.Check(t, is.Equal(m.Version(), 252))
	want := State{
		Name: testUnit, LoadState: "loaded", ActiveState: "active", SubState: "running", Result: "success", Description: "d",
		InvocationID: "abcd", ControlGroup: "/x", FreezerState: "running", MainPID: 7, ExecMainPID: 7, ExecMainStart: time.Unix(5, 0),
	}
	s, err := m.State(t.Context(), testUnit)
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(s, want))
	states, err := m.List(t.Context(), "lrd-*.service")
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(states, map[string]State{testUnit: want}))
	for _, name := range []string{"lrd-stub.service", "lrd-none.service"} {
		_, err = m.State(t.Context(), name)
		assert.Check(t, is.ErrorIs(err, ErrNotLoaded))
		assert.Check(t, is.Error(err, "cannot read the state of unit "+name+": the unit is not loaded"))
	}
}

// A reading during which the unit changes is done again, in one piece.
func TestTornReading(t *testing.T) {
	f := startFake(t)
	f.set(testUnit, running())
	f.on["Get"] = func(c *fakeCall) bool {
		if c.msg.Body[1] == "ExecMainStatus" {
			f.set(testUnit, exited(3))
		}
		return false
	}
	f.on["GetAll"] = func(c *fakeCall) bool {
		props := map[string]dbus.Variant{"SubState": dbus.MakeVariant("failed"), "Result": dbus.MakeVariant("from GetAll")}
		c.reply(props)
		return true
	}
	s, err := f.connect(t).State(t.Context(), testUnit)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(s.Result, "from GetAll"))
}

// The result of a job may be signalled before the reply that says which job it is.
func TestJobEndsBeforeReply(t *testing.T) {
	f := startFake(t)
	results := make(chan string, 2)
	results <- "done"
	results <- "timeout"
	f.on["StartTransientUnit"] = func(c *fakeCall) bool {
		f.jobRemoved("/org/freedesktop/systemd1/job/9", "other.service", "failed")
		f.jobRemoved(testJob, testUnit, <-results)
		return false
	}
	m := f.connect(t)
	assert.NilError(t, m.Start(t.Context(), testUnit, nil))
	err := m.Start(t.Context(), testUnit, []Property{String("Type", "exec")})
	var job *JobError
	assert.Assert(t, errors.As(err, &job))
	assert.Check(t, is.DeepEqual(*job, JobError{testUnit, "timeout"}))
	assert.Check(t, is.Error(err, "cannot start unit lrd-a.service: the job of unit lrd-a.service timed out"))
	assert.Check(t, is.Len(m.jobs.early, 0))
	assert.Check(t, is.Len(m.jobs.waiting, 0))
}

// Two stops of one unit are one job, and both hear of its end.
func TestSharedJob(t *testing.T) {
	f := startFake(t)
	var calls sync.WaitGroup
	calls.Add(2)
	f.on["StopUnit"] = func(c *fakeCall) bool {
		f.handle(c)
		calls.Done()
		return true
	}
	m := f.connect(t)
	errs := make(chan error, 2)
	for range 2 {
		go func() { errs <- m.Stop(t.Context(), testUnit) }()
	}
	calls.Wait()
	f.jobRemoved(testJob, testUnit, "done")
	assert.Check(t, <-errs)
	assert.Check(t, <-errs)
}

func TestJobAcrossLostConnection(t *testing.T) {
	for _, x := range []struct {
		name  string
		units map[string]any // the unit afterwards; nil if it is gone
		job   bool           // the job is still there, and ends later
		reply bool           // the connection is lost after the reply, not before it
		want  string
	}{
		{"job goes on", running(), true, true, ""},
		{"ended meanwhile, runs", running(), false, true, ""},
		{"ended meanwhile, failed", exited(1), false, true, "failed"},
		{"ended meanwhile, gone", nil, false, true, "lost"},
		{"reply lost, job goes on", running(), true, false, ""},
		{"reply lost, runs", running(), false, false, ""},
		{"reply lost, never came", nil, false, false, "lost"},
	} {
		t.Run(x.name, func(t *testing.T) {
			f := startFake(t)
			f.on["StartTransientUnit"] = func(c *fakeCall) bool {
				if x.units != nil {
					f.set(testUnit, running())
					f.set(testUnit, x.units)
					if x.job {
						f.set(testUnit, map[string]any{"Job": struct {
							ID   uint32
							Path dbus.ObjectPath
						}{1, testJob}})
					}
				}
				if x.reply {
					f.handle(c)
				}
				c.conn.Close()
				return true
			}
			f.on["Get"] = func(c *fakeCall) bool {
				if path, _ := c.msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath); path == testJob && x.job {
					c.reply(dbus.MakeVariant(uint32(1)))
					time.AfterFunc(10*time.Millisecond, func() { f.jobRemoved(testJob, testUnit, "done") })
					return true
				}
				if c.msg.Body[1] == "Job" && x.job {
					time.AfterFunc(10*time.Millisecond, func() { f.jobRemoved(testJob, testUnit, "done") })
				}
				return false
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := f.connect(t).Start(ctx, testUnit, nil)
			var job *JobError
			switch {
			case x.want == "":
				assert.NilError(t, err)
			case !errors.As(err, &job):
				t.Fatal(err)
			default:
				assert.Check(t, is.Equal(job.Result, x.want))
			}
		})
	}
}

func TestLostResult(t *testing.T) {
	at := time.Unix(1, 0)
	for _, x := range []struct {
		s      State
		loaded bool
		g      goal
		want   string
	}{
		{State{ActiveState: "activating"}, true, goalStart, "done"},
		{State{ActiveState: "inactive", ExecMainExit: at, Result: "success"}, true, goalStart, "done"},
		{State{ActiveState: "inactive"}, true, goalStart, "lost"},
		{State{ActiveState: "failed"}, true, goalStart, "failed"},
		{State{}, false, goalStart, "lost"},
		{State{ActiveState: "inactive"}, true, goalStop, "done"},
		{State{ActiveState: "failed"}, true, goalStop, "done"},
		{State{}, false, goalStop, "done"},
		{State{ActiveState: "active"}, true, goalStop, "canceled"},
	} {
		assert.Check(t, is.Equal(lostResult(x.s, x.loaded, x.g), x.want), "%+v", x)
	}
}

// Calls made while the connection is down wait for the next one, as long as their context lets them.
func TestCallsWaitForConnection(t *testing.T) {
	f := startFake(t)
	f.set(testUnit, running())
	m := f.connect(t)
	f.drop()
	assert.NilError(t, os.RemoveAll(f.socket))
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := m.State(short, testUnit)
	assert.Check(t, is.ErrorIs(err, context.DeadlineExceeded))
	time.AfterFunc(50*time.Millisecond, func() { f.listen(t) })
	_, err = m.State(t.Context(), testUnit)
	assert.NilError(t, err)
}

// What may be repeated is, when its reply is lost; a signal to processes is not.
func TestRepeat(t *testing.T) {
	f := startFake(t)
	f.set(testUnit, running())
	for _, member := range []string{"ListUnitsByPatterns", "ThawUnit", "SetUnitProperties", "KillUnit", "GetUnit"} {
		once := sync.Once{}
		f.on[member] = func(c *fakeCall) bool {
			first := false
			once.Do(func() { first = true; c.conn.Close() })
			return first
		}
	}
	m := f.connect(t)
	_, err := m.List(t.Context(), "lrd-*")
	assert.Check(t, err)
	assert.Check(t, m.Thaw(t.Context(), testUnit))
	assert.Check(t, m.SetProperties(t.Context(), testUnit, nil))
	_, err = m.State(t.Context(), testUnit)
	assert.Check(t, err)
	err = m.Kill(t.Context(), testUnit, KillAll, syscall.SIGTERM)
	assert.Check(t, errdefs.IsUnavailable(err))
	assert.Check(t, is.Error(err, "cannot send signal 15 to unit lrd-a.service: the connection to systemd was lost meanwhile"))
}

// Systemd 252 may answer to FreezeUnit before anything is frozen, and announces nothing.
func TestFreezeIsAwaited(t *testing.T) {
	f := startFake(t)
	f.set(testUnit, running())
	m := f.connect(t)
	w := m.Watch("lrd-")
	defer w.Close()
	f.announce(testUnit)
	receive(t, w)
	calls := 0
	f.on["FreezeUnit"] = func(c *fakeCall) bool {
		if calls++; calls == 2 {
			f.set(testUnit, map[string]any{"FreezerState": "frozen"})
		}
		return false
	}
	assert.NilError(t, m.Freeze(t.Context(), testUnit))
	assert.Check(t, is.Equal(receive(t, w).State.FreezerState, "frozen"))
	f.set(testUnit, map[string]any{"FreezerState": "freezing"})
	// On a machine that is busy the deadline may pass before the state is known; the longer it is, the less likely.
	for patience := 20 * time.Millisecond; ; patience *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := m.Thaw(ctx, testUnit)
		cancel()
		assert.Assert(t, is.ErrorIs(err, context.DeadlineExceeded))
		if strings.Contains(err.Error(), "it is freezing") {
			return
		}
		assert.Assert(t, patience < time.Minute, "%v", err)
	}
}

func TestWatchAcrossLostConnection(t *testing.T) {
	f := startFake(t)
	f.set("lrd-same.service", running())
	f.set("lrd-gone.service", running())
	f.set("lrd-exits.service", running())
	f.set("other.service", running())
	m := f.connect(t)
	w, other := m.Watch("lrd-"), m.Watch("oth")
	defer other.Close()
	_, err := m.List(t.Context(), "*")
	assert.NilError(t, err)
	f.mu.Lock() // nobody hears of it
	delete(f.units, "lrd-gone.service")
	f.mu.Unlock()
	f.set("lrd-exits.service", exited(4))
	f.set("lrd-new.service", running())
	f.hangUp()
	seen := make(map[string]Change)
	for {
		c := receive(t, w)
		if c.Resync {
			break
		}
		seen[c.State.Name] = c
	}
	assert.Check(t, is.Len(seen, 3))
	assert.Check(t, seen["lrd-gone.service"].Removed)
	assert.Check(t, is.Equal(seen["lrd-exits.service"].State.ExecMainStatus, int32(4)))
	assert.Check(t, is.Equal(seen["lrd-new.service"].State.SubState, "running"))
	assert.Check(t, receive(t, other).Resync)
	w.Close()
	_, open := <-w.C
	assert.Check(t, !open)
}

// During a daemon-reload PID 1 announces the removal of every unit.
func TestWatchReload(t *testing.T) {
	f := startFake(t)
	f.set(testUnit, running())
	f.set("lrd-gone.service", running())
	m := f.connect(t)
	w := m.Watch("lrd-")
	defer w.Close()
	f.announce(testUnit)
	f.announce("lrd-gone.service")
	assert.Check(t, is.Equal(receive(t, w).State.Name, testUnit))
	assert.Check(t, is.Equal(receive(t, w).State.Name, "lrd-gone.service"))
	f.signal(managerPath, managerIface, "Reloading", true)
	f.removed(testUnit)
	f.removed("lrd-gone.service")
	f.unset("lrd-gone.service")
	f.signal(managerPath, managerIface, "Reloading", false)
	c := receive(t, w)
	assert.Check(t, c.Removed && c.State.Name == "lrd-gone.service", "%+v", c)
	assert.Check(t, receive(t, w).Resync)
}

// A reader that does not read holds up nothing.
func TestSlowReader(t *testing.T) {
	f := startFake(t)
	f.set(testUnit, running())
	m := f.connect(t)
	w := m.Watch("lrd-")
	defer w.Close()
	const n = 1000
	for i := range n {
		f.set(testUnit, map[string]any{"NRestarts": uint32(i)})
		f.announce(testUnit)
	}
	_, err := m.State(t.Context(), testUnit)
	assert.NilError(t, err)
	for i := range n {
		assert.Assert(t, is.Equal(receive(t, w).State.NRestarts, uint32(i)))
	}
}

func TestErrorKinds(t *testing.T) {
	for name, is := range map[string]func(error) bool{
		"org.freedesktop.systemd1.NoSuchUnit":     errdefs.IsNotFound,
		"org.freedesktop.systemd1.UnitExists":     errdefs.IsAlreadyExists,
		"org.freedesktop.systemd1.UnitInactive":   errdefs.IsFailedPrecondition,
		"org.freedesktop.DBus.Error.InvalidArgs":  errdefs.IsInvalidArgument,
		"org.freedesktop.DBus.Error.NotSupported": errdefs.IsNotImplemented,
		"org.example.Other":                       errdefs.IsUnknown,
	} {
		err := fmt.Errorf("cannot do it: %w", replyError(t.Context(), dbus.Error{Name: name, Body: []any{"a sentence"}}))
		assert.Check(t, is(err), name)
	}
	assert.Check(t, errdefs.IsUnavailable(replyError(t.Context(), errors.New("EOF"))))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Check(t, is.ErrorIs(replyError(ended, errors.New("EOF")), context.Canceled))
}
