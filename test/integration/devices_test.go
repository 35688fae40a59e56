//go:build integration

package integration

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

const thing = `{"cdiVersion": "0.5.0", "kind": "vendor.example/thing", "devices": [{"name": "one", "containerEdits": {
	"env": ["THING=one"],
	"deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/full", "type": "c", "major": 1, "minor": 7}],
	"mounts": [{"hostPath": "/etc/cdi", "containerPath": "/lib/thing", "options": ["ro", "bind"]}]}}]}`

// TestDevices gives containers devices: by name, by path and by number, through the unit, from which systemd takes none.
func TestDevices(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.refused(125, []string{"could not select device driver", "there are no CDI devices"}, "run", "--rm", "--gpus", "all", "busybox", "true")
	l.writeFile("/etc/cdi/thing.json", thing)
	said := l.docker("run", "--rm", "--device", "vendor.example/thing=one", "busybox", "sh", "-c", "echo $THING; busybox stat -c '%t:%T' /dev/thing; busybox ls /lib/thing")
	assert.Check(t, is.Equal(said, "one\n1:7\nthing.json"))
	l.refused(125, []string{"unresolvable CDI devices vendor.example/thing=two", "vendor.example/thing=one"}, "run", "--rm", "--device", "vendor.example/thing=two", "busybox", "true")

	id := l.docker("run", "--detach", "--name", "many", "--device", "vendor.example/thing=one", "--device", "/dev/null:/dev/nothing:r", "--device-cgroup-rule", "c 10:200 rw", "busybox", "sleep", "1000")
	for range 2 {
		allowed := l.exec("systemctl", "show", "--property=DevicePolicy", "--property=DeviceAllow", "lrd-"+id+".service")
		for _, want := range []string{"DevicePolicy=strict", "/dev/char/1:7 rwm", "/dev/char/1:3 rwm", "/dev/char/10:200 rw"} {
			assert.Check(t, strings.Contains(allowed, want), "%s: %s", want, allowed)
		}
		assert.Check(t, is.Equal(l.docker("exec", "many", "sh", "-c", "echo x >/dev/thing || echo full"), "full"))
		l.exec("systemctl", "daemon-reload")
	}
	l.docker("rm", "--force", "many")
	l.assertClean()
}
