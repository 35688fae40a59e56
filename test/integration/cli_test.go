//go:build integration

package integration

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// The tests in the files cli_*_test.go hold lrd to what dockerd does, as the docker client shows it: output, exit
// codes, and the sentences of refusals. Most are run with the new client and with the old one; one lab serves many
// of them, and each removes its containers.

// in is the lab for a subtest.
func (l *lab) in(t *testing.T) *lab {
	other := *l
	other.t = t
	return &other
}

// clients runs test as a subtest for each of the two clients, in this lab.
func (l *lab) clients(name string, test func(t *testing.T, l *lab)) {
	l.t.Helper()
	for client, l := range map[string]*lab{"new": l, "old": l.old()} {
		l.t.Run(name+"/"+client, func(t *testing.T) {
			l := l.in(t)
			defer l.removeAll()
			test(t, l)
		})
	}
}

// newest runs test as a subtest with the new client, in this lab.
func (l *lab) newest(name string, test func(t *testing.T, l *lab)) {
	l.t.Helper()
	l.t.Run(name, func(t *testing.T) {
		l := l.in(t)
		defer l.removeAll()
		test(t, l)
	})
}

// removeAll removes all containers, so that names are free again.
func (l *lab) removeAll() {
	l.t.Helper()
	if ids := strings.Fields(l.docker("ps", "--all", "--quiet", "--no-trunc")); len(ids) > 0 {
		l.docker(append([]string{"rm", "--force", "--volumes"}, ids...)...)
	}
}

// refused runs a docker command that has to fail with this exit code, and a message that contains all of want.
func (l *lab) refused(code int, want []string, args ...string) {
	l.t.Helper()
	r := l.tryDocker(args...)
	assert.Check(l.t, is.Equal(r.code, code), "docker %s: %s", strings.Join(args, " "), r)
	for _, w := range want {
		assert.Check(l.t, is.Contains(r.stderr, w), "docker %s", strings.Join(args, " "))
	}
}

// bytesOf runs a docker command with an input, and gives back both its outputs, to the byte.
func (l *lab) bytesOf(stdin []byte, args ...string) (stdout, stderr []byte) {
	l.t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(l.t.Context(), commandTimeout)
	defer cancel()
	docker := l.dockerCmd(args...)
	cmd := exec.CommandContext(ctx, docker.Path, docker.Args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = docker.Env, &out, &errs
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	if err := cmd.Run(); err != nil {
		l.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, errs.Bytes())
	}
	return out.Bytes(), errs.Bytes()
}

// growing is what a command has written so far.
type growing struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (g *growing) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.Write(p)
}

func (g *growing) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.String()
}

// status waits until a container has this status.
func (l *lab) status(ref string, want container.ContainerState) {
	l.t.Helper()
	l.eventually(30*time.Second, ref+" is "+string(want), func() bool { return l.inspect(ref).State.Status == want })
}

// said waits until a container's output contains want.
func (l *lab) said(ref, want string) {
	l.t.Helper()
	l.eventually(30*time.Second, ref+" says "+want, func() bool {
		r := l.tryDocker("logs", ref)
		return strings.Contains(r.stdout+r.stderr, want)
	})
}

func TestCLIRun(t *testing.T) {
	t.Parallel()
	l := boot(t)

	l.clients("streams apart", func(t *testing.T, l *lab) {
		out, errs := l.bytesOf(nil, "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
		assert.Equal(t, string(out), "out\n")
		assert.Equal(t, string(errs), "err\n")
		assert.Equal(t, l.docker("ps", "--all", "--quiet"), "", "--rm has left a container")
	})

	l.newest("detached", func(t *testing.T, l *lab) {
		id := l.docker("run", "--detach", "--name", "dd", "busybox", "sleep", "1000")
		assert.Assert(t, is.Regexp("^[0-9a-f]{64}$", id))
		assert.Equal(t, l.docker("ps", "--quiet", "--no-trunc"), id)
		for _, ref := range []string{"dd", "/dd", id, id[:12], id[:5]} {
			assert.Equal(t, l.docker("inspect", "--format", "{{.Id}} {{.Name}} {{.State.Status}}", ref), id+" /dd running")
		}
	})

	l.clients("exit codes", func(t *testing.T, l *lab) {
		for _, c := range []struct {
			code int
			says string
			args []string
		}{
			{0, "", []string{"run", "busybox", "true"}},
			{7, "", []string{"run", "busybox", "sh", "-c", "exit 7"}},
			{255, "", []string{"run", "busybox", "sh", "-c", "exit 255"}},
			{7, "", []string{"run", "--rm", "busybox", "sh", "-c", "exit 7"}},
			{7, "", []string{"run", "--rm", "--tty", "busybox", "sh", "-c", "exit 7"}},
			// What is wrong with the request, with the command, and with its name.
			{125, "invalid reference format", []string{"run", "BUSYBOX", "true"}},
			{125, "unknown flag", []string{"run", "--no-such-flag", "busybox", "true"}},
			{125, "no-such-user", []string{"run", "--user", "no-such-user", "busybox", "true"}},
			{126, "permission denied", []string{"run", "busybox", "/etc/passwd"}},
			{126, "", []string{"run", "busybox", "/etc"}},
			{127, "no-such-command", []string{"run", "busybox", "no-such-command"}},
			{127, "no such file or directory", []string{"run", "busybox", "/no/such/command"}},
			{127, "no-such-command", []string{"run", "--detach", "busybox", "no-such-command"}},
		} {
			r := l.tryDocker(c.args...)
			assert.Check(t, is.Equal(r.code, c.code), "docker %s: %s", strings.Join(c.args, " "), r)
			assert.Check(t, is.Contains(r.stderr, c.says))
		}
		// A container that could not be started is there, and says why.
		last := l.docker("ps", "--latest", "--quiet")
		assert.Equal(t, l.inspect(last).State.Status, container.StateCreated)
		assert.Equal(t, l.inspect(last).State.ExitCode, 127)
		assert.Check(t, is.Contains(l.inspect(last).State.Error, "no-such-command"))
	})

	l.newest("a name that is taken", func(t *testing.T, l *lab) {
		id := l.docker("create", "--name", "taken", "busybox")
		l.refused(125, []string{"Conflict", `The container name "/taken" is already in use by container "` + id}, "run", "--name", "taken", "busybox")
	})

	l.clients("killed", func(t *testing.T, l *lab) {
		done := make(chan result, 1)
		go func() { done <- l.tryDocker("run", "--name", "kk", "busybox", "sleep", "1000") }()
		l.eventually(30*time.Second, "k runs", func() bool { return l.tryDocker("kill", "kk").code == 0 })
		assert.Equal(t, (<-done).code, 137)
		assert.Equal(t, l.docker("wait", "kk"), "137")
	})

	l.newest("interrupted", func(t *testing.T, l *lab) {
		// The client forwards the signals that it gets.
		cmd := l.dockerCmd("run", "--name", "ii", "busybox", "sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.1; done")
		assert.NilError(t, cmd.Start())
		l.eventually(30*time.Second, "i is ready", func() bool { return l.tryDocker("logs", "ii").stdout == "ready" })
		assert.NilError(t, cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait()
		assert.Equal(t, cmd.ProcessState.ExitCode(), 9)
	})

	l.clients("input from a pipe", func(t *testing.T, l *lab) {
		data := bytes.Repeat([]byte("0123456789abcde\n"), 10<<20/16)
		out, _ := l.bytesOf(data, "run", "--interactive", "--rm", "busybox", "wc", "-c")
		assert.Equal(t, strings.TrimSpace(string(out)), strconv.Itoa(len(data)))
		out, _ = l.bytesOf(data, "run", "--interactive", "--rm", "busybox", "cat")
		assert.Assert(t, bytes.Equal(out, data), "%d bytes came back of %d", len(out), len(data))
		out, _ = l.bytesOf([]byte{}, "run", "--interactive", "--rm", "busybox", "wc", "-c")
		assert.Equal(t, strings.TrimSpace(string(out)), "0")
	})

	l.clients("create, start and attach", func(t *testing.T, l *lab) {
		l.docker("create", "--interactive", "--name", "cc", "busybox", "sh", "-c", "cat; exit 5")
		r := l.run(l.dockerCmd("start", "--attach", "--interactive", "cc"), []byte("hello\n"))
		assert.Equal(t, r.code, 5, r)
		assert.Equal(t, r.stdout, "hello")
		// Again: a container that ran can be started.
		r = l.run(l.dockerCmd("start", "--attach", "--interactive", "cc"), []byte("again\n"))
		assert.Equal(t, r.code, 5, r)
		assert.Equal(t, r.stdout, "again")
		assert.Equal(t, l.docker("logs", "cc"), "hello\nagain")
	})

	l.clients("attach", func(t *testing.T, l *lab) {
		l.docker("run", "--detach", "--interactive", "--name", "aa", "busybox", "sh", "-c", "echo before; read line; echo got $line; exit 6")
		l.said("aa", "before")
		r := l.run(l.dockerCmd("attach", "aa"), []byte("word\n"))
		// Attach begins now: what was said before is for docker logs.
		assert.Check(t, !strings.Contains(r.stdout, "before"))
		l.said("aa", "got word")
		assert.Equal(t, l.docker("wait", "aa"), "6")
		l.refused(1, []string{"cannot attach to a stopped container"}, "attach", "aa")
	})

	l.newest("attach without input", func(t *testing.T, l *lab) {
		l.docker("run", "--detach", "--name", "aa", "busybox", "sh", "-c", "trap 'echo bye; exit 8' TERM; while :; do sleep 0.1; echo tick; done")
		cmd := l.dockerCmd("attach", "--no-stdin", "--sig-proxy=false", "aa")
		var out growing
		cmd.Stdout = &out
		assert.NilError(t, cmd.Start())
		// Any line shows that the client is attached, and then it will see the end.
		l.eventually(30*time.Second, "the client is attached", func() bool { return out.String() != "" })
		l.docker("stop", "aa")
		_ = cmd.Wait()
		assert.Equal(t, cmd.ProcessState.ExitCode(), 8)
		assert.Assert(t, strings.HasSuffix(out.String(), "bye\n"), "%q", out.String())
	})
}
