//go:build integration

package integration

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// follower is a docker command whose output is lines that count.
type follower struct {
	cmd *exec.Cmd
	got chan count
}

// follows starts a docker command whose standard output is to count.
func (l *lab) follows(args ...string) *follower {
	l.t.Helper()
	f := &follower{cmd: l.dockerCmd(args...), got: make(chan count, 1)}
	out, err := f.cmd.StdoutPipe()
	assert.NilError(l.t, err)
	f.cmd.Stderr = os.Stderr
	assert.NilError(l.t, f.cmd.Start())
	go func() { f.got <- countLines(out) }()
	return f
}

// ends waits for its end: how far it counted, and its exit code.
func (f *follower) ends(t *testing.T) (last, code int) {
	t.Helper()
	timer := time.AfterFunc(time.Minute, func() { _ = f.cmd.Process.Kill() })
	defer timer.Stop()
	c := <-f.got
	_ = f.cmd.Wait()
	assert.NilError(t, c.err, f.cmd.Args)
	return c.last, f.cmd.ProcessState.ExitCode()
}

const numbering = `i=0; trap 'stop=1' TERM; while [ -z "$stop" ]; do i=$((i + 1)); echo $i; read -t 0.001 nothing; done; exit 3`

// TestEndWhileAway: a container ends while lrd is away. Its clients get the rest and the code.
func TestEndWhileAway(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.exec("mkdir", truth)
	for _, rm := range []string{"--rm=false", "--rm=true"} {
		name := "ends" + rm[5:]
		f := l.follows("run", rm, "--name", name, "--network", "none", "--volume", truth+":/truth", "busybox", "sh", "-c",
			"until [ -e /truth/go ]; do usleep 1000; done; seq 1 5000; touch /truth/gone; exit 9")
		l.eventually(30*time.Second, "the container runs", func() bool { return strings.Contains(l.docker("ps"), name) })
		waited := l.dockerCmd("wait", name)
		var code bytes.Buffer
		waited.Stdout = &code
		assert.NilError(t, waited.Start())
		l.eventually(30*time.Second, "all wait", func() bool { return l.exec("sh", "-c", "ls /run/lrd/sessions | wc -l") == "3" })
		// A socket unit would start lrd as soon as somebody connects; nobody does. A daemon that cannot start stays away.
		l.exec("sh", "-ec", `
			mkdir -p /run/systemd/system/lrd.service.d
			printf '[Service]\nRestartSec=3\n' >/run/systemd/system/lrd.service.d/slow.conf
			systemctl daemon-reload
			systemctl kill --signal=KILL --kill-who=main lrd.service
			touch `+truth+`/go
			i=0; until [ -e `+truth+`/gone ]; do sleep 0.05; i=$((i+1)); [ $i -lt 200 ]; done
			rm `+truth+`/go `+truth+`/gone
			systemctl --quiet is-active lrd.service && echo "lrd was back too early" >&2 && exit 1
			rm /run/systemd/system/lrd.service.d/slow.conf; systemctl daemon-reload; systemctl start lrd.service`)
		last, exit := f.ends(t)
		assert.Equal(t, last, 5000)
		assert.Equal(t, exit, 9)
		assert.NilError(t, waited.Wait())
		assert.Equal(t, strings.TrimSpace(code.String()), "9")
	}
	l.noSessions()
}

// TestVanishedAndSilentClients: one that is gone when lrd comes back is put away; one that does not read is waited
// for, and slows nobody.
func TestVanishedAndSilentClients(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.docker("run", "--detach", "--interactive", "--name", "counter", "--network", "none", "busybox", "sh", "-c",
		"until [ -e /go ]; do usleep 1000; done; "+numbering)
	gone := l.follows("logs", "--follow", "counter")
	silent := l.follows("attach", "--no-stdin", "counter")
	// docker attach waits for the container's end as well.
	l.eventually(30*time.Second, "both follow", func() bool { return l.exec("sh", "-c", "ls /run/lrd/sessions | wc -l") == "3" })
	l.docker("exec", "counter", "touch", "/go")
	assert.NilError(t, silent.cmd.Process.Signal(syscall.SIGSTOP))
	l.exec("sh", "-ec", `
		mkdir -p /run/systemd/system/lrd.service.d
		printf '[Service]\nRestartSec=2\n' >/run/systemd/system/lrd.service.d/slow.conf
		systemctl daemon-reload; systemctl kill --signal=KILL --kill-who=main lrd.service`)
	assert.NilError(t, gone.cmd.Process.Kill())
	<-gone.got
	_ = gone.cmd.Wait()
	l.exec("sh", "-ec", `rm /run/systemd/system/lrd.service.d/slow.conf; systemctl daemon-reload; systemctl start lrd.service`)
	l.docker("version")
	l.eventually(30*time.Second, "the vanished one is put away", func() bool { return l.exec("sh", "-c", "ls /run/lrd/sessions | wc -l") == "2" })
	l.restart()
	before := l.docker("logs", "--tail=1", "counter")
	l.eventually(30*time.Second, "the container goes on", func() bool { return l.docker("logs", "--tail=1", "counter") != before })
	assert.NilError(t, silent.cmd.Process.Signal(syscall.SIGCONT))
	l.docker("stop", "counter")
	_, code := silent.ends(t)
	assert.Equal(t, code, 3)
	l.noSessions()
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
	l.eventually(30*time.Second, "both listen", func() bool { return l.exec("sh", "-c", "ls /run/lrd/sessions | wc -l") == "2" })
	l.kill9()
	r := l.tryDocker("events")
	assert.Assert(t, r.code != 0 && strings.Contains(r.stderr, "max-sessions"), "%v", r)
	for _, cmd := range cmds {
		assert.NilError(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
	l.noSessions()
}
