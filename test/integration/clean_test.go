//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// TestNothingLeft makes containers of every kind, ends them in every way, and
// looks at what is left: in the lab, and open in lrd itself.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.exec("mkdir", truth)
	round := func() {
		l.docker("run", "--rm", "busybox", "true")
		l.docker("run", "--detach", "--name", "published", "--publish", "8080:80", "--publish", "5353:53/udp", "busybox", "sleep", "10000")
		l.docker("run", "--detach", "--name", "sharing", "--network", "container:published", "busybox", "sleep", "10000")
		l.docker("run", "--detach", "--name", "console", "--interactive", "--tty", "--network", "host", "busybox", "sh")
		l.docker("run", "--detach", "--name", "mounts", "--interactive", "--restart", "always",
			"--volume", "/data", "--volume", truth+":/truth", "--tmpfs", "/scratch", "--read-only", "busybox", "sleep", "10000")
		l.docker("run", "--detach", "--name", "ended", "--publish", "81", "busybox", "false")
		l.docker("create", "--name", "made", "busybox")
		assert.Equal(t, l.tryDocker("run", "--name", "impossible", "--publish", "82:82", "busybox", "/no/such/command").code, 127)
		l.docker("wait", "ended")
		l.docker("restart", "--time", "0", "sharing")
		l.docker("pause", "console")
		l.restart()
		l.docker("stop", "--time", "0", "mounts")
		l.docker("start", "mounts")
		l.docker("rm", "--force", "--volumes", "sharing", "published", "console", "mounts", "ended", "made", "impossible")
		l.assertClean()
	}
	round() // what is made once and stays: the bridge, its rules
	// Without the times at which clocks and counters were read.
	system := func() string {
		return l.exec("bash", "-c", `
			ip -brief link | cut -d' ' -f1
			nft list ruleset
			findmnt --noheadings --output TARGET --raw | sort
			systemctl list-units --all --plain --no-legend --no-pager 'lrd*' | awk '{ print $1, $3 }'
			find /var/lib/lrd/volumes /run/lrd -mindepth 1 | sort`)
	}
	before := system()
	round()
	assert.Equal(t, system(), before)

	open := func() []string {
		return strings.Split(l.exec("bash", "-c", `
			cd /proc/$(systemctl show --property=MainPID --value lrd.service)/fd
			for fd in *; do readlink "$fd" || true; done | sort`), "\n")
	}
	use := func() {
		l.docker("run", "--rm", "--interactive", "--publish", "8080:80", "busybox", "true")
		l.docker("run", "--rm", "--volume", "/data", "busybox", "true")
		l.assertClean()
	}
	use()
	first := open()
	for range 5 {
		use()
	}
	// The first list may hold a connection that was being closed just then; what leaks has leaked five times since.
	last := first
	defer func() {
		if t.Failed() {
			t.Logf("open at first:\n%s\nand at last:\n%s", strings.Join(first, "\n"), strings.Join(last, "\n"))
		}
	}()
	l.eventually(20*time.Second, "lrd has no more descriptors open than before", func() bool {
		last = open()
		return len(last) <= len(first)
	})
}

// assertClean waits until nothing of a container is left in the lab. It is for
// when all containers have been removed. What is put away in the background may
// take a moment.
func (l *lab) assertClean() {
	l.t.Helper()
	const limit = patience * 20 * time.Second
	deadline := time.Now().Add(limit)
	for {
		left := l.leftovers()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("all containers are removed, and after %s there still are:\n\t%s", limit, strings.Join(left, "\n\t"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// leftovers lists what containers have left: each line says what it is.
func (l *lab) leftovers() []string {
	l.t.Helper()
	script := `
		list() { sed "s|^|$1: |"; }
		systemctl list-units --all --plain --no-legend --no-pager 'lrd-*.service' | cut -d' ' -f1 | grep -vE '^lrd-(standby|dns).service' | list unit
		systemctl list-units --all --plain --no-legend --no-pager --type=mount | grep -E 'lrd.*(merged|overlay|netns)' | grep -v '^var-lib-lrd-storage-overlay.mount' | list 'mount unit'
		grep -E ' /(run|var/lib)/lrd/' /proc/self/mountinfo | cut -d' ' -f5 | grep -vE '^/var/lib/lrd$|^/var/lib/lrd/storage/overlay$' | list mount
		find /run/lrd/containers /run/lrd/execs /run/lrd/netns /run/lrd/dns /run/lrd/crun /var/lib/lrd/containers -mindepth 1 2>/dev/null | list file
		find /var/lib/lrd/tmp -type f 2>/dev/null | list file
		find /sys/fs/cgroup/lrd.slice -mindepth 1 -type d 2>/dev/null | list 'control group'
		ip -o link show type veth 2>/dev/null | cut -d: -f2 | list link
		stored=$(systemctl show --property=NFileDescriptorStore --value lrd.service)
		[ "$stored" = 0 ] || echo "descriptors in the store of lrd.service: $stored"
		`
	var left []string
	for line := range strings.Lines(l.exec("bash", "-c", script)) {
		left = append(left, strings.TrimSpace(line))
	}
	if all := l.docker("ps", "--all", "--quiet"); all != "" {
		left = append(left, fmt.Sprintf("containers: %q", all))
	}
	return left
}
