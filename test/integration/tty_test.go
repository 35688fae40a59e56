//go:build integration

package integration

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// leave is one way in which lrd is away for a while.
type leave struct {
	name string
	do   func(l *lab)
}

var leaves = []leave{
	{"restart", (*lab).restart},
	{"SIGKILL", (*lab).kill9},
	{"stop and start", func(l *lab) {
		l.stop()
		time.Sleep(500 * time.Millisecond) // for what is written meanwhile
		l.start()
	}},
}

// TestConsole is promise 3: a person's shell, and what a program writes to its
// console, over everything that happens to lrd.
func TestConsole(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.docker("run", "-dit", "--name", "shell", "busybox", "sh")
	l.docker("run", "-dt", "--name", "writer", "busybox", "sh", "-c",
		"i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; usleep 200; done")
	tm := l.attach("shell")
	tm.shell("X=forty-two; stty intr ^B")
	for i, away := range leaves {
		tm.close()
		pid := l.inspect("shell").State.Pid
		away.do(l)

		tm = l.attach("shell")
		tm.send("echo value=$X.\r")
		tm.expect("value=forty-two.")
		tm.send("stty -a\r") // settings are as the program left them
		tm.expect("intr = ^B")

		// The size goes from the client's terminal to the container's.
		tm.resize(uint16(30+i), uint16(100+i))
		tm.shell("until [ \"$(stty size)\" = '" + fmt.Sprintf("%d %d", 30+i, 100+i) + "' ]; do usleep 10000; done")

		// It is a controlling terminal: there is job control, and keys make signals.
		tm.sleeps(l, 1000)
		tm.send("\x02")
		tm.shell("echo code=$?.")
		tm.losesJob(l)
		tm.shell("true </dev/tty")

		state := l.inspect("shell").State
		assert.Equal(t, state.Pid, pid, "after %s", away.name)
		assert.Equal(t, state.Error, "", "after %s", away.name)
	}
	tm.detach()
	l.wholeLines("writer", 1000)

	tm = l.attach("shell")
	tm.send("exit 5\r")
	assert.Equal(t, tm.wait(), 5)
	l.docker("rm", "--force", "shell", "writer")
	l.assertClean()
}

// wholeLines checks that a container with a console has written 1, 2, 3 and so
// on, at least to min. It ends the container by the file /stop.
func (l *lab) wholeLines(name string, min int) {
	l.t.Helper()
	l.eventually(time.Minute, fmt.Sprint(name, " comes to ", min), func() bool {
		n, err := strconv.Atoi(l.docker("logs", "--tail", "1", name))
		return err == nil && n >= min // a line may be half of one
	})
	pid := l.inspect(name).State.Pid
	l.exec("touch", fmt.Sprintf("/proc/%d/root/stop", pid))
	assert.Equal(l.t, l.docker("wait", name), "0")
	// A console makes "\r\n" of "\n".
	out := l.docker("logs", name) + "\n"
	assert.Equal(l.t, strings.Count(out, "\r\n"), strings.Count(out, "\n")-1, "the last is cut off by the test")
	last := checkCount(l.t, strings.NewReader(strings.ReplaceAll(out, "\r\n", "\n")))
	assert.Assert(l.t, last >= min, "%s came to %d, and there are %d in its log", name, min, last)
}

// TestRunInTerminal is `docker run -it`, as a person does it.
func TestRunInTerminal(t *testing.T) {
	t.Parallel()
	l := boot(t)
	for _, l := range []*lab{l, l.old()} {
		tm := l.atTerminal("run", "-it", "--rm", "--name", "person", "busybox", "sh")
		tm.shell("")
		tm.resize(40, 132)
		tm.shell("until [ \"$(stty size)\" = '40 132' ]; do usleep 10000; done; echo $TERM >/dev/tty")
		tm.send("exit 3\r")
		assert.Equal(t, tm.wait(), 3)
	}
	l.assertClean()
}

// TestInputStaysOpen is for containers without a terminal that read: to be away
// must not look like an end of their input.
func TestInputStaysOpen(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.docker("run", "-di", "--name", "reader", "busybox", "sh", "-c", `while read line; do echo "got $line"; done; echo "end of input"`)
	var want []string
	for i, away := range leaves {
		away.do(l)
		line := fmt.Sprintf("line %d", i)
		want = append(want, "got "+line)
		cmd := l.dockerCmd("attach", "reader")
		in, err := cmd.StdinPipe()
		assert.NilError(t, err)
		assert.NilError(t, cmd.Start())
		_, err = in.Write([]byte(line + "\n"))
		assert.NilError(t, err)
		l.eventually(20*time.Second, "the container reads "+line, func() bool {
			return l.docker("logs", "reader") == strings.Join(want, "\n")
		})
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		assert.Equal(t, l.inspect("reader").State.Status, container.StateRunning)
	}
}

// systemd is the version of the lab's systemd.
func (l *lab) systemd() (version int) {
	l.t.Helper()
	_, err := fmt.Sscanf(l.exec("systemctl", "--version"), "systemd %d", &version)
	assert.NilError(l.t, err)
	return version
}

// TestConsoleOfNextRun is a container that ends while lrd is stopped and that
// systemd starts again: the console of the new run waits for lrd.
func TestConsoleOfNextRun(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.exec("mkdir", truth)
	l.docker("run", "-dit", "--name", "again", "--restart", "always", "--volume", truth+":/truth", "busybox", "sh", "-c",
		"echo begin >>/truth/begun; echo run $(wc -l </truth/begun); [ -e /truth/second ] || { until [ -e /truth/go ]; do usleep 10000; done; : >/truth/second; echo last words; exit 3; }; exec sh")
	l.said("again", "run 1")
	l.stop()
	l.writeFile(truth+"/go", "")
	l.eventually(30*time.Second, "it runs a second time", func() bool { return l.readFile(truth+"/begun") == "begin\nbegin\n" })
	l.start()
	l.said("again", "run 2")
	assert.Check(t, is.Contains(l.docker("logs", "again"), "last words"))
	assert.Equal(t, l.inspect("again").RestartCount, 1)
	assert.Equal(t, l.inspect("again").State.Error, "")
	l.attach("again").shell("true")
	l.docker("rm", "--force", "again")
	l.assertClean()
}
