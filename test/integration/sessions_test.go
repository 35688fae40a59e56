//go:build integration

package integration

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// follower is a docker command whose output is lines that count.
type follower struct {
	cmd  *exec.Cmd
	got  chan count
	read atomic.Int64 // bytes so far
	// again is how often what came last may come once more: see internal/sessions for what a SIGKILL does to what is in flight.
	again int
}

// follows starts a docker command whose standard output is to count.
func (l *lab) follows(args ...string) *follower {
	l.t.Helper()
	return l.followsOver(0, args...)
}

// followsOver is follows over so many SIGKILLs of lrd.
func (l *lab) followsOver(kills int, args ...string) *follower {
	l.t.Helper()
	f := &follower{cmd: l.dockerCmd(args...), got: make(chan count, 1), again: kills}
	out, err := f.cmd.StdoutPipe()
	assert.NilError(l.t, err)
	f.cmd.Stderr = os.Stderr
	assert.NilError(l.t, f.cmd.Start())
	go func() { f.got <- countRepeats(io.TeeReader(out, f)) }()
	return f
}

// Write counts what is read.
func (f *follower) Write(p []byte) (int, error) {
	f.read.Add(int64(len(p)))
	return len(p), nil
}

// ends waits for its end: how far it counted, and its exit code.
func (f *follower) ends(t *testing.T) (last, code int) {
	t.Helper()
	timer := time.AfterFunc(patience*time.Minute, func() { _ = f.cmd.Process.Kill() })
	defer timer.Stop()
	c := <-f.got
	_ = f.cmd.Wait()
	assert.NilError(t, c.err, f.cmd.Args)
	assert.Assert(t, c.again <= f.again, "%q: what was there came again %d times", f.cmd.Args, c.again)
	return c.last, f.cmd.ProcessState.ExitCode()
}

// gated makes lrd come back, when it has gone, no sooner than away lets it.
func (l *lab) gated() {
	l.t.Helper()
	l.writeFile(gate, "")
	l.writeFile("/run/systemd/system/lrd.service.d/gate.conf",
		"[Service]\nExecStartPre=/bin/sh -c 'until [ -e "+gate+" ]; do sleep 0.02; done'\n")
	l.exec("systemctl", "daemon-reload")
}

const gate = "/run/gate"

// away is what happens between the end of one lrd and the start of the next. The lab is gated.
func (l *lab) away(how string, meanwhile func()) {
	l.t.Helper()
	end := "systemctl restart --no-block lrd.service"
	if how == "SIGKILL" {
		end = "systemctl kill --signal=KILL --kill-who=main lrd.service"
	}
	l.exec("sh", "-ec", `rm `+gate+`; old=$(systemctl show --property=MainPID --value lrd.service); `+end+`
		while kill -0 "$old" 2>/dev/null; do sleep 0.01; done`)
	meanwhile()
	l.exec("sh", "-ec", `: >`+gate+`; systemctl start lrd.service`)
}

// TestEndWhileAway: containers, and a command in one, end while lrd is away. Their clients get the rest and the code.
func TestEndWhileAway(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.exec("mkdir", truth)
	l.gated()
	volume := []string{"--network", "none", "--volume", truth + ":/truth"}
	l.docker(append(append([]string{"run", "--detach", "--name", "box"}, volume...), "busybox", "sleep", "100000")...)
	since := fmt.Sprint(time.Now().Unix())
	for _, how := range []string{"restart", "SIGKILL"} {
		script := func(name string) []string {
			return []string{"sh", "-c", "echo 1; until [ -e /truth/go ]; do usleep 1000; done; seq 2 5000; : >/truth/" + name + "; exit 9"}
		}
		clients := map[string]*follower{
			"stays": l.follows(append(append(append([]string{"run", "--name", "stays"}, volume...), "busybox"), script("stays")...)...),
			"goes":  l.follows(append(append(append([]string{"run", "--rm", "--name", "goes"}, volume...), "busybox"), script("goes")...)...),
			"exec":  l.follows(append([]string{"exec", "box"}, script("exec")...)...),
		}
		l.streams(5)
		l.said("stays", "1")
		l.said("goes", "1")
		waited, code := l.dockerCmd("wait", "stays", "goes"), &growing{}
		waited.Stdout = code
		assert.NilError(t, waited.Start())
		l.streams(6) // it waits for one after the other
		l.eventually(30*time.Second, "the command in a container runs", func() bool { return len(l.inspect("box").ExecIDs) == 1 })
		l.eventually(30*time.Second, "the first line is on each client's screen, and on record as that", func() bool {
			return clients["stays"].read.Load() > 0 && clients["goes"].read.Load() > 0 && clients["exec"].read.Load() > 0 && l.halfSent() == 0
		})
		l.away(how, func() {
			l.writeFile(truth+"/go", "")
			l.exec("sh", "-ec", "cd "+truth+"; until [ -e stays ] && [ -e goes ] && [ -e exec ]; do sleep 0.02; done; rm *")
		})
		for name, f := range clients {
			last, exit := f.ends(t)
			assert.Equal(t, last, 5000, "%s, %s", name, how)
			assert.Equal(t, exit, 9, "%s, %s", name, how)
		}
		_ = waited.Wait() // by the time it asks for the second, that may be removed
		assert.Assert(t, strings.HasPrefix(code.String(), "9\n"), "%q", code)
		l.noSessions()
		l.docker("rm", "stays")
	}
	told := l.docker("events", "--since", since, "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "event=exec_die", "--format", "{{.Actor.Attributes.exitCode}}")
	assert.Equal(t, told, "9\n9")
	l.removeAll()
	l.assertClean()
}

// TestVanishedAndSilentClients: one that is gone when lrd comes back is put away, and its input has ended; one that
// does not read is waited for, slows nobody, and gets the rest in the end: from the middle of a frame and of a chunk,
// as it has seen them.
func TestVanishedAndSilentClients(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.exec("mkdir", truth)
	l.gated()
	volume := []string{"--network", "none", "--volume", truth + ":/truth"}
	l.docker(append(append([]string{"run", "--detach", "--name", "box"}, volume...), "busybox", "sleep", "100000")...)
	flood := []string{"sh", "-c", "until [ -e /truth/go ]; do usleep 1000; done; seq 1 1000000; exit 3"}
	silent := []*follower{
		l.follows(append(append(append([]string{"run", "--rm", "--name", "flood"}, volume...), "busybox"), flood...)...),
		l.follows(append([]string{"exec", "box"}, flood...)...),
	}
	l.streams(3)
	l.eventually(30*time.Second, "it runs", func() bool { return l.docker("ps", "--quiet", "--filter", "name=flood") != "" })
	silent = append(silent, l.follows("logs", "--follow", "flood"))
	vanishing := []*exec.Cmd{
		l.dockerCmd("logs", "--follow", "box"),
		l.dockerCmd("exec", "--interactive", "box", "sh", "-c", "cat; : >/truth/ended"),
	}
	for _, cmd := range vanishing {
		_, err := cmd.StdinPipe()
		assert.NilError(t, err)
		assert.NilError(t, cmd.Start())
	}
	l.streams(6)
	l.eventually(30*time.Second, "both commands run", func() bool { return len(l.inspect("box").ExecIDs) == 2 })
	for _, f := range silent {
		assert.NilError(t, f.cmd.Process.Signal(syscall.SIGSTOP))
	}
	l.writeFile(truth+"/go", "")
	// They end, though nobody reads.
	l.eventually(time.Minute, "those who write are done", func() bool {
		return len(l.inspect("box").ExecIDs) == 1 && l.docker("ps", "--quiet", "--filter", "name=flood") == ""
	})
	// All there is, and nobody reads what the client prints.
	l.eventually(30*time.Second, "all is there", func() bool { return l.docker("logs", "--tail=1", "flood") == "1000000" })
	printed := l.dockerCmd("logs", "flood")
	printed.Stderr = os.Stderr
	unread, err := printed.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, printed.Start())
	l.eventually(30*time.Second, "four clients do not read", func() bool { return l.halfSent() == 4 })
	time.Sleep(time.Duration(rounds(t, 0, 60)) * time.Second)
	for _, how := range []string{"SIGKILL", "restart"} {
		l.away(how, func() {
			for _, cmd := range vanishing {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
			vanishing = nil
		})
		l.streams(5)
		assert.Equal(t, l.halfSent(), 4)
	}
	l.eventually(30*time.Second, "the input of a client that vanished ends", func() bool { return l.tryExec("test", "-e", truth+"/ended").code == 0 })
	assert.Equal(t, checkCount(t, unread), 1000000)
	assert.NilError(t, printed.Wait())
	for _, f := range silent {
		assert.NilError(t, f.cmd.Process.Signal(syscall.SIGCONT))
	}
	for i, code := range []int{3, 3, 0} {
		last, exit := silent[i].ends(t)
		assert.Equal(t, last, 1000000)
		assert.Equal(t, exit, code)
	}
	l.noSessions()
	l.removeAll()
	l.assertClean()
}

// halfSent is how many sessions have a piece on record of which not all is sent: see the drawing in internal/sessions.
func (l *lab) halfSent() (n int) {
	l.t.Helper()
	entries, err := os.ReadDir(l.path("/run/lrd/sessions"))
	assert.NilError(l.t, err)
	for _, e := range entries {
		record, err := os.ReadFile(l.path("/run/lrd/sessions/" + e.Name()))
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(record) < 20 {
			continue // it has just ended, or is just beginning
		}
		assert.NilError(l.t, err)
		if length, sent := binary.LittleEndian.Uint32(record[12:]), binary.LittleEndian.Uint32(record[16:]); sent < length {
			n++
		}
	}
	return n
}

// TestMaxSessions: the one too many is told so.
func TestMaxSessions(t *testing.T) {
	t.Parallel()
	l := boot(t, withConfig("max-sessions = 2\n"))
	var cmds []*exec.Cmd
	for range 2 {
		cmd := l.dockerCmd("events")
		assert.NilError(t, cmd.Start())
		cmds = append(cmds, cmd)
	}
	l.streams(2)
	l.kill9()
	l.docker("run", "--detach", "--name", "box", "--network", "none", "busybox", "sleep", "100000")
	for _, refused := range [][]string{{"events"}, {"attach", "box"}, {"exec", "box", "true"}, {"logs", "box"}, {"stats", "box"}, {"wait", "box"}} {
		r := l.tryDocker(refused...)
		want := "max-sessions"
		if refused[0] == "attach" || refused[0] == "exec" {
			want = "received 503" // the client shows no more; the log does
		}
		assert.Assert(t, r.code != 0 && strings.Contains(r.stderr, want), "%q: %v", refused, r)
	}
	assert.Equal(t, len(l.inspect("box").ExecIDs), 1, "what was refused has been started")
	l.docker("exec", "--detach", "box", "true") // nobody is at its other end
	for _, cmd := range cmds {
		assert.NilError(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
	l.noSessions()
}
