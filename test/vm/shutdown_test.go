//go:build vm

package vm

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"gotest.tools/v3/assert"
)

// telling is a container that says when it is told to end, in its output and elsewhere, and then exits with a code.
func (m *machine) telling(name, policy string, code int, options string) {
	m.t.Helper()
	m.sh(fmt.Sprintf(`docker run --detach --name %[1]s --restart %[2]s --volume /data:/data %[4]s busybox sh -c '
		trap "echo told >>/data/told.%[1]s; echo told; exit %[3]d" TERM INT; echo ready; while :; do sleep 100000 & wait; done'`, name, policy, code, options))
	m.eventually("docker logs " + name + " | tr -d '\\r' | grep -qx ready")
}

// restarts lets the machine go down and waits until it is there again.
func (m *machine) restarts(how string) {
	m.t.Helper()
	const boot = "cat /proc/sys/kernel/random/boot_id"
	before := m.sh(boot)
	m.sh("(sleep 1; " + how + ") >/dev/null 2>&1 </dev/null &")
	m.awaitAgent()
	assert.Assert(m.t, m.sh(boot) != before)
}

// reboot is the machine's: containers are told in order, and those come back that should.
func reboot(m *machine) {
	m.sh("docker network create inside")
	m.telling("no", "no", 3, "")
	m.telling("always", "always", 0, "--network inside --publish 8081:80")
	m.telling("unless-stopped", "unless-stopped", 0, "--stop-signal INT --tty")
	m.telling("failed", "on-failure", 3, "")
	m.telling("succeeded", "on-failure", 0, "")
	m.telling("removed", "no", 0, "--rm")
	m.telling("deaf", "no", 0, "--stop-timeout 2 --stop-signal HUP")
	m.sh("docker run --detach --name stopped --restart unless-stopped busybox sleep 100000; docker stop --time 0 stopped")
	m.sh("docker run --detach --name stopped-always --restart always busybox sleep 100000; docker stop --time 0 stopped-always")
	m.sh("docker create --name created --restart always busybox sleep 100000")
	names := map[string]string{} // of units, to those of containers
	for line := range strings.Lines(m.sh("docker ps --no-trunc --format '{{.ID}} {{.Names}}'")) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		names["lrd-"+id+".service"] = name
	}
	m.restarts("systemctl reboot")

	for name, want := range map[string]string{
		"no": "exited 3", "always": "running 0", "unless-stopped": "running 0", "failed": "running 0", "succeeded": "exited 0", "deaf": "exited 137",
		"stopped": "exited 137", "stopped-always": "running 0", "created": "created 0",
	} {
		m.eventually("[ \"$(docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' " + name + ")\" = '" + want + "' ]")
	}
	m.eventually("! docker inspect removed")
	for _, name := range []string{"no", "always", "unless-stopped", "failed", "succeeded", "removed"} {
		assert.Equal(m.t, m.sh("cat /data/told."+name), "told")
	}
	for name, want := range map[string]string{
		"no": "ready told", "always": "ready told ready", "unless-stopped": "ready told ready", "failed": "ready told ready", "succeeded": "ready told", "deaf": "ready",
	} {
		m.eventually("[ \"$(echo $(docker logs " + name + " | tr -d '\\r'))\" = '" + want + "' ]")
	}
	m.sh("docker exec always sh -c 'mkdir /w; echo served >/w/index.html; httpd -p 80 -h /w'")
	assert.Equal(m.t, m.sh("busybox wget -q -O - http://127.0.0.1:8081"), "served")
	assert.Equal(m.t, m.sh("systemctl list-units --failed --plain --no-legend"), "")

	// The daemon is stopped when the last container has ended, and ends cleanly.
	journal := strings.Split(m.sh("journalctl --boot=-1 --output=cat _PID=1 | grep -E '^(Stopping|Stopped|lrd)'"), "\n")
	daemon := -1 // at the end: it may have been stopped before
	for i, line := range journal {
		if strings.HasPrefix(line, "Stopping lrd.service") {
			daemon = i
		}
	}
	seen := regexp.MustCompile(`^Stopped (lrd-[0-9a-f]{64}\.service)`)
	for i, line := range journal {
		if found := seen.FindStringSubmatch(line); found != nil && names[found[1]] != "" {
			assert.Assert(m.t, i < daemon, "%s is stopped after lrd", names[found[1]])
			delete(names, found[1])
		}
	}
	assert.Assert(m.t, daemon >= 0, "lrd is not stopped: %q", journal)
	assert.Equal(m.t, len(names), 0, "these are not stopped: %v", names)
	assert.Assert(m.t, strings.Contains(strings.Join(journal[daemon:], "\n"), "\nlrd.service: Deactivated successfully"), "%q", journal[daemon:])
}

// powerOff ends the machine, with containers in it.
func powerOff(m *machine) {
	m.sh("(sleep 1; systemctl poweroff) >/dev/null 2>&1 </dev/null &")
	select {
	case <-m.ended:
	case <-time.After(bootLimit):
		m.t.Fatalf("the machine did not go down in %s", bootLimit)
	}
	console, err := os.ReadFile(m.console)
	assert.NilError(m.t, err)
	for _, bad := range []string{"FAILED", "Failed unmounting", "timed out"} {
		assert.Assert(m.t, !strings.Contains(string(console), bad), bad)
	}
}
