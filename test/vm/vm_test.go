//go:build vm

package vm

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// TestMachine is a life of a machine with lrd: each subtest goes on where the one before ended.
func TestMachine(t *testing.T) {
	m := boot(t)
	controllers := strings.Fields(m.sh("cat /sys/fs/cgroup/cgroup.controllers"))
	for _, want := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		assert.Assert(t, is.Contains(controllers, want), "the kernel has not what this test is for")
	}
	m.eventually("systemctl is-active lrd")
	m.sh(`d=$(mktemp -d); mkdir $d/bin $d/tmp /data; cp "$(command -v busybox)" $d/bin; $d/bin/busybox --install $d/bin
		tar -C $d -c . | docker import - busybox; rm -r $d`)

	for _, part := range []struct {
		name string
		test func(*machine)
	}{
		{"Journey", journey},
		{"Memory", memory},
		{"Swap", swap},
		{"Processor", processor},
		{"Processes", processes},
		{"Disk", disk},
		{"Devices", devices},
		{"Update", update},
		{"Reboot", reboot},
		{"PowerOff", powerOff},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.test(m.in(t)) }) {
			t.Log(m.sh("journalctl --no-pager -n 100 -u lrd -u 'lrd-*'; systemctl --failed --no-pager"))
			return // what follows would only tell the same
		}
	}
}

// journey is the main job: a container and its output go on over a restart, a stop and a crash of lrd.
func journey(m *machine) {
	m.sh(`docker run --detach --name count --volume /data:/data --publish 8080:80 busybox sh -c '
		echo served >/tmp/index.html; httpd -p 80 -h /tmp
		i=0; until [ -e /data/enough ]; do i=$((i+1)); echo $i; usleep 100000; done; echo over'`)
	m.sh("docker logs --follow count >/data/followed 2>&1 &")
	pid := m.inspect("count", ".State.Pid")
	further := func() {
		m.t.Helper()
		m.sh("docker logs --tail 1 count >/data/last")
		m.eventually(`[ "$(docker logs --tail 1 count)" != "$(cat /data/last)" ]`)
		assert.Equal(m.t, m.sh("busybox wget -q -O - http://127.0.0.1:8080"), "served")
		assert.Equal(m.t, m.inspect("count", ".State.Pid"), pid)
	}
	further()
	m.sh("systemctl restart lrd")
	further()
	m.sh("systemctl kill --kill-whom=main --signal=KILL lrd")
	further()
	m.sh("systemctl stop lrd.socket lrd; sleep 1; systemctl start lrd.socket lrd")
	further()
	m.sh("touch /data/enough")
	assert.Equal(m.t, m.sh("docker wait count"), "0")
	m.sh("docker logs count >/data/whole")
	m.sh("{ seq $(($(wc -l </data/whole) - 1)); echo over; } | diff - /data/whole")
	// What was being written when lrd was killed may be doubled, see internal/sessions; nothing is lost or in another order.
	m.eventually("busybox awk '!seen[$0]++' /data/followed | diff - /data/whole")
	m.sh("docker rm count")
}
