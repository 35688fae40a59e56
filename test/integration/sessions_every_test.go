//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// TestEverySessionSurvives is promise 6: a client of every kind, all at the same time, over ten restarts, ten
// SIGKILLs and two stops. What is typed, counted, summed up and told is all there, in order, and once but for what was being
// written at a SIGKILL, and each ends as if nothing had happened.
func TestEverySessionSurvives(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.exec("mkdir", truth)
	l.docker("run", "--detach", "--name", "box", "--network", "none", "--volume", truth+":/truth", "busybox", "sleep", "100000")
	l.docker("run", "--detach", "--interactive", "--tty", "--name", "shared", "--network", "none", "busybox", "sh")
	l.docker("create", "--name", "n0", "--network", "none", "busybox")

	shells := []*terminal{
		l.atTerminal("run", "--rm", "--interactive", "--tty", "--name", "shell", "--network", "none", "busybox", "sh"),
		l.atTerminal("attach", "shared"),
		l.atTerminal("exec", "--interactive", "--tty", "box", "sh"),
	}
	other := l.atTerminal("attach", "shared")
	for _, sh := range shells {
		sh.shell("")
		sh.resize(40, 132)
		sh.shell("until [ \"$(stty size)\" = '40 132' ]; do usleep 10000; done; x=0")
		sh.sleeps(l, 1000)
		sh.send("\x1a")
		sh.expect("Stopped")
		sh.shell("true")
	}
	interrupted := l.atTerminal("run", "--name", "interrupted", "--network", "none", "busybox", "sh", "-c",
		"trap 'echo caught; exit 6' INT; echo up; mkfifo /f; exec 9<>/f; while :; do read -t 1 nothing <&9; done")
	interrupted.expect("up")

	times := rounds(t, 10, 50)
	mounts := []string{"--network", "none", "--volume", truth + ":/truth"}
	front := l.followsOver(times, append(append([]string{"run", "--name", "front"}, mounts...), "busybox", "sh", "-c", countsUntil(3, ""))...)
	gone := l.followsOver(times, append(append([]string{"run", "--rm", "--name", "gone"}, mounts...), "busybox", "sh", "-c", countsUntil(4, ""))...)
	l.eventually(30*time.Second, "both run", func() bool {
		return len(strings.Fields(l.docker("ps", "--quiet", "--filter", "name=front", "--filter", "name=gone"))) == 2
	})
	attached := l.followsOver(times, "attach", "--no-stdin", "front")
	logged := l.followsOver(times, "logs", "--follow", "front")
	inside := l.followsOver(times, "exec", "box", "sh", "-c", countsUntil(5, "/truth/inside"))
	const piped, execPiped = 5 << 20, 1 << 20 // in each round
	sums := []*feeder{
		l.feeds(piped, "run", "--rm", "--interactive", "--network", "none", "busybox", "sha256sum"),
		l.feeds(execPiped, "exec", "--interactive", "box", "sha256sum"),
	}
	waited, code := l.dockerCmd("wait", "front"), &growing{}
	waited.Stdout = code
	told := l.dockerCmd("events", "--filter", "event=rename", "--format", "{{.Actor.Attributes.name}}")
	names, err := told.StdoutPipe()
	assert.NilError(t, err)
	l.docker(append(append([]string{"run", "--detach", "--name", "measured"}, mounts...), "busybox", "sh", "-c",
		"mkfifo /f; exec 9<>/f; until [ -e /truth/more ]; do read -t 0.1 nothing <&9; done; sleep 1000 & sleep 1000 & sleep 1000 & wait")...)
	stats, shown := l.dockerCmd("stats", "--format", "{{.PIDs}}", "measured"), &growing{}
	stats.Stdout = shown
	for _, cmd := range []*exec.Cmd{waited, told, stats} {
		assert.NilError(t, cmd.Start())
	}
	// run and attach wait for the container's end as well: 4 of run, 4 of attach; exec 3, sha256sum 2, and four that follow.
	l.streams(2*(1+1+2+1) + 2*3 + 3 + 4)
	l.writeFile(truth+"/go", "")

	n := 0
	rename := func() {
		l.docker("rename", fmt.Sprint("n", n), fmt.Sprint("n", n+1))
		n++
	}
	rename()
	l.interruptions(times, func(round int, interrupt func()) {
		for _, f := range sums {
			f.more <- struct{}{}
		}
		for _, sh := range shells {
			sh.send("x=$((x + 1)); echo va") // half of it before, half after
		}
		time.Sleep(rand.N(50 * time.Millisecond))
		interrupt()
		for _, sh := range shells {
			sh.send("lue-$x.\r")
		}
		for _, sh := range append(shells, other) {
			sh.expect(fmt.Sprintf("value-%d.", round))
		}
		rename()
		if round == times { // leave and come back
			other.detach()
			other = l.atTerminal("attach", "shared")
			other.shell("")
			other.resize(40, 132)
			other.shell("until [ \"$(stty size)\" = '40 132' ]; do usleep 10000; done")
			shells[1].shell("true")
		}
	})

	// Nobody was shown anything twice, the size is as it was, and the job that was stopped still is.
	for i, sh := range shells {
		assert.Equal(t, strings.Count(sh.text(), fmt.Sprintf("value-%d.", times)), 1, "shown twice")
		sh.send("stty size\r")
		sh.expect("40 132")
		sh.resize(33, 77)
		sh.shell("until [ \"$(stty size)\" = '33 77' ]; do usleep 10000; done")
		sh.send("fg\r")
		sh.expect("sleep 1000")
		l.foreground("sleep 1000")
		sh.send("\x03")
		sh.shell("true")
		sh.send(fmt.Sprintf("exit %d\r", 7+i))
	}
	for i, sh := range shells {
		assert.Equal(t, sh.wait(), 7+i)
	}
	assert.Equal(t, other.wait(), 8, "the other one at the same shell")
	interrupted.send("\x03")
	interrupted.expect("caught")
	assert.Equal(t, interrupted.wait(), 6)

	l.writeFile(truth+"/inside", "")
	_, exit := inside.ends(t)
	assert.Equal(t, exit, 5)
	assert.NilError(t, gone.cmd.Process.Signal(syscall.SIGTERM)) // the client passes it on
	_, exit = gone.ends(t)
	assert.Equal(t, exit, 4)
	l.docker("stop", "--time", "100", "front")
	last, exit := front.ends(t)
	assert.Equal(t, exit, 3)
	for _, f := range []*follower{attached, logged} {
		seen, exit := f.ends(t)
		assert.Equal(t, seen, last)
		assert.Equal(t, exit, map[*follower]int{attached: 3}[f])
	}
	t.Logf("%d lines", last)
	assert.NilError(t, waited.Wait())
	assert.Equal(t, code.String(), "3\n")

	for _, f := range sums {
		f.ends(t)
	}
	lines := bufio.NewScanner(names)
	for i := 1; i <= n; i++ {
		assert.Assert(t, lines.Scan())
		if i > 1 && lines.Text() == fmt.Sprint("n", i-1) { // twice, by a SIGKILL
			assert.Assert(t, lines.Scan())
		}
		assert.Equal(t, lines.Text(), fmt.Sprint("n", i))
	}
	_ = told.Process.Kill()
	_ = told.Wait()

	l.writeFile(truth+"/more", "")
	before := len(shown.String())
	l.eventually(30*time.Second, "stats show what is new", func() bool { return strings.Contains(shown.String()[before:], "4") })
	_ = stats.Process.Kill()
	_ = stats.Wait()

	l.noSessions()
	assert.Equal(t, l.docker("ps", "--all", "--quiet", "--filter", "name=shell", "--filter", "name=gone"), "", "--rm")
	l.removeAll()
	l.assertClean()
}

// countsUntil is a program that counts when it may go, and ends with code when it is told to by SIGTERM or by a file.
func countsUntil(code int, stop string) string {
	return fmt.Sprintf(`mkfifo /f$$; exec 9<>/f$$; trap 'stop=1' TERM; i=0
		until [ -e /truth/go ]; do read -t 0.05 nothing <&9; done
		while [ -z "$stop" ]; do
			n=0; while [ $n -lt 20 ]; do n=$((n + 1)); i=$((i + 1)); echo $i; done
			read -t 0.02 nothing <&9
			[ ! -e '%s' ] || stop=1
		done; exit %d`, stop, code)
}

// interruptions are the ways in which lrd goes away: restarts and SIGKILLs as often as said, and some stops. round
// says what is done around one.
func (l *lab) interruptions(times int, round func(n int, interrupt func())) {
	l.t.Helper()
	n := 0
	for _, way := range []struct {
		interrupt func()
		times     int
	}{{l.restart, times}, {l.kill9, times}, {func() { l.stop(); l.start() }, 2}} {
		for range way.times {
			n++
			round(n, way.interrupt)
		}
	}
}

// streams waits until so many sessions are on record.
func (l *lab) streams(n int) {
	l.t.Helper()
	var have string
	defer func() {
		if l.t.Failed() {
			l.t.Logf("%s sessions are on record", have)
		}
	}()
	l.eventually(30*time.Second, fmt.Sprint(n, " sessions are on record"), func() bool {
		have = l.exec("sh", "-c", "ls /run/lrd/sessions 2>/dev/null | wc -l")
		return have == fmt.Sprint(n)
	})
}

// noSessions waits until no session is left in systemd's store and on disk.
func (l *lab) noSessions() {
	l.t.Helper()
	l.streams(0)
}

// feeder is a docker command that sums up what it is fed.
type feeder struct {
	cmd       *exec.Cmd
	more      chan struct{} // each feeds it once more
	fed       chan error
	sum       hash.Hash
	out, errs bytes.Buffer
}

// feeds starts one that is fed so many bytes each time.
func (l *lab) feeds(size int, args ...string) *feeder {
	l.t.Helper()
	f := &feeder{cmd: l.dockerCmd(args...), more: make(chan struct{}, 100), fed: make(chan error, 1), sum: sha256.New()}
	in, err := f.cmd.StdinPipe()
	assert.NilError(l.t, err)
	f.cmd.Stdout, f.cmd.Stderr = &f.out, &f.errs
	assert.NilError(l.t, f.cmd.Start())
	go func() { // ends with the channel, or with the client
		random, b := rand.NewChaCha8([32]byte{}), make([]byte, size)
		for range f.more {
			_, _ = random.Read(b)
			if _, err := io.MultiWriter(in, f.sum).Write(b); err != nil {
				f.fed <- err
				return
			}
		}
		f.fed <- in.Close()
	}()
	return f
}

// ends ends the input, and checks the sum.
func (f *feeder) ends(t *testing.T) {
	t.Helper()
	close(f.more)
	assert.NilError(t, <-f.fed, "%s", f.errs.String())
	timer := time.AfterFunc(patience*time.Minute, func() { _ = f.cmd.Process.Kill() })
	defer timer.Stop()
	assert.NilError(t, f.cmd.Wait(), "%v: %s", f.cmd.Args, f.errs.String())
	assert.Equal(t, strings.Fields(f.out.String())[0], hex.EncodeToString(f.sum.Sum(nil)), "%v", f.cmd.Args)
}
