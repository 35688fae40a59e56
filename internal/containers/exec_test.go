package containers

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/output"
)

var attachAll = container.ExecCreateRequest{AttachStdin: true, AttachStdout: true, AttachStderr: true}

// exec makes an exec in a container.
func (w *world) exec(id string, r container.ExecCreateRequest) string {
	w.t.Helper()
	if r.Cmd == nil {
		r.Cmd = []string{"cmd", "arg"}
	}
	e, err := w.m.ExecCreate(w.t.Context(), id, r)
	assert.NilError(w.t, err)
	return e
}

// execute makes and starts one, with a client that stays until leave is called.
func (w *world) execute(id string, r container.ExecCreateRequest) (e string, a *Attachment, leave func()) {
	w.t.Helper()
	e = w.exec(id, r)
	ctx, release := context.WithCancel(context.Background())
	w.t.Cleanup(release)
	a, err := w.m.ExecStart(ctx, e, ExecStartOptions{})
	assert.NilError(w.t, err)
	w.begin(e, a)
	return e, a, func() { release(); a.Over() }
}

// begin starts the command of an attached client, and waits until that is through.
func (w *world) begin(e string, a *Attachment) {
	w.t.Helper()
	live, err := w.m.findExec(e)
	assert.NilError(w.t, err)
	a.Begin()
	a.Begin() // once is enough
	<-live.started
}

func (w *world) inspectExec(e string) container.ExecInspectResponse {
	w.t.Helper()
	r, err := w.m.ExecInspect(w.t.Context(), e)
	assert.NilError(w.t, err)
	return r
}

// endedWith waits until an exec has ended, and everything of it is put away.
func (w *world) endedWith(e string, code int) {
	w.t.Helper()
	eventually(w.t, "the exec has ended", func() bool { return !w.inspectExec(e).Running })
	got := w.inspectExec(e).ExitCode
	assert.Assert(w.t, got != nil, "no exit code")
	assert.Equal(w.t, *got, code)
	eventually(w.t, "the unit is gone", func() bool { return !is.Contains(w.units.names(), execUnit(e))().Success() })
	eventually(w.t, "the descriptors are gone", func() bool {
		for _, name := range w.store.names() {
			if name[:64] == e {
				return false
			}
		}
		return true
	})
}

// noOutput waits until nothing is kept of what a command wrote.
func (w *world) noOutput(e string) {
	w.t.Helper()
	live, err := w.m.findExec(e)
	assert.NilError(w.t, err)
	eventually(w.t, "the output is gone", func() bool { _, err := os.Stat(live.outputDir()); return os.IsNotExist(err) })
}

// all is what a client reads to the end.
func all(t *testing.T, r OutputReader) string {
	t.Helper()
	var text []byte
	for {
		chunk, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return string(text)
		}
		assert.NilError(t, err)
		text = append(text, chunk.Data...)
	}
}

func TestExecRuns(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started()
	e, a, leave := w.execute(id, attachAll)
	r := w.inspectExec(e)
	assert.Assert(t, r.Running && r.Pid != 0 && r.ExitCode == nil)
	assert.Equal(t, r.ContainerID, id)
	in, err := w.m.Inspect(t.Context(), id, false)
	assert.NilError(t, err)
	assert.DeepEqual(t, in.ExecIDs, []string{e})
	assert.Assert(t, is.Contains(w.store.names(), e+".stdin"))

	_, err = w.m.ExecStart(t.Context(), e, ExecStartOptions{})
	assert.Assert(t, errdefs.IsConflict(err), "%v", err)
	assert.NilError(t, w.units.printUnit(execUnit(e), "hello"))
	assert.NilError(t, a.Stdin.Close())
	eventually(t, "the input ends", func() bool { return !is.Contains(w.store.names(), e+".stdin")().Success() })
	w.units.exitUnit(execUnit(e), 7)
	assert.Equal(t, all(t, a.Output), "hello")
	<-a.Done
	w.endedWith(e, 7)
	_, err = w.m.ExecStart(t.Context(), e, ExecStartOptions{})
	assert.ErrorContains(t, err, "has already run")

	leave()
	w.noOutput(e)
	w.heardOf(id, events.ActionCreate, events.ActionStart, "exec_create: cmd arg", "exec_start: cmd arg", events.ActionExecDie)

	w.m.forgetExecs(time.Now().Add(execKept - time.Minute))
	w.inspectExec(e)
	w.m.forgetExecs(time.Now().Add(execKept + time.Minute))
	_, err = w.m.ExecInspect(t.Context(), e)
	assert.Assert(t, errdefs.IsNotFound(err), "%v", err)
	_, err = os.Stat(w.m.execDir(e))
	assert.Assert(t, os.IsNotExist(err))
}

// A client that has heard the container need not know that its start is not through.
func TestExecDuringTheStart(t *testing.T) {
	w := newWorld(t, 257)
	id := w.create()
	through := make(chan struct{})
	w.units.mu.Lock()
	w.units.stuck[unitName(id)] = through
	w.units.mu.Unlock()
	started := make(chan error, 1)
	go func() { started <- w.m.Start(t.Context(), id) }()
	eventually(t, "the start is under way", func() bool { return len(w.m.get(id).op) == 1 })
	made := make(chan error, 1)
	go func() {
		_, err := w.m.ExecCreate(t.Context(), id, container.ExecCreateRequest{Cmd: []string{"cmd"}})
		made <- err
	}()
	select {
	case err := <-made:
		t.Fatalf("it was not waited for: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(through)
	assert.NilError(t, <-started)
	assert.NilError(t, <-made)
}

// A command that is over before its start is through has a client that reads to the end.
func TestExecOverAtOnce(t *testing.T) {
	w := newWorld(t, 257)
	e := w.exec(w.started(), attachAll)
	w.units.mu.Lock()
	w.units.early[execUnit(e)] = 3
	w.units.mu.Unlock()
	a, err := w.m.ExecStart(t.Context(), e, ExecStartOptions{})
	assert.NilError(t, err)
	a.Begin()
	<-a.Done
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = a.Output.Next(ctx)
	assert.ErrorIs(t, err, io.EOF)
	a.Over()
	w.endedWith(e, 3)
}

func TestExecInTTY(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started()
	r := attachAll
	r.Tty = true
	e, a, _ := w.execute(id, r)
	assert.Assert(t, a.TTY)
	assert.Assert(t, is.Contains(w.store.names(), e+".console"))
	assert.NilError(t, w.m.ExecResize(t.Context(), e, 24, 80))
	assert.NilError(t, w.units.printUnit(execUnit(e), "hello"))
	chunk, err := a.Output.Next(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, string(chunk.Data), "hello")
	_, err = a.Stdin.Write([]byte("x"))
	assert.NilError(t, err)
	w.units.exitUnit(execUnit(e), 0)
	w.endedWith(e, 0)
	assert.Assert(t, errdefs.IsConflict(w.m.ExecResize(t.Context(), e, 24, 80)))
}

func TestExecRefused(t *testing.T) {
	w := newWorld(t, 257)
	stopped := w.create()
	_, err := w.m.ExecCreate(t.Context(), stopped, container.ExecCreateRequest{Cmd: []string{"a"}})
	assert.Assert(t, errdefs.IsConflict(err), "%v", err)
	assert.ErrorContains(t, err, "container "+stopped+" is not running")
	id := w.started()
	_, err = w.m.ExecCreate(t.Context(), id, container.ExecCreateRequest{})
	assert.Assert(t, errdefs.IsInvalidArgument(err), "%v", err)
	e := w.exec(id, attachAll)
	assert.NilError(t, w.m.Pause(t.Context(), id))
	_, err = w.m.ExecStart(t.Context(), e, ExecStartOptions{})
	assert.ErrorContains(t, err, "container "+id+" is paused, unpause the container before exec")
	for _, err := range []error{
		func() error { _, err := w.m.ExecStart(t.Context(), "x", ExecStartOptions{}); return err }(),
		w.m.ExecResize(t.Context(), "x", 1, 1),
	} {
		assert.Assert(t, errdefs.IsNotFound(err), "%v", err)
	}
}

// TestExecThatCannotStart: whatever fails, nothing is left, and there is an exit code to ask for.
func TestExecThatCannotStart(t *testing.T) {
	for name, tc := range map[string]struct {
		user  string
		spoil func(w *world, e string)
		code  int
		want  string
	}{
		"no such command": {code: 127, want: `exec: "cmd": executable file not found in $PATH`, spoil: func(w *world, e string) {
			w.units.dumb = true
			w.units.early[execUnit(e)] = 255
			go func() { // the runtime
				for {
					err := os.WriteFile(w.m.execDir(e)+"/"+runtimeLog, []byte("{\"level\":\"error\",\"msg\":\"executable file `cmd` not found in $PATH\"}\n"), 0o600)
					if _, statErr := os.Stat(w.m.execDir(e) + "/" + exitsFile); err != nil || statErr == nil {
						return
					}
				}
			}()
		}},
		"no such user":   {code: 126, user: "nobodyatall", want: "nobodyatall", spoil: func(*world, string) {}},
		"no unit":        {code: 128, want: "no unit today", spoil: func(w *world, _ string) { w.arm("Units.Start", errors.New("no unit today")) }},
		"no descriptors": {code: 128, want: "store is full", spoil: func(w *world, _ string) { w.arm("Descriptors.PutAll", errors.New("store is full")) }},
		"no trace of how": {code: 128, want: "cannot read how container", spoil: func(w *world, e string) {
			_ = os.Remove(w.m.runDir(w.inspectExec(e).ContainerID) + "/bundle/config.json")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 257)
			id := w.started()
			before := w.store.names()
			r := attachAll
			r.User = tc.user
			e := w.exec(id, r)
			tc.spoil(w, e)
			a, err := w.m.ExecStart(t.Context(), e, ExecStartOptions{})
			assert.NilError(t, err)
			w.begin(e, a)
			assert.Check(t, is.Contains(all(t, a.Output), tc.want))
			<-a.Done
			w.endedWith(e, tc.code)
			a.Over()
			w.noOutput(e)
			assert.DeepEqual(t, w.store.names(), before)
			assert.DeepEqual(t, w.units.names(), []string{unitName(id)})
			w.m.forgetExecs(time.Now().Add(execKept + time.Minute))
			_, err = w.m.ExecInspect(t.Context(), e)
			assert.Assert(t, errdefs.IsNotFound(err), "%v", err)
		})
	}
}

func TestExecOutlivesTheDaemon(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started()
	stays, _, _ := w.execute(id, attachAll)
	ends, _, _ := w.execute(id, attachAll)
	vanishes, _, _ := w.execute(id, attachAll)
	lost, _, _ := w.execute(id, attachAll)
	detached := w.exec(id, container.ExecCreateRequest{})
	_, err := w.m.ExecStart(t.Context(), detached, ExecStartOptions{Detach: true})
	assert.NilError(t, err)
	unstarted := w.exec(id, attachAll)

	w.restart(func() {
		w.units.exitUnit(execUnit(ends), 7)
		w.units.exitUnit(execUnit(vanishes), 9)
		w.units.vanishUnit(execUnit(vanishes)) // the list of exits has it
		w.units.vanishUnit(execUnit(lost))
	})
	w.endedWith(ends, 7)
	w.endedWith(vanishes, 9)
	w.endedWith(lost, lostExitCode)
	for _, e := range []string{stays, detached} {
		assert.Assert(t, w.inspectExec(e).Running)
	}
	eventually(t, "the input of a client that did not come back ends", func() bool { return !is.Contains(w.store.names(), stays+".stdin")().Success() })
	assert.Assert(t, is.Contains(w.store.names(), stays+".stdout"))
	w.units.exitUnit(execUnit(stays), 3)
	w.endedWith(stays, 3)
	_, err = w.m.ExecStart(t.Context(), unstarted, ExecStartOptions{Detach: true})
	assert.NilError(t, err)
	w.restart(nil) // what is over is still known
	w.endedWith(stays, 3)
	w.endedWith(ends, 7)
	w.units.exitUnit(execUnit(detached), 0)
	w.endedWith(detached, 0)
}

// TestExecOutputIsBounded: a command whose client has left can write for ever, under the next daemon too.
func TestExecOutputIsBounded(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started()
	e, _, leave := w.execute(id, attachAll)
	leave()
	const much = 128 << 20 // more than is kept of readers that may come back
	text := strings.Repeat(strings.Repeat("x", 1<<10-1)+"\n", 1<<10)
	for range 2 {
		for range much / len(text) {
			assert.NilError(t, w.units.printUnit(execUnit(e), text))
		}
		var kept int64
		live, err := w.m.findExec(e)
		assert.NilError(t, err)
		eventually(t, "what nobody reads is dropped", func() bool {
			entries, err := os.ReadDir(live.outputDir())
			assert.NilError(t, err)
			kept = 0
			for _, entry := range entries {
				if info, err := entry.Info(); err == nil {
					kept += info.Size()
				}
			}
			return kept < much*3/4
		})
		w.restart(nil)
	}
	w.units.exitUnit(execUnit(e), 0)
	w.endedWith(e, 0)
}

// TestExecClientGoesOn: what a client has, and what is kept for it, over restarts of the daemon, from before its
// command's end to long after.
func TestExecClientGoesOn(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started()
	e, a, _ := w.execute(id, attachAll)
	unit := execUnit(e)
	assert.NilError(t, w.units.printUnit(unit, "one "))
	chunk, err := a.Output.Next(t.Context())
	assert.NilError(t, err)
	got := string(chunk.Data)
	goOn := func(meanwhile func()) {
		at := a.Output.(*output.Reader).Position()
		w.known = func() {
			var err error
			a, err = w.m.ExecAttach(context.Background(), e, at)
			assert.NilError(t, err)
		}
		w.restart(meanwhile)
	}
	goOn(func() { assert.NilError(t, w.units.printUnit(unit, "two ")) })
	assert.Assert(t, is.Contains(w.store.names(), e+".stdin"), "the input has ended, and nobody ended it")
	_, err = a.Stdin.Write([]byte("x"))
	assert.NilError(t, err)
	goOn(func() {
		assert.NilError(t, w.units.printUnit(unit, "three"))
		w.units.exitUnit(unit, 7)
	})
	w.endedWith(e, 7)
	w.m.forgetExecs(time.Now().Add(time.Hour)) // its client is slow
	goOn(nil)
	w.endedWith(e, 7)
	assert.Equal(t, got+all(t, a.Output), "one two three")
	w.heardOf(id, events.ActionCreate, events.ActionStart, "exec_create: cmd arg", "exec_start: cmd arg", events.ActionExecDie)

	a.Over()
	live, err := w.m.findExec(e)
	assert.NilError(t, err)
	eventually(t, "the output is gone", func() bool { _, err := os.Stat(live.outputDir()); return os.IsNotExist(err) })
	_, err = w.m.ExecAttach(t.Context(), e, output.Position{})
	assert.Assert(t, errdefs.IsNotFound(err), "%v", err)
}

// TestExecEndInterrupted: the daemon is killed when the end is on record, and what was written last still in the pipe.
func TestExecEndInterrupted(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started()
	e, a, _ := w.execute(id, attachAll)
	w.known = func() {
		var err error
		a, err = w.m.ExecAttach(context.Background(), e, output.Position{})
		assert.NilError(t, err)
	}
	live, err := w.m.findExec(e)
	assert.NilError(t, err)
	w.restart(func() {
		assert.NilError(t, w.units.printUnit(execUnit(e), "last words"))
		live.note(func(r *execRecord) { r.Phase, r.ExitCode, r.EndedAt = execEnded, 7, time.Now() })
	})
	assert.Equal(t, all(t, a.Output), "last words")
	w.endedWith(e, 7)
	w.heardOf(id, events.ActionCreate, events.ActionStart, "exec_create: cmd arg", "exec_start: cmd arg", events.ActionExecDie)
}

func TestExecEndsWithItsContainer(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started()
	e, a, _ := w.execute(id, attachAll)
	stubborn, _, _ := w.execute(id, attachAll) // of a container with the host's process IDs
	unstarted := w.exec(id, attachAll)
	w.units.exit(id, 0)
	w.units.exitUnit(execUnit(e), 137)
	assert.Equal(t, all(t, a.Output), "")
	w.endedWith(e, 137)
	w.endedWith(stubborn, 143)
	w.isPutAway(id)
	_, err := w.m.ExecInspect(t.Context(), unstarted)
	assert.Assert(t, errdefs.IsNotFound(err), "%v", err)
	assert.NilError(t, w.m.Remove(t.Context(), id, RemoveOptions{}))
	w.isGone(id)
	w.endedWith(e, 137) // its client may ask only now
	left, err := os.ReadDir(w.m.execsDir())
	assert.NilError(t, err)
	assert.Equal(t, len(left), 0)
}

// TestExecRestoredWithoutContainer: what is left of commands whose container is gone is removed.
func TestExecRestoredWithoutContainer(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started()
	e, _, _ := w.execute(id, attachAll)
	w.restart(func() {
		w.units.vanish(id)
		assert.NilError(t, os.RemoveAll(w.m.dataDir(id)))
		assert.NilError(t, os.RemoveAll(w.m.runDir(id)))
		assert.NilError(t, os.WriteFile(w.m.execsDir()+"/rubbish", nil, 0o600))
	})
	_, err := w.m.ExecInspect(t.Context(), e)
	assert.Assert(t, errdefs.IsNotFound(err), "%v", err)
	eventually(t, "no unit is left", func() bool { return len(w.units.names()) == 0 })
	assert.Equal(t, len(w.store.names()), 0)
	left, err := os.ReadDir(w.m.execsDir())
	assert.NilError(t, err)
	assert.Equal(t, len(left), 0)
}

// TestExecStartInterrupted: a daemon that leaves, or is killed, while a command is being started leaves that to the next one.
func TestExecStartInterrupted(t *testing.T) {
	type state struct {
		w *world
		e string
		a *Attachment
	}
	setup := func(t *testing.T) *state {
		w := newWorld(t, 257)
		s := &state{w: w, e: w.exec(w.started(), attachAll)}
		var err error
		s.a, err = w.m.ExecStart(context.Background(), s.e, ExecStartOptions{})
		assert.NilError(t, err)
		return s
	}
	// comesBack makes the client one that the next daemon has too.
	comesBack := func(s *state) {
		s.w.known = func() {
			var err error
			s.a, err = s.w.m.ExecAttach(context.Background(), s.e, output.Position{Through: 1})
			assert.NilError(s.w.t, err)
		}
	}
	runs := func(s *state) {
		t := s.w.t
		live, err := s.w.m.findExec(s.e)
		assert.NilError(t, err)
		<-live.started
		assert.Assert(t, s.w.inspectExec(s.e).Running)
		assert.NilError(t, s.w.units.printUnit(execUnit(s.e), "hello"))
		s.w.units.exitUnit(execUnit(s.e), 7)
		assert.Equal(t, all(t, s.a.Output), "hello")
		s.w.endedWith(s.e, 7)
		s.a.Over()
		s.w.noOutput(s.e)
		s.w.heardOf(live.c.id, events.ActionCreate, events.ActionStart, "exec_create: cmd arg", "exec_start: cmd arg", events.ActionExecDie)
	}
	t.Run("before its unit", func(t *testing.T) {
		s := setup(t)
		comesBack(s)
		s.w.restart(nil)
		runs(s)
	})
	t.Run("after its unit", func(t *testing.T) {
		s := setup(t)
		s.w.units.mu.Lock()
		s.w.units.dumb = true
		s.w.units.mu.Unlock()
		s.a.Begin()
		eventually(t, "its unit is there", func() bool { return is.Contains(s.w.units.names(), execUnit(s.e))().Success() })
		comesBack(s)
		s.w.restart(func() { assert.NilError(t, os.WriteFile(s.w.m.execDir(s.e)+"/"+pidFile, []byte("77"), 0o600)) })
		runs(s)
	})
	t.Run("in vain", func(t *testing.T) {
		s := setup(t)
		comesBack(s)
		s.w.restart(func() { s.w.arm("Units.Start", errors.New("no unit today")) })
		assert.Check(t, is.Contains(all(t, s.a.Output), "no unit today"))
		s.w.endedWith(s.e, 128)
	})
	t.Run("its client does not come back", func(t *testing.T) {
		s := setup(t)
		s.w.restart(nil)
		s.w.endedWith(s.e, 128)
		s.w.noOutput(s.e)
		assert.Check(t, !is.Contains(s.w.events.actions(s.w.m.all()[0].id), events.ActionExecDie)().Success())
	})
	t.Run("its client has left before", func(t *testing.T) {
		s := setup(t)
		s.a.Over()
		s.a.Begin() // too late
		s.w.endedWith(s.e, 128)
		s.w.noOutput(s.e)
	})
}
