//go:build integration

package integration

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// away is how long lrd is stopped.
func away(t *testing.T) time.Duration {
	return time.Duration(rounds(t, 5, 60)) * time.Second
}

const (
	writerPath = "/srv/writer"
	// heldRecord is there while lrd-standby holds something.
	heldRecord = "/run/lrd/standby/held.json"
	// standbyMemory is what lrd-standby may take of memory, in KiB.
	standbyMemory = 8 << 10
)

// numbering counts until SIGTERM, and ends with exit code 3. It pauses at a FIFO of its own: at its input, which is at its end
// while nobody has the other side, it would write flat out, and wait for ever if lrd came back between a poll and a read.
const numbering = `mkfifo /pause; exec 9<>/pause; i=0; trap 'stop=1' TERM; while [ -z "$stop" ]; do i=$((i + 1)); echo $i; read -t 0.001 nothing <&9; done; exit 3`

// standbyStatus is a figure of lrd-standby's /proc/PID/status, in KiB.
func (l *lab) standbyStatus(name string) (kib int) {
	l.t.Helper()
	status := l.readFile("/proc/" + l.exec("systemctl", "show", "--property=MainPID", "--value", "lrd-standby.service") + "/status")
	_, rest, _ := strings.Cut(status, name+":")
	_, err := fmt.Sscan(rest, &kib)
	assert.NilError(l.t, err, status)
	return kib
}

// signalStandby sends a signal to lrd-standby, which may be about to be started again.
func (l *lab) signalStandby(signal string) {
	l.t.Helper()
	l.tryExec("systemctl", "kill", "--kill-who=main", "--signal="+signal, "lrd-standby.service")
}

// isStopped checks that lrd has not been started by anybody.
func (l *lab) isStopped() {
	l.t.Helper()
	assert.Equal(l.t, l.tryExec("systemctl", "is-active", "lrd.service").stdout, "inactive")
}

// exists says whether a file of the lab is there.
func (l *lab) exists(path string) bool {
	_, err := os.Lstat(l.path(path))
	return err == nil
}

// TestStandby is promise 8: lrd is stopped for a while, once in peace and once while lrd-standby is killed again and
// again. Nobody is held up, clients read and type on, nothing is lost, and what was written meanwhile has its true time.
func TestStandby(t *testing.T) {
	t.Parallel()
	l := boot(t)
	t.Logf("lrd-standby takes %d KiB while it waits", l.standbyStatus("VmRSS"))
	assert.Check(t, l.standbyStatus("VmRSS") < standbyMemory)
	l.exec("mkdir", truth)
	l.copyTool("writer", writerPath)
	l.docker("run", "--detach", "--name", "writer", "--log-opt", "max-size=2g", "--network", "none", "--volume", writerPath+":/writer", "--volume", truth+":/truth", "busybox", "/writer", "/truth/writer")
	// Says a megabyte to its terminal when it is told to.
	l.docker("run", "--detach", "--tty", "--name", "talker", "--network", "none", "--volume", truth+":/truth", "busybox", "sh", "-c",
		`n=1; while :; do until [ -e /truth/say$n ]; do usleep 5000; done; seq $((n * 150000 - 149999)) $((n * 150000)); touch /truth/said$n; n=$((n + 1)); done`)
	attached := l.follows("run", "--interactive", "--name", "counter", "--network", "none", "busybox", "sh", "-c", numbering)
	person := l.atTerminal("run", "--interactive", "--tty", "--rm", "--name", "person", "--network", "none", "busybox", "sh")
	person.shell("")
	person.types("X=forty-''two; echo be''gun", "begun")
	l.eventually(30*time.Second, "the counter counts", func() bool { return attached.read.Load() > 0 })
	logs := l.follows("logs", "--follow", "counter")
	l.eventually(30*time.Second, "the person's container is known to run", func() bool { return l.inspect("person").State.Running })
	busy := l.atTerminal("exec", "--interactive", "--tty", "person", "sh")
	busy.shell("")
	busy.types("echo be''gun", "begun")
	l.eventually(30*time.Second, "the clients read", func() bool { return attached.read.Load() > 0 && logs.read.Load() > 0 })

	for n, killed := range []bool{false, true} {
		l.stop()
		back := time.Now().Add(away(t))
		if killed {
			for range rounds(t, 3, 50) {
				l.signalStandby("KILL")
				time.Sleep(200 * time.Millisecond)
			}
		}
		if !killed { // which may double what was being sent to a client just then
			for _, f := range []*follower{attached, logs} {
				before := f.read.Load()
				l.eventually(30*time.Second, "a client reads on", func() bool { return f.read.Load() > before })
			}
		}
		person.types(fmt.Sprintf("echo $X.%d", n), fmt.Sprintf("forty-two.%d", n))
		busy.types(fmt.Sprintf("echo bu''sy.%d", n), fmt.Sprintf("busy.%d", n))
		l.writeFile(fmt.Sprintf("%s/say%d", truth, n+1), "")
		l.eventually(time.Minute, "a megabyte is said", func() bool { return l.exists(fmt.Sprintf("%s/said%d", truth, n+1)) })
		t.Logf("lrd-standby takes %d KiB while it drains, %d of them its own", l.standbyStatus("VmRSS"), l.standbyStatus("RssAnon"))
		assert.Check(t, l.standbyStatus("VmRSS") < standbyMemory)
		time.Sleep(time.Until(back))
		l.isStopped()
		l.start()
		assert.Check(t, !l.exists(heldRecord))
		person.types(fmt.Sprintf("echo again.$X.%d", n), fmt.Sprintf("again.forty-two.%d", n))
		busy.types(fmt.Sprintf("echo ag''ain.%d", n), fmt.Sprintf("again.%d", n))
		if !killed {
			l.docker("stop", "--time", "100", "counter")
			counted, code := attached.ends(t)
			assert.Equal(t, code, 3)
			logged, _ := logs.ends(t)
			assert.Equal(t, logged, counted)
		}
	}

	l.docker("stop", "--time", "100", "writer")
	var wrote int
	var longest time.Duration
	_, err := fmt.Sscan(l.readFile(truth+"/writer"), &wrote, (*int64)(&longest))
	assert.NilError(t, err)
	lines, behind := l.truly("writer")
	t.Logf("%d lines; the longest write took %s; times are at most %s behind", wrote, longest, behind)
	assert.Equal(t, lines, wrote)
	// Without somebody who drains it would be as long as lrd was away, and more.
	assert.Check(t, longest < away(t))
	assert.Check(t, behind < away(t))

	said := l.docker("logs", "talker") + "\n"
	assert.Equal(t, checkCount(t, strings.NewReader(strings.ReplaceAll(said, "\r\n", "\n"))), 300000)
	busy.types("exit 4", "exit 4")
	assert.Equal(t, busy.wait(), 4)
	person.types("exit 5", "exit 5")
	assert.Equal(t, person.wait(), 5)
	l.docker("rm", "--force", "talker", "writer", "counter")
	l.assertClean()
	l.noSessions()
}

// truly checks what `docker logs` shows of testdata/writer, and returns how far behind the time of a line was.
func (l *lab) truly(name string) (lines int, behind time.Duration) {
	l.t.Helper()
	cmd := l.dockerCmd("logs", "--timestamps", name)
	out, err := cmd.StdoutPipe()
	assert.NilError(l.t, err)
	assert.NilError(l.t, cmd.Start())
	in := bufio.NewScanner(out)
	for in.Scan() {
		fields := strings.Fields(in.Text())
		assert.Equal(l.t, len(fields), 4, "after line %d comes %q", lines, in.Text())
		assert.Equal(l.t, fields[1], strconv.Itoa(lines+1))
		lines++
		at, err := time.Parse(time.RFC3339Nano, fields[0])
		assert.NilError(l.t, err)
		written, err := strconv.ParseInt(fields[2], 10, 64)
		assert.NilError(l.t, err)
		behind = max(behind, at.Sub(time.Unix(0, written)))
	}
	assert.NilError(l.t, in.Err())
	assert.NilError(l.t, cmd.Wait())
	return lines, behind
}

// outputSize is how much of a container's standard output is in its store.
func (l *lab) outputSize(id string) (size int64) {
	l.t.Helper()
	files, err := filepath.Glob(l.path("/var/lib/lrd/containers/" + id + "/output/stdout.*"))
	assert.NilError(l.t, err)
	for _, file := range files {
		fi, err := os.Stat(file)
		assert.NilError(l.t, err)
		size += fi.Size()
	}
	return size
}

// TestStandbyAway is about a standby that is not to drain, is not there, or is not well: no container notices more than
// that its pipe fills up, and lrd starts.
func TestStandbyAway(t *testing.T) {
	t.Parallel()
	l := boot(t, withConfig("standby = false\n"))
	id := l.docker("run", "--detach", "--interactive", "--name", "counter", "--network", "none", "busybox", "sh", "-c", numbering)
	person := l.atTerminal("run", "--interactive", "--tty", "--name", "person", "--network", "none", "busybox", "sh")
	person.shell("X=forty-''two")
	drains := func() bool {
		l.t.Helper()
		before := l.outputSize(id)
		for deadline := time.Now().Add(patience * 20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if l.outputSize(id) > before {
				return true
			}
		}
		return false
	}
	rests := func() bool {
		l.t.Helper()
		before := l.outputSize(id)
		time.Sleep(300 * time.Millisecond) // a writer that writes each millisecond has written by then
		return l.outputSize(id) == before
	}
	fine := func(when string) {
		l.t.Helper()
		assert.Assert(t, drains(), when)
		assert.Assert(t, !l.exists(heldRecord), when)
		assert.Equal(t, l.inspect("person").State.Error, "", when)
		person.types("echo "+when+".$X", when+".forty-two")
	}
	fine("atfirst")

	l.stop()
	assert.Check(t, rests(), "standby = false")
	assert.Equal(t, l.exists(heldRecord), l.systemd() < 254, "before, it holds what would be lost")
	l.start()
	fine("off")

	l.config("")
	assert.NilError(t, l.reload())
	l.stop()
	assert.Check(t, drains(), "a reload has turned it on")
	l.start()
	fine("on")

	// It hangs, at the stop and at the start: it is killed, and does its work then.
	l.signalStandby("STOP")
	l.stop()
	assert.Check(t, drains(), "after it was killed")
	l.signalStandby("STOP")
	l.start()
	fine("hung")

	// It crashes at the very moment.
	for range rounds(t, 2, 50) {
		l.exec("sh", "-c", "systemctl stop --no-block lrd.service; systemctl kill --signal=KILL --kill-who=main lrd-standby.service; systemctl stop lrd.service")
		l.exec("sh", "-c", "systemctl start --no-block lrd.service; systemctl kill --signal=KILL --kill-who=main lrd-standby.service; systemctl start lrd.service")
		fine("crashed")
	}

	// A start during the stop, a stop during the start, and units that are read again in between.
	for range rounds(t, 2, 50) {
		l.exec("sh", "-c", "systemctl stop --no-block lrd.service; systemctl start lrd.service")
		fine("hurried")
		l.exec("sh", "-c", "systemctl stop lrd.service; systemctl daemon-reload; systemctl start --no-block lrd.service; systemctl stop lrd.service")
		assert.Equal(t, l.tryExec("systemctl", "is-failed", "lrd.service").stdout, "inactive", "a stop during the start is no failure")
		l.exec("sh", "-c", "systemctl restart lrd-standby.service; systemctl daemon-reexec; systemctl start lrd.service")
		fine("hesitated")
	}

	// With both stopped nobody drains. Before systemd 254 that hangs up terminals.
	if l.systemd() < 254 {
		person.types("exit 5", "exit 5")
		assert.Equal(t, person.wait(), 5)
	}
	l.stopBoth()
	assert.Check(t, rests(), "both are stopped")
	assert.Equal(t, l.tryExec("systemctl", "is-active", "lrd-standby.service").stdout, "inactive")
	l.start()
	l.eventually(20*time.Second, "it is started with lrd", func() bool { return l.tryExec("systemctl", "is-active", "lrd-standby.service").stdout == "active" })
	assert.Check(t, drains())
	if l.systemd() >= 254 {
		fine("both")
	}
	l.docker("stop", "--time", "100", "counter")
	assert.Check(t, checkCount(t, strings.NewReader(l.docker("logs", "counter")+"\n")) > 1000)
}
