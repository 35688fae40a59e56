//go:build integration

package integration

import (
	"fmt"
	"strings"
	"time"
)

// assertClean waits until nothing of a container is left in the lab. It is for
// when all containers have been removed. What is put away in the background may
// take a moment.
func (l *lab) assertClean() {
	l.t.Helper()
	const limit = 20 * time.Second
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
		systemctl list-units --all --plain --no-legend --no-pager 'lrd-*.service' | cut -d' ' -f1 | list unit
		systemctl list-units --all --plain --no-legend --no-pager --type=mount | grep -E 'lrd.*(merged|overlay|netns)' | list 'mount unit'
		grep -E ' /(run|var/lib)/lrd/' /proc/self/mountinfo | cut -d' ' -f5 | grep -vE '^/var/lib/lrd$|^/var/lib/lrd/storage/overlay$' | list mount
		find /run/lrd/containers /run/lrd/netns /run/lrd/crun /var/lib/lrd/containers -mindepth 1 2>/dev/null | list file
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
