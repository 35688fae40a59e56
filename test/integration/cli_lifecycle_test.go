//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// ticking is a container's command that lives until it is told to end, and then ends with 3.
var ticking = []string{"sh", "-c", "trap 'echo terminated; exit 3' TERM; trap 'echo user signal' USR1; echo ready; while :; do sleep 0.1; done"}

// tick starts a container of that command, with these flags, and waits until its traps are set.
func (l *lab) tick(name string, flags ...string) string {
	l.t.Helper()
	args := append([]string{"run", "--detach", "--name", name}, flags...)
	id := l.docker(append(append(args, "busybox"), ticking...)...)
	l.said(name, "ready")
	return id
}

func TestCLILifecycle(t *testing.T) {
	t.Parallel()
	l := boot(t)

	l.clients("stop", func(t *testing.T, l *lab) {
		l.tick("term")
		assert.Equal(t, l.docker("stop", "term"), "term")
		assert.Equal(t, l.inspect("term").State.ExitCode, 3)
		assert.Equal(t, l.docker("logs", "term"), "ready\nterminated")
		l.docker("stop", "term") // not running: nothing to do

		// A first process without a handler does not see a signal; the kill comes after the grace period.
		l.docker("run", "--detach", "--name", "deaf", "busybox", "sleep", "1000")
		l.docker("stop", "--time", "1", "deaf")
		assert.Equal(t, l.inspect("deaf").State.ExitCode, 137)
		l.docker("run", "--detach", "--name", "deaf2", "--stop-timeout", "0", "busybox", "sleep", "1000")
		l.docker("stop", "deaf2")
		assert.Equal(t, l.inspect("deaf2").State.ExitCode, 137)

		l.docker("run", "--detach", "--name", "hup", "--stop-signal", "HUP", "busybox", "sh", "-c", "trap 'exit 4' HUP; echo ready; while :; do sleep 0.1; done")
		l.said("hup", "ready")
		l.docker("stop", "hup")
		assert.Equal(t, l.inspect("hup").State.ExitCode, 4)
		l.refused(1, []string{"No such container: nobody"}, "stop", "nobody")
	})

	l.newest("stop with a signal", func(t *testing.T, l *lab) {
		l.docker("run", "--detach", "--name", "usr2", "busybox", "sh", "-c", "trap 'exit 5' USR2; echo ready; while :; do sleep 0.1; done")
		l.said("usr2", "ready")
		l.docker("stop", "--signal", "SIGUSR2", "usr2")
		assert.Equal(t, l.inspect("usr2").State.ExitCode, 5)
	})

	l.clients("kill", func(t *testing.T, l *lab) {
		l.tick("kk")
		l.docker("kill", "--signal", "USR1", "kk")
		l.said("kk", "user signal")
		l.docker("kill", "--signal", "10", "kk")
		l.eventually(30*time.Second, "a second signal", func() bool { return strings.Count(l.docker("logs", "kk"), "user signal") == 2 })
		assert.Equal(t, l.inspect("kk").State.Status, container.StateRunning)
		l.refused(1, []string{"invalid signal: NONSENSE"}, "kill", "--signal", "NONSENSE", "kk")
		l.refused(1, []string{"invalid signal: 99"}, "kill", "--signal", "99", "kk")
		assert.Equal(t, l.docker("kill", "kk"), "kk")
		l.status("kk", container.StateExited)
		assert.Equal(t, l.inspect("kk").State.ExitCode, 137)
		l.refused(1, []string{"is not running"}, "kill", "kk")
	})

	l.newest("restart", func(t *testing.T, l *lab) {
		id := l.tick("re")
		before := l.inspect("re")
		assert.Equal(t, l.docker("restart", "re"), "re")
		after := l.inspect("re")
		assert.Equal(t, after.ID, id)
		assert.Equal(t, after.State.Status, container.StateRunning)
		assert.Check(t, after.State.Pid != before.State.Pid)
		assert.Check(t, after.State.StartedAt > before.State.StartedAt)
		assert.Equal(t, after.RestartCount, 0, "a person's restart does not count")
		l.eventually(30*time.Second, "both runs are in the log", func() bool { return l.docker("logs", "re") == "ready\nterminated\nready" })
		l.docker("stop", "re")
		l.docker("restart", "re")
		l.status("re", container.StateRunning)
	})

	l.newest("pause", func(t *testing.T, l *lab) {
		l.docker("run", "--detach", "--name", "pp", "busybox", "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done")
		l.said("pp", "3")
		assert.Equal(t, l.docker("pause", "pp"), "pp")
		assert.Check(t, is.Contains(l.docker("ps", "--format", "{{.Status}}"), "(Paused)"))
		assert.Equal(t, l.docker("ps", "--quiet", "--filter", "status=paused"), l.docker("ps", "--quiet"))
		state := l.inspect("pp").State
		assert.Check(t, state.Paused && state.Running && state.Status == container.StatePaused, "%+v", state)
		var lines string // once what it had written is in the log
		l.eventually(30*time.Second, "the log rests", func() bool {
			before := lines
			lines = l.docker("logs", "pp")
			return lines == before
		})
		time.Sleep(200 * time.Millisecond) // that nothing happens can only be watched
		assert.Equal(t, l.docker("logs", "pp"), lines)
		l.refused(1, []string{" is already paused"}, "pause", "pp")
		l.docker("unpause", "pp")
		l.eventually(30*time.Second, "it counts on", func() bool { return len(l.docker("logs", "pp")) > len(lines) })
		l.refused(1, []string{" is not paused"}, "unpause", "pp")
		// Stop and kill get through to a paused one.
		l.docker("pause", "pp")
		l.docker("stop", "--time", "1", "pp")
		l.status("pp", container.StateExited)
		l.refused(1, []string{" is not running"}, "pause", "pp")
	})

	l.clients("wait", func(t *testing.T, l *lab) {
		l.docker("run", "--detach", "--name", "w1", "busybox", "sh", "-c", "read x </dev/null; sleep 0.3; exit 11")
		l.docker("run", "--detach", "--name", "w2", "busybox", "sh", "-c", "exit 12")
		assert.Equal(t, l.docker("wait", "w1", "w2"), "11\n12")
		assert.Equal(t, l.docker("wait", "w1"), "11", "one that has ended already")
		l.refused(1, []string{"No such container: w3"}, "wait", "w3")
	})

	l.newest("rename", func(t *testing.T, l *lab) {
		id := l.tick("before")
		l.docker("rename", "before", "after")
		assert.Equal(t, l.inspect("after").ID, id)
		assert.Equal(t, l.docker("ps", "--format", "{{.Names}}"), "after")
		l.docker("create", "--name", "before", "busybox")
		l.refused(1, []string{`"/before" is already in use`}, "rename", "after", "before")
		l.refused(1, []string{"Invalid container name"}, "rename", "after", "no/slash")
		assert.Check(t, is.Contains(l.exec("systemctl", "show", "--property=Description", "lrd-"+id+".service"), "busybox"))
	})

	l.clients("remove", func(t *testing.T, l *lab) {
		id := l.tick("rm")
		l.refused(1, []string{"cannot remove container", "container is running: stop the container before removing or force remove"}, "rm", "rm")
		assert.Equal(t, l.docker("rm", "--force", "rm"), "rm")
		assert.Equal(t, l.docker("ps", "--all", "--quiet"), "")
		assert.Check(t, l.tryExec("test", "-e", "/var/lib/lrd/containers/"+id).code != 0, "its directory is left")
		l.eventually(20*time.Second, "its unit is collected", func() bool {
			return l.exec("systemctl", "show", "--property=LoadState", "--value", "lrd-"+id+".service") == "not-found"
		})
		l.refused(1, []string{"No such container: rm"}, "rm", "rm")
	})

	l.clients("inspect", func(t *testing.T, l *lab) {
		id := l.tick("ins", "--label", "a=b", "--env", "X=y")
		var all []container.InspectResponse
		assert.NilError(t, json.Unmarshal([]byte(l.docker("inspect", "ins")), &all))
		c := all[0]
		assert.Equal(t, c.ID, id)
		assert.Equal(t, c.Name, "/ins")
		assert.Equal(t, c.Path, "sh")
		assert.Equal(t, c.Config.Image, "busybox")
		assert.Equal(t, c.Config.Labels["a"], "b")
		assert.Equal(t, c.Config.Hostname, id[:12])
		assert.Check(t, is.Contains(c.Config.Env, "X=y"))
		assert.Check(t, is.Equal(c.HostConfig.RestartPolicy.Name, container.RestartPolicyDisabled))
		assert.Check(t, c.State.Running && c.State.Pid > 1)
		_, err := time.Parse(time.RFC3339Nano, c.Created)
		assert.NilError(t, err)
		l.refused(1, []string{"o such object: nobody"}, "inspect", "nobody") // "No" in 20.10, "no" later
		assert.Check(t, is.Regexp("^[0-9]+$", l.docker("inspect", "--size", "--format", "{{.SizeRw}}", "ins")))
	})

	l.newest("top", func(t *testing.T, l *lab) {
		l.docker("run", "--detach", "--name", "tt", "busybox", "sh", "-c", "sleep 1234; true")
		l.eventually(30*time.Second, "both processes", func() bool {
			return strings.Contains(l.docker("top", "tt"), "sleep 1234\n") || strings.HasSuffix(l.docker("top", "tt"), "sleep 1234")
		})
		lines := strings.Split(l.docker("top", "tt"), "\n")
		assert.Equal(t, len(lines), 3, "%q", lines)
		assert.Check(t, is.Regexp(`^UID +PID +PPID `, lines[0]))
		lines = strings.Split(l.docker("top", "tt", "-o", "pid,comm"), "\n")
		assert.Check(t, is.Regexp(`^PID +COMMAND`, lines[0]))
		l.docker("kill", "tt")
		l.status("tt", container.StateExited)
		l.refused(1, []string{"is not running"}, "top", "tt")
	})

	l.newest("removal by itself", func(t *testing.T, l *lab) {
		l.docker("run", "--detach", "--rm", "--name", "gone", "busybox", "true")
		l.eventually(30*time.Second, "--rm removes it", func() bool { return l.docker("ps", "--all", "--quiet") == "" })
	})
}

// TestCLITerminal has a person at a terminal of 40 lines and 100 columns.
func TestCLITerminal(t *testing.T) {
	t.Parallel()
	l := boot(t)

	l.clients("run", func(t *testing.T, l *lab) {
		tty := l.terminal("run", "--interactive", "--tty", "--name", "tty", "busybox", "sh")
		tty.types("echo $((6*7)) is the answer\n", "42 is the answer")
		tty.types("test -t 0 && test -t 1 && test -t 2 && echo all$((1)) are terminals\n", "all1 are terminals")
		// A client tells the size once the shell runs.
		tty.types("until [ \"$(stty size)\" = '40 100' ]; do usleep 10000; done; echo the $((1))st size\n", "the 1st size")
		assert.NilError(t, pty.Setsize(tty.master, &pty.Winsize{Rows: 30, Cols: 90}))
		tty.types("until [ \"$(stty size)\" = '30 90' ]; do usleep 10000; done; echo the $((2))nd size\n", "the 2nd size")
		tty.types("exit 3\n", "")
		assert.Equal(t, tty.wait(), 3)
	})

	l.clients("interrupt", func(t *testing.T, l *lab) {
		tty := l.terminal("run", "--interactive", "--tty", "--name", "int", "busybox", "sh", "-c", "trap 'echo; echo caught it; exit 6' INT; echo ready; while :; do sleep 0.1; done")
		tty.until("it is ready", func() bool { return tty.has("ready") })
		tty.types("\x03", "caught it")
		assert.Equal(t, tty.wait(), 6)
	})

	l.newest("detach and attach again", func(t *testing.T, l *lab) {
		tty := l.terminal("run", "--interactive", "--tty", "--name", "det", "busybox", "sh")
		tty.types("x=kept; echo $((1+1))\n", "2")
		tty.types("\x10\x11", "") // the detach keys: ctrl-p ctrl-q
		assert.Equal(t, tty.wait(), 0)
		l.status("det", container.StateRunning)
		tty = l.terminal("attach", "--detach-keys", "ctrl-x", "det")
		tty.types("echo $x it is\n", "kept it is")
		tty.types("\x18", "")
		tty.wait()
		l.status("det", container.StateRunning)
		tty = l.terminal("attach", "det")
		tty.types("exit 4\n", "")
		assert.Equal(t, tty.wait(), 4)
	})

	l.newest("start", func(t *testing.T, l *lab) {
		l.docker("create", "--interactive", "--tty", "--name", "st", "busybox", "sh")
		for range 2 {
			tty := l.terminal("start", "--attach", "--interactive", "st")
			tty.types("echo $((40+2))\n", "42")
			tty.types("exit 5\n", "")
			assert.Equal(t, tty.wait(), 5)
		}
	})
}

// person is somebody at a terminal with a docker client.
type person struct {
	l      *lab
	master *os.File
	seen   growing
	ended  chan int // the exit code
}

// terminal starts a docker command at a terminal.
func (l *lab) terminal(args ...string) *person {
	l.t.Helper()
	cmd := l.dockerCmd(args...)
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 40, Cols: 100})
	assert.NilError(l.t, err)
	l.t.Cleanup(func() { _ = master.Close() })
	p := &person{l: l, master: master, ended: make(chan int, 1)}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			_, _ = p.seen.Write(buf[:n])
			if err != nil {
				break
			}
		}
		_ = cmd.Wait()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			p.ended <- 128 + int(status.Signal())
			return
		}
		p.ended <- cmd.ProcessState.ExitCode()
	}()
	return p
}

func (p *person) write(text string) {
	p.l.t.Helper()
	_, err := p.master.WriteString(text)
	assert.NilError(p.l.t, err)
}

// has says whether a whole line that was shown is, or ends with, text; what was typed is echoed, and does not count.
func (p *person) has(text string) bool {
	return regexp.MustCompile(`(?m)(^|\r)` + regexp.QuoteMeta(text) + `\r?$`).MatchString(p.seen.String())
}

func (p *person) until(what string, cond func() bool) {
	p.l.t.Helper()
	for deadline := time.Now().Add(terminalLimit); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.l.t.Fatalf("the terminal: %s: not in time; it shows %q", what, p.seen.String())
		}
	}
}

// types types text and waits for the line want, if it is not empty.
func (p *person) types(text, want string) {
	p.l.t.Helper()
	p.write(text)
	if want != "" {
		p.until(fmt.Sprintf("%q after %q", want, text), func() bool { return p.has(want) })
	}
}

// wait is the client's exit code.
func (p *person) wait() int {
	p.l.t.Helper()
	select {
	case code := <-p.ended:
		return code
	case <-time.After(terminalLimit):
		p.l.t.Fatalf("the client does not end; the terminal shows %q", p.seen.String())
		return 0
	}
}
