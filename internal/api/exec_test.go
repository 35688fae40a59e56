package api

import (
	"bytes"
	"io"
	"testing"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"
)

// execIn makes an exec in a container that runs.
func execIn(t *testing.T, c *client.Client, o client.ExecCreateOptions) string {
	t.Helper()
	run(t, c, "box", container.Config{Cmd: []string{"cat"}, OpenStdin: true}, nil)
	made, err := c.ExecCreate(t.Context(), "box", o)
	assert.NilError(t, err)
	assert.Equal(t, len(made.ID), 64)
	return made.ID
}

func TestClientExecutes(t *testing.T) {
	c := newWorld(t).serve(t).client(t)
	id := execIn(t, c, client.ExecCreateOptions{Cmd: []string{"ls"}, AttachStdout: true, AttachStderr: true})
	a, err := c.ExecAttach(t.Context(), id, client.ExecAttachOptions{})
	assert.NilError(t, err)
	defer a.Close()
	var stdout, stderr bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, &stderr, a.Reader)
	assert.NilError(t, err)
	assert.Equal(t, stdout.String()+"/"+stderr.String(), "out/err")
	e, err := c.ExecInspect(t.Context(), id, client.ExecInspectOptions{})
	assert.NilError(t, err)
	assert.Equal(t, e.ExitCode, 7)
}

func TestClientExecutesWithInput(t *testing.T) {
	c := newWorld(t).serve(t).client(t)
	id := execIn(t, c, client.ExecCreateOptions{Cmd: []string{"cat"}, AttachStdin: true, AttachStdout: true})
	a, err := c.ExecAttach(t.Context(), id, client.ExecAttachOptions{})
	assert.NilError(t, err)
	defer a.Close()
	_, err = io.WriteString(a.Conn, "in and out")
	assert.NilError(t, err)
	assert.NilError(t, a.CloseWrite())
	var stdout bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, io.Discard, a.Reader)
	assert.NilError(t, err)
	assert.Equal(t, stdout.String(), "in and out")
}

func TestClientExecutesInATerminal(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	id := execIn(t, c, client.ExecCreateOptions{Cmd: []string{"cat"}, AttachStdin: true, AttachStdout: true, TTY: true, DetachKeys: "ctrl-x,q"})
	a, err := c.ExecAttach(t.Context(), id, client.ExecAttachOptions{TTY: true, ConsoleSize: client.ConsoleSize{Height: 24, Width: 80}})
	assert.NilError(t, err)
	defer a.Close()
	w.containers.mu.Lock() // a session's answer goes past net/http: that orders nothing
	assert.DeepEqual(t, w.containers.exec.started.ConsoleSize, &[2]uint{24, 80})
	w.containers.mu.Unlock()
	_, err = c.ExecResize(t.Context(), id, client.ExecResizeOptions{Height: 25, Width: 81})
	assert.NilError(t, err)
	assert.Equal(t, w.containers.exec.size, [2]uint16{25, 81})
	_, err = io.WriteString(a.Conn, "ab\x18q")
	assert.NilError(t, err)
	_, err = io.ReadAll(a.Reader) // ends: the keys detach
	assert.NilError(t, err)
	_ = w.containers.exec.stdin.Close()
}

// TestClientHearsWhyAnExecFailed: the stream says why, and the exit code can be asked.
func TestClientHearsWhyAnExecFailed(t *testing.T) {
	c := newWorld(t).serve(t).client(t)
	id := execIn(t, c, client.ExecCreateOptions{Cmd: []string{"nosuch"}, AttachStdout: true})
	a, err := c.ExecAttach(t.Context(), id, client.ExecAttachOptions{})
	assert.NilError(t, err)
	defer a.Close()
	var stdout bytes.Buffer
	_, err = stdcopy.StdCopy(&stdout, io.Discard, a.Reader)
	assert.NilError(t, err)
	assert.Equal(t, stdout.String(), "no such command")
	e, err := c.ExecInspect(t.Context(), id, client.ExecInspectOptions{})
	assert.NilError(t, err)
	assert.Equal(t, e.ExitCode, 127)

	_, err = c.ExecStart(t.Context(), id, client.ExecStartOptions{Detach: true})
	assert.ErrorContains(t, err, "") // one that is left alone is refused instead
}
