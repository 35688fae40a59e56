package containers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/health"
	"lrd/internal/shell"
)

func held(b *bundle) { b.held = true }

func TestHolds(t *testing.T) {
	for _, tc := range []struct {
		change func(*bundle)
		want   bool
	}{
		{nil, true},
		{func(b *bundle) { b.policy.Name = container.RestartPolicyAlways }, false},
		{func(b *bundle) { b.health = &health.Script{} }, false},
		{func(b *bundle) { b.runtime.Path = "/usr/sbin/runc" }, false},
		{func(b *bundle) { b.spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/x"}}} }, false},
		{func(b *bundle) { b.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/x"}}} }, true},
	} {
		b := bundle{runtime: Runtime{Path: "/usr/bin/crun"}, spec: &specs.Spec{}}
		if tc.change != nil {
			tc.change(&b)
		}
		assert.Check(t, is.Equal(b.holds(), tc.want))
	}
}

func TestLetBegin(t *testing.T) {
	b := bundleIn(t, t.TempDir(), held)
	state := filepath.Join(b.root, b.id)
	assert.NilError(t, os.MkdirAll(state, 0o700))
	fifo := filepath.Join(state, "exec.fifo")
	gone := func(path string) bool {
		_, err := os.Lstat(path)
		return os.IsNotExist(err)
	}

	assert.NilError(t, unix.Mkfifo(fifo, 0o600))
	waiting, err := os.OpenFile(fifo, os.O_RDONLY|unix.O_NONBLOCK, 0)
	assert.NilError(t, err)
	assert.NilError(t, b.letBegin(t.Context()))
	one := make([]byte, 2)
	n, err := waiting.Read(one)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(n, 1))
	assert.Check(t, gone(fifo) && gone(b.path(heldFile)))
	assert.NilError(t, waiting.Close())

	// A daemon that was killed in the middle of it has left the FIFO and the mark.
	assert.NilError(t, unix.Mkfifo(fifo, 0o600))
	assert.NilError(t, os.WriteFile(b.path(heldFile), nil, 0o600))
	assert.NilError(t, b.letBegin(t.Context()))
	assert.Check(t, gone(fifo) && gone(b.path(heldFile)))

	// A runtime that has no FIFO is asked.
	assert.NilError(t, b.letBegin(t.Context()))
	args := b.args(t)
	assert.Check(t, is.DeepEqual(args[len(args)-2:], []string{"start", b.id}))
	b.runtime.Path = filepath.Join(t.TempDir(), "crun")
	assert.NilError(t, os.WriteFile(b.runtime.Path, []byte("#!/bin/sh\necho no >&2\nexit 1\n"), 0o755))
	assert.ErrorContains(t, b.letBegin(t.Context()), "cannot let the container's process begin: exit status 1: no")
}

// Without lrd the script itself lets the process begin, when the script has ended and somebody has taken note of it.
func TestCreateScriptBeginsByItself(t *testing.T) {
	b := bundleIn(t, t.TempDir(), held)
	b.pipe(t, fdStdout)
	b.pipe(t, fdStderr)
	last := func() string {
		data, _ := os.ReadFile(b.path("ended")) // it is being written
		if strings.Contains(string(data), "\x00start\x00"+b.id) {
			return "start"
		}
		return "create"
	}
	runScript(t, b.path(createScript))
	assert.Check(t, is.Equal(last(), "create"))
	assert.NilError(t, os.Remove(b.path(heldFile)))
	runScript(t, b.path(createScript))
	eventually(t, "begun", func() bool { return last() == "start" })
}

// What a run before has left of the runtime's state is removed first.
func TestCreateScriptAfterAnEndThatWasNotPutAway(t *testing.T) {
	b := bundleIn(t, t.TempDir(), nil)
	b.pipe(t, fdStdout)
	b.pipe(t, fdStderr)
	assert.NilError(t, os.MkdirAll(filepath.Join(b.root, b.id), 0o700))
	// Its own script stands in for a runtime that notes all of its calls.
	calls := b.path("calls")
	assert.NilError(t, os.WriteFile(b.runtime.Path, []byte("#!/bin/sh\nfor a; do case $a in create|delete) echo $a >>"+shell.Quote(calls)+";; esac; done\n"), 0o755))
	runScript(t, b.path(createScript))
	assert.Check(t, is.Equal(b.read(t, "calls"), "delete\ncreate\n"))
}
