package containers

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/units"
)

// block makes it impossible to write a file, for root too; unblock takes that back.
func (w *world) block(path string) (unblock func()) {
	w.t.Helper()
	aside := path + ".aside"
	_ = os.Rename(path, aside)
	assert.NilError(w.t, os.MkdirAll(filepath.Join(path, "in the way"), 0o755))
	return func() {
		assert.NilError(w.t, os.RemoveAll(path))
		if _, err := os.Lstat(aside); err == nil {
			assert.NilError(w.t, os.Rename(aside, path))
		}
	}
}

// blockRecord is a disk that takes no more of a container's Record.
func (w *world) blockRecord(id string) (unblock func()) { return w.block(w.m.records.path(id)) }

// launchFault is a way for a start to fail.
type launchFault struct {
	name string
	arm  func(w *world, id string) (disarm func())
}

// stepFault is the failure of a call to what is below the Manager.
func stepFault(step string) launchFault {
	return launchFault{step, func(w *world, _ string) func() {
		w.arm(step, errFault)
		return func() { w.arm(step, nil) }
	}}
}

// fileFault is a file that cannot be written.
func fileFault(name string, path func(w *world, id string) string) launchFault {
	return launchFault{name, func(w *world, id string) func() { return w.block(path(w, id)) }}
}

func runtimeFile(name string) launchFault {
	return fileFault(name, func(w *world, id string) string { return w.m.pipePath(id, name) })
}

// launchFaults are all steps of a start, in order.
var launchFaults = []launchFault{
	stepFault("Images.MountRootfs"),
	stepFault("Networks.Attach"),
	{"user", func(w *world, id string) func() {
		c := w.container(id)
		c.record.Config.User = "nobody-there"
		return func() { c.record.Config.User = "" }
	}},
	stepFault("Volumes.Mount"),
	fileFault("hosts", func(w *world, id string) string { return filepath.Join(w.m.dataDir(id), "hosts") }),
	{"seccomp profile", func(w *world, _ string) func() {
		w.config.SeccompProfile = "/nowhere"
		return func() { w.config.SeccompProfile = "" }
	}},
	runtimeFile("bundle/config.json"),
	runtimeFile(createScript),
	runtimeFile(fdStderr),
	stepFault("Descriptors.PutAll"),
	{"stop signal", func(w *world, id string) func() {
		c := w.container(id)
		c.record.Config.StopSignal = "SIGNONSENSE"
		return func() { c.record.Config.StopSignal = "" }
	}},
	{"record", func(w *world, id string) func() { return w.blockRecord(id) }},
	{"output", func(w *world, id string) func() {
		return w.block(filepath.Join(w.m.outputDir(id), "index.0000000000000000"))
	}},
	stepFault("Units.Start"),
	{"unit job", func(w *world, id string) func() {
		w.arm("Units.Start", &units.JobError{Unit: unitName(id), Result: "failed"})
		return func() { w.arm("Units.Start", nil) }
	}},
}

// Whatever fails, nothing of the start is left, and the container can be started.
func TestLaunchUnwinds(t *testing.T) {
	for _, fault := range launchFaults {
		for _, streams := range []struct {
			name string
			with func(*CreateRequest)
		}{{"pipes", withStdin}, {"console", withTTY}} {
			if fault.name == fdStderr && streams.name == "console" {
				continue
			}
			t.Run(fault.name+" "+streams.name, func(t *testing.T) {
				w := newWorld(t, 252)
				id := w.create(withVolume, streams.with)
				disarm := fault.arm(w, id)
				err := w.m.Start(t.Context(), id)
				assert.Assert(t, err != nil)
				disarm()
				s := w.status(id)
				assert.Check(t, is.Equal(s.State, container.StateCreated))
				assert.Check(t, is.Equal(s.Error, err.Error()))
				assert.Check(t, s.ExitCode != 0)
				assert.Check(t, w.record(id).Run == nil)
				w.leftNothing(id)
				w.heardOf(id, onCreate)

				assert.NilError(t, w.m.Start(t.Context(), id))
				assert.Check(t, is.Equal(w.status(id).Error, ""))
				assert.Check(t, is.Equal(w.status(id).ExitCode, 0))
				assert.NilError(t, w.units.print(id, "hello\n"))
				assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{}))
				w.isPutAway(id)
				assert.Check(t, slices.Contains([]string{"hello\n", "hello\r\n"}, w.logs(id)), "%q", w.logs(id))
			})
		}
	}
}

// The table above has every step that is not a file.
func TestLaunchFaultsAreAll(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create(withVolume, withStdin)
	w.trace = nil
	assert.NilError(t, w.m.Start(t.Context(), id))
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, step := range w.trace {
		if step == "Units.State" { // after the start: what fails there must not take the container back
			continue
		}
		assert.Check(t, slices.ContainsFunc(launchFaults, func(f launchFault) bool { return f.name == step }), step)
	}
}

func TestFailedStartOfAnAutoRemoveContainer(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create(withAutoRemove, withVolume)
	removed := w.wait(id, container.WaitConditionRemoved)
	w.arm("Units.Start", errFault)
	assert.Check(t, w.m.Start(t.Context(), id) != nil)
	answered(t, removed, 128)
	w.isGone(id)
}

// A client that attached before a start that fails is let go.
func TestFailedStartEndsAttachments(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create()
	a, err := w.m.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
	assert.NilError(t, err)
	w.arm("Units.Start", errFault)
	assert.Check(t, w.m.Start(t.Context(), id) != nil)
	<-a.Done
}

// A client that attached before the start sees the end of that run.
func TestAttachmentEndsWithTheRun(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create()
	a, err := w.m.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
	assert.NilError(t, err)
	assert.NilError(t, w.m.Start(t.Context(), id))
	select {
	case <-a.Done:
		t.Fatal("it runs")
	default:
	}
	w.units.exit(id, 0)
	<-a.Done
}

// exitedButStays is a container that has exited, and whose run cannot be put away, as op fails.
func (w *world) exitedButStays(op string) string {
	w.t.Helper()
	id := w.started()
	w.arm(op, errFault)
	w.units.exit(id, 0)
	w.becomes(id, container.StateExited)
	return id
}

func TestStartAfterTheRunBeforeCouldNotBePutAway(t *testing.T) {
	w := newWorld(t, 252)
	id := w.exitedButStays("Images.UnmountRootfs")
	answered(t, w.wait(id, ""), 0)
	assert.ErrorContains(t, w.m.Start(t.Context(), id), "cannot put the run before away")
	assert.Check(t, w.record(id).Run != nil, "what is to be put away is forgotten")
	w.arm("Images.UnmountRootfs", nil)
	assert.NilError(t, w.m.Start(t.Context(), id))
	assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{}))
	w.isPutAway(id)
}

// A unit that could not be ended finds the script of its last command yet.
func TestScriptsStayWithTheUnit(t *testing.T) {
	w := newWorld(t, 252)
	id := w.exitedButStays("Units.Stop")
	assert.ErrorIs(t, w.m.Remove(t.Context(), id, RemoveOptions{}), errFault)
	_, err := os.Stat(filepath.Join(w.m.runDir(id), exitedScript))
	assert.NilError(t, err)
	w.arm("Units.Stop", nil)
	assert.NilError(t, w.m.Remove(t.Context(), id, RemoveOptions{}))
	_, err = os.Stat(w.m.runDir(id))
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

func TestStartFindsTheUnitOfAnEarlierRun(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create()
	assert.NilError(t, w.units.Start(t.Context(), unitName(id), nil))
	w.units.exit(id, 1)
	w.becomes(id, container.StateExited)
	assert.NilError(t, w.m.Start(t.Context(), id))
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
}

func TestStartNeedsTheContainerWhoseNetworkItShares(t *testing.T) {
	w := newWorld(t, 252)
	owner := w.create(withName("owner"))
	id := w.create(withNetworkOf("owner"))
	assert.Check(t, errdefs.IsConflict(w.m.Start(t.Context(), id)))
	assert.NilError(t, w.m.Start(t.Context(), owner))
	assert.NilError(t, w.m.Start(t.Context(), id))
	assert.Check(t, is.DeepEqual(w.networks.names(), []string{owner}))
}

// A container that runs without its output being collected says so: it stops when its pipes are full.
func TestStartWithoutOutput(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create()
	release := make(chan struct{})
	w.units.stuck[unitName(id)] = release
	started := make(chan error, 1)
	go func() { started <- w.m.Start(t.Context(), id) }()
	c := w.container(id)
	eventually(t, "the unit is being started", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.Contains(w.trace, "Units.Start")
	})
	c.mu.Lock()
	assert.NilError(t, c.streams.opened().Close())
	c.mu.Unlock()
	close(release)
	assert.NilError(t, <-started)
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
	assert.Check(t, is.Contains(w.status(id).Reason, "its output is not collected"))
	w.restart(nil)
	assert.Check(t, is.Equal(w.status(id).Reason, ""))
	assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{}))
	w.isPutAway(id)
}

// The sentences are crun's, as it writes them into its log.
func TestStartError(t *testing.T) {
	for _, tc := range []struct {
		said, command string
		code          int
		want          string
	}{
		{"executable file `nope` not found in $PATH: No such file or directory", "nope", 127, `exec: "nope": executable file not found in $PATH`},
		{"exec /nope: No such file or directory", "/nope", 127, `exec: "/nope": no such file or directory`},
		{"open executable: Permission denied", "/etc/passwd", 126, `exec: "/etc/passwd": permission denied`},
		{"the path `/etc/passwd` exists but it is not executable: Operation not permitted", "/etc/passwd", 126, `exec: "/etc/passwd": permission denied`},
		{"the path `/etc` is not a regular file: Operation not permitted", "/etc", 126, `exec: "/etc": permission denied`},
		{"exec format error", "/x", 126, `permission denied`},
		{"mount `proc`: Operation not permitted", "/x", 128, "failed to create the container: mount `proc`"},
	} {
		err := startError("create the container", tc.said, tc.command)
		assert.Check(t, is.Equal(startExitCode(fmt.Errorf("wrapped: %w", err)), tc.code))
		assert.Check(t, is.ErrorContains(err, tc.want))
		assert.Check(t, is.Equal(errdefs.IsInvalidArgument(err), tc.code != 128))
	}
	assert.Check(t, is.Equal(startExitCode(errFault), 128))
}

func TestStartTellsWhatTheRuntimeSaid(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create()
	assert.NilError(t, os.MkdirAll(w.m.runDir(id), 0o700))
	assert.NilError(t, os.WriteFile(w.m.pipePath(id, runtimeLog), []byte("{\"level\":\"warning\",\"msg\":\"hm\"}\nno JSON\n{\"level\":\"error\",\"msg\":\"it will not do\"}\n"), 0o600))
	w.arm("Units.Start", &units.JobError{Unit: unitName(id), Result: "failed"})
	assert.Error(t, w.m.Start(t.Context(), id), "failed to create the container: it will not do")
}

// A client that has attached before a start that fails, wherever it does, gets its end, and with that goes a container with AutoRemove.
func TestAttachedToAStartThatFails(t *testing.T) {
	for _, step := range []string{"Images.MountRootfs", "Descriptors.PutAll", "Units.Start"} {
		w := newWorld(t, 252)
		id := w.create(withAutoRemove)
		done, err := w.m.Reading(id, false)
		assert.NilError(t, err)
		a, err := w.m.Attach(t.Context(), id, AttachOptions{Stdout: true, Stream: true})
		assert.NilError(t, err)
		w.arm(step, errFault)
		assert.Check(t, is.ErrorIs(w.m.Start(t.Context(), id), errFault), step)
		_, err = a.Output.Next(t.Context())
		assert.Check(t, is.ErrorIs(err, io.EOF), step)
		<-a.Done
		done()
		w.isGone(id)
	}
}
