//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"gotest.tools/v3/assert"
)

// typist is somebody at a terminal, who types and reads.
type typist struct {
	t   *testing.T
	cmd *exec.Cmd
	tty *os.File

	// mu guards what follows.
	mu   sync.Mutex
	seen bytes.Buffer
	done chan struct{} // closed when the terminal is closed at the other end
}

// sit starts a docker command in a terminal of its own.
func (l *lab) sit(args ...string) *typist {
	l.t.Helper()
	p := &typist{t: l.t, cmd: l.dockerCmd(args...), done: make(chan struct{})}
	tty, err := pty.Start(p.cmd)
	assert.NilError(l.t, err)
	p.tty = tty
	l.t.Cleanup(func() { _ = tty.Close() })
	go func() { // ends with the terminal
		defer close(p.done)
		b := make([]byte, 4096)
		for {
			n, err := tty.Read(b)
			p.mu.Lock()
			p.seen.Write(b[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *typist) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

// types a line and waits until the terminal shows want, how often says since when: what was there before does not count.
func (p *typist) types(line, want string) {
	p.t.Helper()
	before := len(p.text())
	_, err := io.WriteString(p.tty, line+"\n")
	assert.NilError(p.t, err)
	p.sees(before, want)
}

func (p *typist) sees(from int, want string) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text := p.text()
		if strings.Contains(text[from:], want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the terminal does not show %q but %q", want, text)
		}
	}
}

// leaves waits for the command's end and gives back its exit code.
func (p *typist) leaves() int {
	p.t.Helper()
	timer := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	_ = p.cmd.Wait()
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// interruptions are the ways in which lrd goes away. How often each comes.
func (l *lab) interruptions(times int, between func(n int)) {
	l.t.Helper()
	n := 0
	for range times {
		l.restart()
		between(n)
		n++
	}
	for range times {
		l.kill9()
		between(n)
		n++
	}
}

// TestShellSurvives is promise 6 as its person sees it.
func TestShellSurvives(t *testing.T) {
	t.Parallel()
	l := boot(t)
	p := l.sit("run", "--rm", "-it", "--name", "shell", "--network", "none", "busybox", "sh")
	p.sees(0, "# ")
	p.types("x=1; echo value-$x", "value-1\r\n")
	l.interruptions(10, func(n int) {
		p.types("x=$((x + 1)); echo value-$x", fmt.Sprintf("value-%d\r\n", n+2))
	})
	// The size of the window reaches the container as before.
	assert.NilError(t, pty.Setsize(p.tty, &pty.Winsize{Rows: 33, Cols: 77}))
	l.eventually(30*time.Second, "the window's size", func() bool {
		before := len(p.text())
		p.types("stty size; echo as-shown", "as-shown\r\n")
		return strings.Contains(p.text()[before:], "33 77")
	})
	_, err := io.WriteString(p.tty, "exit 7\n")
	assert.NilError(t, err)
	assert.Equal(t, p.leaves(), 7, p.text())
	assert.Equal(t, strings.Count(p.text(), "value-21\r\n"), 1, "seen twice")
	l.eventually(30*time.Second, "--rm", func() bool { return l.docker("ps", "--all", "--quiet") == "" })
	l.noSessions()
	l.assertClean()
}

// noSessions waits until no session is left in systemd's store and on disk.
func (l *lab) noSessions() {
	l.t.Helper()
	l.eventually(30*time.Second, "sessions are put away", func() bool {
		return l.exec("sh", "-c", "ls /run/lrd/sessions 2>/dev/null | wc -l") == "0"
	})
}

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

// TestStreamsSurviveRestarts: whoever follows a container goes on, byte for byte, and learns its exit code.
func TestStreamsSurviveRestarts(t *testing.T) {
	t.Parallel()
	l := boot(t)
	foreground := l.follows("run", "--rm", "--interactive", "--name", "counter", "--network", "none", "busybox", "sh", "-c", numbering)
	l.eventually(30*time.Second, "the container runs", func() bool { return l.docker("ps", "--quiet") != "" })
	attached := l.follows("logs", "--follow", "counter")
	waited := l.dockerCmd("wait", "counter")
	var code bytes.Buffer
	waited.Stdout = &code
	assert.NilError(t, waited.Start())
	for range 10 {
		time.Sleep(rand.N(200 * time.Millisecond))
		l.restart()
	}
	l.docker("stop", "counter")
	last, exit := foreground.ends(t)
	assert.Equal(t, exit, 3)
	logged, exit := attached.ends(t)
	assert.Equal(t, exit, 0)
	assert.Equal(t, logged, last)
	assert.NilError(t, waited.Wait())
	assert.Equal(t, strings.TrimSpace(code.String()), "3")
	t.Logf("%d lines", last)
	l.noSessions()
}

// TestPipeSurvives is `docker run -i < file` with every byte counted, both ways.
func TestPipeSurvives(t *testing.T) {
	t.Parallel()
	l := boot(t)
	const size = 100 << 20
	for name, interrupt := range map[string]func(){"restart": l.restart, "SIGKILL": l.kill9} {
		cmd := l.dockerCmd("run", "--rm", "-i", "--network", "none", "busybox", "sha256sum")
		in, err := cmd.StdinPipe()
		assert.NilError(t, err)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		assert.NilError(t, cmd.Start())
		sum := sha256.New()
		fed := make(chan error, 1)
		go func() {
			w := io.MultiWriter(in, sum)
			b := make([]byte, 1<<20)
			for range size / len(b) {
				for i := range b {
					b[i] = byte(rand.Uint32())
				}
				if _, err := w.Write(b); err != nil {
					fed <- err
					return
				}
			}
			fed <- in.Close()
		}()
		l.eventually(30*time.Second, "the container runs", func() bool { return l.docker("ps", "--quiet") != "" })
		for range 3 {
			time.Sleep(50 * time.Millisecond)
			interrupt()
		}
		assert.NilError(t, <-fed, errs.String())
		assert.NilError(t, cmd.Wait(), errs.String())
		assert.Equal(t, strings.Fields(out.String())[0], hex.EncodeToString(sum.Sum(nil)), name)
	}
	l.noSessions()
}

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

// TestEventsSurvive: no hole and no double, over restarts and kills.
func TestEventsSurvive(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.docker("create", "--name", "n0", "--network", "none", "busybox")
	cmd := l.dockerCmd("events", "--filter", "event=rename", "--format", "{{.Actor.Attributes.name}}")
	out, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	l.eventually(30*time.Second, "it listens", func() bool { return l.exec("sh", "-c", "ls /run/lrd/sessions | wc -l") == "1" })
	n := 0
	rename := func() {
		l.docker("rename", fmt.Sprint("n", n), fmt.Sprint("n", n+1))
		n++
	}
	rename()
	l.interruptions(10, func(int) { rename() })
	sc := bufio.NewScanner(out)
	for i := 1; i <= n; i++ {
		assert.Assert(t, sc.Scan())
		assert.Equal(t, sc.Text(), fmt.Sprint("n", i))
	}
	assert.NilError(t, cmd.Process.Kill())
	_ = cmd.Wait()
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
