//go:build integration

package integration

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
)

// liveRestoreOff is a daemon that takes its containers with it.
const liveRestoreOff = "live-restore = false\nshutdown-timeout = \"6s\"\n"

// eventuallyRunning waits until exactly those containers run that should.
func (l *lab) eventuallyRunning(want map[string]bool) {
	l.t.Helper()
	for name, runs := range want {
		l.eventually(30*time.Second, name+" runs: "+strconv.FormatBool(runs), func() bool { return l.inspect(name).State.Running == runs })
	}
}

// units are the units of containers that are loaded.
func (l *lab) units() []string {
	l.t.Helper()
	return strings.Fields(l.exec("sh", "-c", "systemctl list-units --plain --no-legend 'lrd-*.service' | cut -d' ' -f1 | grep -E '^lrd-[0-9a-f]{64}\\.service' || true"))
}

// TestShutdown is live-restore = false: a stop ends containers in order and in
// time, and the next start of lrd starts those again that should run.
func TestShutdown(t *testing.T) {
	t.Parallel()
	l := boot(t, withConfig(liveRestoreOff))
	l.exec("mkdir", truth)
	// It notes when it was told to end, and when it did.
	polite := `trap 'touch /truth/NAME.told; sleep 0.3; touch /truth/NAME.ended; exit 3' TERM; echo ready; while :; do usleep 10000; done`
	run := func(name string, args ...string) {
		all := append([]string{"run", "--detach", "--name", name, "--volume", truth + ":/truth"}, args...)
		l.docker(append(all, "busybox", "sh", "-c", strings.ReplaceAll(polite, "NAME", name))...)
		l.said(name, "ready")
	}
	run("base")
	run("sharer", "--network", "container:base", "--restart", "unless-stopped")
	run("always", "--restart", "always")
	run("failing", "--restart", "on-failure")
	run("by-hand", "--restart", "unless-stopped")
	l.docker("run", "--detach", "--name", "stubborn", "--stop-timeout", "1000", "busybox", "sh", "-c", "trap '' TERM; echo ready; while :; do usleep 10000; done")
	l.said("stubborn", "ready")
	l.docker("stop", "by-hand")

	before := time.Now()
	l.stop()
	took := time.Since(before)
	// In whole seconds of what the others leave. Nobody has the time that he would have by himself.
	assert.Assert(t, took >= 2*time.Second && took < 500*time.Second, "the stop took %s", took)
	l.eventually(20*time.Second, "no unit is left", func() bool { return len(l.units()) == 0 })
	noted := func(file string) time.Time {
		info, err := os.Stat(l.path(truth + "/" + file))
		assert.NilError(t, err)
		return info.ModTime()
	}
	// The times of files are those of the last tick of a clock.
	assert.Assert(t, !noted("base.told").Before(noted("sharer.ended")), "a container was ended before the one that shares its network")
	assert.Assert(t, !noted("always.told").Before(noted("sharer.ended")))

	l.start()
	// base comes first in the alphabet only: it has no policy, and the one that shares its network cannot run without.
	l.eventuallyRunning(map[string]bool{"always": true, "failing": true, "base": false, "by-hand": false, "stubborn": false, "sharer": false})
	for name, code := range map[string]int{"base": 3, "by-hand": 3, "stubborn": 137} {
		assert.Equal(t, l.inspect(name).State.ExitCode, code, name)
		assert.Equal(t, l.inspect(name).State.Status, container.StateExited, name)
	}
}

// TestShutdownCrash is live-restore = false and a daemon that has no chance to
// take its containers with it: the next one does so, and starts again what
// should run, as dockerd does.
func TestShutdownCrash(t *testing.T) {
	t.Parallel()
	l := boot(t, withConfig(liveRestoreOff))
	l.docker("run", "--detach", "--name", "always", "--restart", "always", "busybox", "sleep", "1000")
	l.docker("run", "--detach", "--name", "none", "--init=false", "busybox", "sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do usleep 10000; done")
	l.docker("run", "--detach", "--name", "paused", "busybox", "sleep", "1000")
	l.said("none", "ready")
	l.docker("pause", "paused")
	pid := l.inspect("always").State.Pid
	l.stayCrashed()
	l.crash()
	assert.Equal(t, len(l.units()), 3, "a crash takes nothing with it")
	l.restart()
	l.eventuallyRunning(map[string]bool{"always": true, "none": false, "paused": false})
	assert.Assert(t, l.inspect("always").State.Pid != pid)
	assert.Equal(t, l.inspect("none").State.ExitCode, 4)
}

// TestShutdownSwitched is live-restore changed by a reload: what is in force
// when lrd is stopped decides.
func TestShutdownSwitched(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.docker("run", "--detach", "--name", "one", "--stop-timeout", "1", "busybox", "sleep", "1000")
	pid := l.inspect("one").State.Pid
	for _, on := range []bool{true, false, true, false} {
		if on {
			l.config("live-restore = true\n")
		} else {
			l.config(liveRestoreOff)
		}
		assert.NilError(t, l.reload())
		assert.Equal(t, l.docker("info", "--format", "{{.LiveRestoreEnabled}}"), strconv.FormatBool(on))
		l.stop()
		assert.Equal(t, len(l.units()) > 0, on, "%v", l.units())
		l.start()
		assert.Equal(t, l.inspect("one").State.Running, on)
		if on {
			assert.Equal(t, l.inspect("one").State.Pid, pid)
			continue
		}
		l.docker("start", "one")
		pid = l.inspect("one").State.Pid
	}
}

// TestBoot is what restart policies want after a boot of the machine.
func TestBoot(t *testing.T) {
	t.Parallel()
	l := boot(t)
	want := map[string]bool{}
	for _, c := range []struct {
		name, policy string
		stopped      bool
		runs         bool
	}{
		{"no", "no", false, false},
		{"always", "always", false, true},
		{"always-stopped", "always", true, true},
		{"unless", "unless-stopped", false, true},
		{"unless-stopped", "unless-stopped", true, false},
		{"failing", "on-failure", false, true},
		{"failing-stopped", "on-failure", true, false},
	} {
		l.docker("run", "--detach", "--name", c.name, "--restart", c.policy, "busybox", "sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do usleep 10000; done")
		l.said(c.name, "ready")
		if c.stopped {
			l.docker("stop", c.name)
		}
		want[c.name] = c.runs
	}
	l.docker("run", "--detach", "--name", "over", "--restart", "on-failure", "busybox", "true")
	l.docker("wait", "over")
	want["over"] = false
	l.docker("run", "--detach", "--rm", "--name", "removed", "busybox", "sleep", "1000")
	l.docker("run", "-dit", "--name", "terminal", "--restart", "always", "busybox", "sh")
	want["terminal"] = true

	l.reboot()
	l.eventuallyRunning(want)
	l.eventually(20*time.Second, "the container of --rm is removed", func() bool { return l.tryDocker("inspect", "removed").code != 0 })
	for _, name := range []string{"always", "unless", "failing", "terminal"} {
		assert.Equal(t, l.inspect(name).State.Error, "", name)
	}
	tm := l.attach("terminal")
	tm.shell("true")
	assert.Equal(t, l.inspect("no").State.ExitCode, 6, "it ended in peace")
	l.eventually(30*time.Second, "both runs are in the log", func() bool { return strings.Count(l.docker("logs", "always"), "ready") == 2 })

	// One that a person has stopped stays so over another boot.
	l.docker("stop", "unless")
	want["unless"] = false
	l.reboot()
	l.eventuallyRunning(want)
}

// reboot reboots the lab, with a shutdown before.
func (l *lab) reboot() {
	l.t.Helper()
	cmd := l.command(l.t.Context(), "reboot")
	l.must("lab reboot", l.run(cmd, nil))
	l.refresh()
	l.start() // it is under way already: this waits for it
}
