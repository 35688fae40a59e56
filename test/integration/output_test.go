//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
)

// writer is a container that counts: 1, 2, 3 and so on, one to a line.
type writer struct {
	name string
	args []string // of docker run, before the image
	// script counts in $i until $stop is set, which SIGTERM does.
	script string
	// stderr says that it counts on standard error as well, in step.
	stderr bool
}

// The sleep of a writer is a read that times out: it needs no process, so that
// a line each millisecond is that also on a busy machine.
var writers = []writer{
	{
		name: "flat-out", stderr: true,
		script: `while [ -z "$stop" ]; do i=$((i + 1)); echo $i; echo $i >&2; done`,
	},
	{
		name: "each-ms", stderr: true, args: []string{"--interactive"},
		script: `while [ -z "$stop" ]; do i=$((i + 1)); echo $i; echo $i >&2; read -t 0.001 nothing; done`,
	},
	{
		// Faster than anybody reads, in writes larger than what a pipe takes at once, then a pause. On a slow machine, where
		// the test takes longer, the bursts end, which bounds the volume.
		name: "in-bursts", args: []string{"--interactive"},
		script: `n=50000; while [ -z "$stop" ]; do seq $((i + 1)) $((i + n)); i=$((i + n)); [ $i -lt 6000000 ] || n=10; read -t 0.2 nothing; done`,
	},
}

// truth is where a writer notes, outside of lrd's reach, what it has written.
const truth = "/run/truth"

func (w writer) start(l *lab) {
	l.t.Helper()
	args := []string{"run", "--detach", "--name", w.name, "--network", "none", "--volume", truth + ":/truth"}
	args = append(args, w.args...)
	l.docker(append(args, "busybox", "sh", "-c", "i=0; trap 'stop=1' TERM; "+w.script+"; echo $i >/truth/"+w.name)...)
}

// TestOutputSurvives is promise 3: containers write while lrd is restarted, is
// killed, and stays away for a while. No line may be lost, doubled, torn or out
// of order, and nobody may notice.
func TestOutputSurvives(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.exec("mkdir", truth)
	var before []container.InspectResponse
	for _, w := range writers {
		w.start(l)
		before = append(before, l.inspect(w.name))
	}

	pause := func() { time.Sleep(rand.N(200 * time.Millisecond)) }
	for range 20 {
		pause()
		l.restart()
	}
	for range 20 {
		pause()
		l.kill9()
	}
	l.stop()
	time.Sleep(5 * time.Second)
	l.start()
	pause()

	for i, w := range writers {
		after := l.inspect(w.name)
		assert.Equal(t, after.State.Status, container.StateRunning, w.name)
		assert.Equal(t, after.State.Pid, before[i].State.Pid, w.name)
		assert.Equal(t, after.State.StartedAt, before[i].State.StartedAt, w.name)
		assert.Equal(t, after.RestartCount, 0, w.name)
	}
	for _, w := range writers {
		l.docker("stop", "--time", "100", w.name)
		assert.Equal(t, l.inspect(w.name).State.ExitCode, 0, w.name)
		written, err := strconv.Atoi(strings.TrimSpace(l.readFile(truth + "/" + w.name)))
		assert.NilError(t, err)
		stdout, stderr := l.logged(w.name)
		assert.Equal(t, stdout, written, w.name+", standard output")
		if w.stderr {
			assert.Equal(t, stderr, written, w.name+", standard error")
		}
		t.Logf("%s: %d lines", w.name, written)
		l.docker("rm", w.name)
	}
	l.assertClean()
}

// logged checks what `docker logs` shows of a container that counts, and gives
// back how far each stream came.
func (l *lab) logged(name string) (stdout, stderr int) {
	l.t.Helper()
	cmd := l.dockerCmd("logs", name)
	out, err := cmd.StdoutPipe()
	assert.NilError(l.t, err)
	errs, err := cmd.StderrPipe()
	assert.NilError(l.t, err)
	assert.NilError(l.t, cmd.Start())
	counted := make(chan count, 1)
	go func() { counted <- countLines(errs) }()
	fromOut := countLines(out)
	fromErr := <-counted
	assert.NilError(l.t, cmd.Wait())
	assert.NilError(l.t, fromOut.err, name+", standard output")
	assert.NilError(l.t, fromErr.err, name+", standard error")
	return fromOut.last, fromErr.last
}

// TestOutputRaw is about bytes rather than lines: what is not UTF-8, holds
// zeros, and does not end with a newline comes out as it went in.
func TestOutputRaw(t *testing.T) {
	t.Parallel()
	l := boot(t)
	const size = 3 << 20
	l.exec("mkdir", truth)
	l.docker("run", "--detach", "--name", "raw", "--network", "none", "--volume", truth+":/truth", "busybox", "sh", "-c",
		fmt.Sprintf("head -c %d /dev/urandom >/truth/raw; until [ -e /truth/go ]; do usleep 1000; done; cat /truth/raw; cat /truth/raw >&2", size))
	l.writeFile(truth+"/go", "")
	for range 3 {
		l.kill9()
	}
	assert.Equal(t, l.docker("wait", "raw"), "0")
	want := l.readFile(truth + "/raw")
	assert.Equal(t, len(want), size)
	for _, options := range [][]string{nil, {"--follow"}} {
		var stdout, stderr strings.Builder
		cmd := l.dockerCmd(append(append([]string{"logs"}, options...), "raw")...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		assert.NilError(t, cmd.Run())
		assert.Assert(t, stdout.String() == want, "standard output, %d of %d bytes, %v", stdout.Len(), size, options)
		assert.Assert(t, stderr.String() == want, "standard error, %d of %d bytes, %v", stderr.Len(), size, options)
	}
}

// TestOutputOfRemoved is for a client that reads more slowly than the container
// writes. With --rm the container is removed when it has read all; somebody who
// removes it before that takes nothing from it.
func TestOutputOfRemoved(t *testing.T) {
	t.Parallel()
	l := boot(t)
	const lines = 1_000_000
	for _, byPerson := range []bool{false, true} {
		cmd := l.dockerCmd("run", "--rm", "--name", "gone", "--network", "none", "busybox", "seq", strconv.Itoa(lines))
		out, err := cmd.StdoutPipe()
		assert.NilError(t, err)
		assert.NilError(t, cmd.Start())
		first := make([]byte, 1)
		_, err = io.ReadFull(out, first)
		assert.NilError(t, err)
		l.eventually(30*time.Second, "the container is over", func() bool { return l.inspect("gone").State.Status == "exited" })
		if byPerson {
			l.docker("rm", "--force", "gone")
		}
		assert.Equal(t, checkCount(t, io.MultiReader(bytes.NewReader(first), out)), lines)
		assert.NilError(t, cmd.Wait())
		l.eventually(30*time.Second, "the container is removed", func() bool { return l.tryDocker("inspect", "gone").code != 0 })
	}
	l.assertClean()
}
