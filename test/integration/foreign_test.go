//go:build integration

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// counting is a command that writes 1, 2, 3 and so on until /stop is there.
const counting = "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; usleep 1000; done"

// counter starts a container that counts, and gives back its ID.
func (l *lab) counter(name string, args ...string) (id string) {
	l.t.Helper()
	return l.docker(append(append([]string{"run", "--detach", "--name", name}, args...), "busybox", "sh", "-c", counting)...)
}

// counted ends a container that counts, and checks that nothing of what it wrote is lost.
func (l *lab) counted(name string) {
	l.t.Helper()
	l.counts(name, 11)
	l.exec("touch", fmt.Sprintf("/proc/%d/root/stop", l.inspect(name).State.Pid))
	assert.Equal(l.t, l.docker("wait", name), "0")
	assert.Assert(l.t, checkCount(l.t, strings.NewReader(l.docker("logs", name)+"\n")) > 10)
}

// counts waits until a container has counted to n.
func (l *lab) counts(name string, n int) {
	l.t.Helper()
	l.eventually(time.Minute, fmt.Sprint(name, " counts to ", n), func() bool {
		return strings.Contains(l.docker("logs", name)+"\n", fmt.Sprintf("\n%d\n", n))
	})
}

// says checks that a person is told of a container's reason wherever she looks.
func (l *lab) says(ref, id, reason string) {
	l.t.Helper()
	assert.Check(l.t, is.Contains(l.inspect(ref).State.Error, reason))
	// A line of docker ps has the beginning.
	assert.Check(l.t, is.Contains(l.docker("ps", "--all", "--no-trunc", "--filter", "id="+id), reason[:min(len(reason), 40)]))
	log := l.journal("--unit=lrd")
	assert.Check(l.t, strings.Contains(log, reason) && strings.Contains(log, id), "the log does not tell %q of %s", reason, id)
}

// fine checks that a container is as if nothing had happened.
func (l *lab) fine(ref string, pid int) {
	l.t.Helper()
	state := l.inspect(ref).State
	assert.Equal(l.t, state.Status, container.StateRunning, ref)
	assert.Equal(l.t, state.Error, "", ref)
	assert.Equal(l.t, state.Pid, pid, ref)
}

// record is the path of a container's Record.
func record(id string) string { return "/var/lib/lrd/containers/" + id + "/record.json" }

// TestForeignRecord is for a container of which lrd cannot read the Record: it
// runs on, is shown with the reason, can be stopped, and is whole again once
// the Record is. A Record that is only spoiled is mended from its copy, if that is there.
func TestForeignRecord(t *testing.T) {
	t.Parallel()
	l := boot(t)
	id := l.counter("one", "--restart", "always")
	other := l.counter("other")
	l.counts("one", 101)
	pid, otherPid := l.inspect("one").State.Pid, l.inspect("other").State.Pid
	address := l.inspect("one").NetworkSettings.Networks["bridge"].IPAddress.String()
	without := "rm -f /run/lrd/containers/" + id + "/record.json; "
	for _, c := range []struct{ name, reason, script string }{
		{"of another schema", "its record has schema 7.", `sed -i 's/"major": *1/"major":7/' record.json`},
		{"mended", "", `head -c 100 record.json >new; mv new record.json`},
		{"corrupted", "cannot read its record", without + `head -c 100 record.json >new; mv new record.json`},
		{"empty", "cannot read its record", without + `: >record.json`},
		{"of another container", "cannot read its record: it is that of container", without + `cp ../` + other + `/record.json .`},
		{"away", "lrd has no record of it", `mv ../` + id + ` /run/elsewhere`},
	} {
		l.stopBoth() // what is moved away must not be written to
		l.exec("cp", record(id), "/run/record.json")
		l.exec("sh", "-ec", "cd /var/lib/lrd/containers/"+id+"; "+c.script)
		l.start()

		state := l.inspect(id).State
		assert.Equal(t, state.Status, container.StateRunning, c.name)
		assert.Equal(t, state.Pid, pid, c.name)
		if c.reason == "" {
			l.fine("one", pid)
			continue
		}
		l.says(id, id, c.reason)
		l.fine("other", otherPid)
		// What is not known of it must not harm it.
		l.docker("run", "--detach", "--name", "newcomer", "busybox", "sleep", "1000")
		assert.Check(t, l.inspect("newcomer").NetworkSettings.Networks["bridge"].IPAddress.String() != address, "%s: its address is given to another one", c.name)
		l.docker("rm", "--force", "newcomer")
		l.refused(1, []string{c.reason}, "rm", "--force", id)

		l.stop()
		l.exec("sh", "-ec", "[ ! -e /run/elsewhere ] || mv /run/elsewhere /var/lib/lrd/containers/"+id+"; cp /run/record.json "+record(id))
		l.start()
		l.fine("one", pid)
	}

	// Stopping it works while the Record is unreadable, whatever its policy is.
	l.stop()
	l.exec("sed", "-i", `s/"major": *1/"major":7/`, record(id))
	l.start()
	l.docker("stop", "--time", "1", id)
	l.eventually(20*time.Second, "its unit is gone", func() bool { return !slices.Contains(l.units(), "lrd-"+id+".service") })
	// And once the Record can be read, its end is known.
	l.stop()
	l.exec("cp", "/run/record.json", record(id))
	l.start()
	assert.Equal(t, l.inspect("one").State.Status, container.StateExited)
	assert.Equal(t, l.inspect("one").State.ExitCode, 137)
	assert.Assert(t, checkCount(t, strings.NewReader(l.docker("logs", "one")+"\n")) > 100)
	l.docker("start", "one")
	l.docker("rm", "--force", "one")
	l.counted("other")
	l.docker("rm", "other")
	l.assertClean()
}

// TestForeignConfiguration is for containers that were made with another
// configuration than the daemon now has.
func TestForeignConfiguration(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, config, reason string
		unreadable           bool // there is no Record, by this configuration
	}{
		{"data-root", "data-root = \"/run/second\"\n", "lrd has no record of it; it was probably made with another data-root", true},
		{"storage-driver", "storage-driver = \"vfs\"\n", "its root filesystem was made with storage-driver overlay and lrd now uses vfs", false},
		{"bip", "bip = \"10.99.0.1/24\"\n", "the address of lrd0 changed from 10.87.0.1/16 to 10.99.0.1/24", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := boot(t)
			id := l.counter("one", "--publish", "8080:80", "--restart", "unless-stopped")
			l.counts("one", 101)
			l.docker("run", "--detach", "--name", "two", "busybox", "sleep", "1000")
			l.docker("stop", "--time", "0", "two")
			pid := l.inspect("one").State.Pid
			address := l.inspect("one").NetworkSettings.Networks["bridge"].IPAddress.String()
			l.exec("busybox", "ping", "-c", "1", "-W", "5", address)

			l.config(c.config)
			l.restart()
			state := l.inspect("one").State
			assert.Equal(t, state.Status, container.StateRunning)
			assert.Equal(t, state.Pid, pid)
			l.says(id, id, c.reason)
			l.exec("busybox", "ping", "-c", "1", "-W", "5", address) // it is at the network as before
			l.kill9()
			assert.Equal(t, l.inspect("one").State.Pid, pid)

			// The way back is open.
			l.config("")
			l.restart()
			l.fine("one", pid)
			l.exec("busybox", "ping", "-c", "1", "-W", "5", address)

			// It can be stopped in a configuration that is not its own.
			l.config(c.config)
			l.restart()
			l.docker("stop", "--time", "1", "one")
			l.eventually(20*time.Second, "its unit is gone", func() bool { return !slices.Contains(l.units(), "lrd-"+id+".service") })
			l.config("")
			l.restart()
			assert.Equal(t, l.inspect("one").State.Status, container.StateExited)
			assert.Equal(t, l.inspect("one").State.ExitCode, 137)
			assert.Assert(t, checkCount(t, strings.NewReader(l.docker("logs", "one")+"\n")) > 100)
			l.docker("start", "one", "two")
			l.docker("rm", "--force", "one", "two")
			l.assertClean()
		})
	}
}

// TestLostDescriptors is for a store that is lost, as when somebody changes the
// unit: what can be opened again is, and what cannot is told.
func TestLostDescriptors(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.counter("whole")
	silent := l.counter("silent")
	// It is deaf to the hang-up that it gets when the last one lets go of its console.
	console := l.docker("run", "-dt", "--name", "console", "busybox", "sh", "-c", "trap '' HUP; echo ready; while :; do sleep 1; done")
	l.said("console", "ready")
	pids := map[string]int{}
	for _, name := range []string{"whole", "silent", "console"} {
		pids[name] = l.inspect(name).State.Pid
	}

	l.writeFile("/run/systemd/system/lrd.service.d/lose.conf", "[Service]\nRestart=no\nFileDescriptorStorePreserve=no\n")
	l.exec("systemctl", "daemon-reload")
	l.exec("systemctl", "kill", "--signal=KILL", "--kill-who=main", "lrd.service")
	l.eventually(20*time.Second, "lrd has failed, and its store is gone", func() bool {
		return l.exec("systemctl", "show", "--property=ActiveState", "--property=NFileDescriptorStore", "--value", "lrd.service") == "failed\n0" ||
			l.exec("systemctl", "show", "--property=NFileDescriptorStore", "--property=ActiveState", "--value", "lrd.service") == "0\nfailed"
	})
	l.exec("rm", "/run/lrd/containers/"+silent+"/stdout")
	l.exec("rm", "/run/systemd/system/lrd.service.d/lose.conf")
	l.exec("systemctl", "daemon-reload")
	l.start()

	l.fine("whole", pids["whole"])
	l.says("silent", silent, "disconnected: while lrd was stopped, nobody kept its stdout")
	l.says("console", console, "disconnected: systemd did not keep its console while lrd was stopped")
	for name, pid := range pids {
		assert.Equal(t, l.inspect(name).State.Pid, pid, name)
	}
	l.counted("whole")
	l.docker("stop", "--time", "1", "silent", "console")
	// The next run has everything again.
	l.docker("start", "silent", "console")
	assert.Equal(t, l.inspect("silent").State.Error, "")
	assert.Equal(t, l.inspect("console").State.Error, "")
	l.docker("rm", "--force", "whole", "silent", "console")
	l.assertClean()
}

// TestUnitGone is for units that somebody else has put an end to.
func TestUnitGone(t *testing.T) {
	t.Parallel()
	l := boot(t)
	stop := func(id string) { l.exec("systemctl", "stop", "lrd-"+id+".service") }
	trap := "trap 'echo bye; exit 5' TERM; echo ready; while :; do usleep 10000; done"
	run := func(name string, args ...string) string {
		id := l.docker(append(append([]string{"run", "--detach", "--name", name}, args...), "busybox", "sh", "-c", trap)...)
		l.said(name, "ready")
		return id
	}
	ended := func(name string, code int) {
		t.Helper()
		l.status(name, container.StateExited)
		assert.Equal(t, l.inspect(name).State.ExitCode, code, name)
		assert.Equal(t, l.docker("wait", name), fmt.Sprint(code), name)
		assert.Equal(t, l.inspect(name).State.Error, "", name)
	}

	bystander := l.counter("bystander")
	for _, policy := range []string{"no", "always", "unless-stopped", "on-failure"} {
		up := run("up-"+policy, "--restart", policy)
		away := run("away-"+policy, "--restart", policy)
		stop(up)
		ended("up-"+policy, 5)
		l.stop()
		stop(away)
		l.start()
		ended("away-"+policy, 5)
		for _, name := range []string{"up-" + policy, "away-" + policy} {
			assert.Check(t, is.Contains(l.docker("logs", name), "bye"))
			// It is over for whoever ended it, and not started again behind his back.
			assert.Equal(t, l.inspect(name).State.Status, container.StateExited, name)
			l.docker("start", name)
			l.docker("rm", "--force", name)
		}
	}

	// Nobody knows how it ended: not the unit, and not its own list of exits.
	id := run("vanished")
	l.stop()
	stop(id)
	l.tryExec("systemctl", "reset-failed", "lrd-"+id+".service") // it need not have failed
	l.eventually(20*time.Second, "the unit is gone", func() bool {
		return l.exec("systemctl", "show", "--property=LoadState", "--value", "lrd-"+id+".service") == "not-found"
	})
	l.exec("rm", "-f", "/run/lrd/containers/"+id+"/exits")
	l.start()
	ended("vanished", 255)
	assert.Equal(t, l.inspect("bystander").ID, bystander)
	l.counted("bystander")

	// A unit that fails to be what it was: lrd was away, and somebody has killed everything.
	id = run("killed")
	l.stop()
	l.exec("systemctl", "kill", "--signal=KILL", "lrd-"+id+".service")
	l.eventually(20*time.Second, "it is dead", func() bool {
		return l.exec("systemctl", "show", "--property=ActiveState", "--value", "lrd-"+id+".service") == "failed"
	})
	l.exec("systemctl", "reset-failed", "lrd-"+id+".service")
	l.start()
	l.status("killed", container.StateExited)
	code := l.inspect("killed").State.ExitCode
	// Whoever kills the whole control group may hit the helper that notes the exit.
	assert.Check(t, code == 137 || code == 255, "%d", code)
	l.docker("start", "killed")
	l.docker("rm", "--force", "vanished", "killed", "bystander")
	l.assertClean()
}
