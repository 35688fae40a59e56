//go:build integration

package integration

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
)

// TestSystemdReloads is PID 1 reading its units again, and executing itself
// anew, at moments that are none of lrd's choice.
func TestSystemdReloads(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.counter("counter")
	l.docker("run", "-dt", "--name", "console", "busybox", "sh", "-c", counting)
	l.docker("run", "-d", "--name", "paused", "busybox", "sh", "-c", counting)
	l.docker("pause", "paused")
	pids := map[string]int{}
	for _, name := range []string{"counter", "console", "paused"} {
		pids[name] = l.inspect(name).State.Pid
	}

	var enough atomic.Bool
	var load sync.WaitGroup
	var runs atomic.Int64
	failed := make(chan string, 1000)
	for range 2 {
		load.Go(func() {
			for !enough.Load() {
				// Its output and its exit code go through lrd, and its unit through PID 1.
				r := l.tryDocker("run", "--rm", "--network", "none", "busybox", "sh", "-c", "echo $((6*7)); exit 9")
				if r.code != 9 || r.stdout != "42" {
					failed <- r.String()
				}
				runs.Add(1)
			}
		})
	}
	for n := range 10 {
		for _, do := range []string{"daemon-reload", "daemon-reexec"} {
			time.Sleep(rand.N(200 * time.Millisecond))
			l.exec("systemctl", do)
		}
		if n == 5 {
			// What a new daemon finds is what the old one knew.
			enough.Store(true)
			load.Wait()
			l.restart()
		}
	}
	enough.Store(true)
	load.Wait()
	close(failed)
	for f := range failed {
		t.Errorf("a container under load: %s", f)
	}
	assert.Assert(t, runs.Load() > 0)

	for name, pid := range pids {
		assert.Equal(t, l.inspect(name).State.Pid, pid, name)
		assert.Equal(t, l.inspect(name).State.Error, "", name)
	}
	assert.Equal(t, l.inspect("paused").State.Status, container.StatePaused)
	l.docker("unpause", "paused")
	l.counted("counter")
	l.counted("paused")
	l.wholeLines("console", 10)
	l.docker("rm", "--force", "counter", "console", "paused")
	l.assertClean()
}

// TestBusRestart is the message bus being away, which lrd does without.
func TestBusRestart(t *testing.T) {
	t.Parallel()
	l := boot(t)
	if l.tryExec("systemctl", "--quiet", "is-active", "dbus.socket").code != 0 {
		skip(t, "there is no message bus in the lab")
	}
	l.counter("counter")
	pid := l.inspect("counter").State.Pid
	// systemctl restart refuses, as dbus.service has RefuseManualStop=yes.
	l.tryExec("systemctl", "kill", "--signal=KILL", "dbus.service")
	r := l.tryDocker("run", "--rm", "busybox", "sh", "-c", "exit 9")
	assert.Equal(t, r.code, 9, r)
	l.tryExec("systemctl", "start", "dbus.service")
	assert.Equal(t, l.exec("systemctl", "is-active", "lrd.service"), "active")
	l.restart()
	l.fine("counter", pid)
	l.counted("counter")
}

// TestStuck is a container that does nothing any more: it is shown as it is,
// outlives what others do, can be ended, and delays nobody.
func TestStuck(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.counter("counter")
	l.counter("stopped")
	l.counter("paused")
	pids := map[string]int{}
	for _, name := range []string{"counter", "stopped", "paused"} {
		pids[name] = l.inspect(name).State.Pid
	}
	l.exec("kill", "-STOP", fmt.Sprint(pids["stopped"]))
	l.docker("pause", "paused")

	for _, away := range leaves {
		away.do(l)
		for name, pid := range pids {
			assert.Equal(t, l.inspect(name).State.Pid, pid, "%s after %s", name, away.name)
			assert.Equal(t, l.inspect(name).State.Error, "", "%s after %s", name, away.name)
		}
		assert.Equal(t, l.inspect("paused").State.Status, container.StatePaused, "after %s", away.name)
	}

	// Somebody waits for the stuck one, and all others go their way.
	waiting := make(chan result, 1)
	began := time.Now()
	go func() { waiting <- l.tryDocker("stop", "--time", "15", "stopped") }()
	l.eventually(10*time.Second, "the stop is under way", func() bool { return time.Since(began) > 500*time.Millisecond })
	for range 3 {
		assert.Equal(t, l.docker("run", "--rm", "busybox", "echo", "hello"), "hello")
	}
	l.docker("ps")
	l.docker("logs", "--tail", "1", "stopped")
	l.docker("inspect", "stopped")
	select {
	case r := <-waiting:
		// On a very busy machine the others may have taken longer than the stop.
		assert.Assert(t, time.Since(began) >= 15*time.Second, "the stop did not wait: %s", r)
		waiting <- r
	default:
	}
	// A second one, who is in a hurry, need not wait for the first.
	l.docker("kill", "stopped")
	r := <-waiting
	assert.Equal(t, r.code, 0, r)
	assert.Equal(t, l.inspect("stopped").State.ExitCode, 137)

	l.docker("unpause", "paused")
	l.counted("paused")
	l.counted("counter")
	l.docker("rm", "--force", "counter", "stopped", "paused")
	l.assertClean()
}
