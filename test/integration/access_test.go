//go:build integration

package integration

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// TestAccess is who may use the API: root and the members of the group lrd.
func TestAccess(t *testing.T) {
	t.Parallel()
	l := boot(t)
	id := l.docker("run", "-dit", "--name", "private", "busybox", "sh")
	group := strings.Split(l.exec("getent", "group", "lrd"), ":")[2]
	for _, moment := range []string{"at first", "after a restart", "after a stop of both units"} {
		switch moment {
		case "after a restart":
			l.restart()
		case "after a stop of both units":
			l.exec("systemctl", "stop", "lrd.service", "lrd.socket")
			l.exec("systemctl", "start", "lrd.socket")
		}
		assert.Equal(t, l.exec("stat", "--format=%U:%G %a %F", "/run/lrd.sock"), "root:lrd 660 socket", moment)
		for _, c := range []struct {
			who  string
			args []string
			in   bool
		}{
			{"root", []string{"--reuid=0", "--regid=0", "--clear-groups"}, true},
			{"a member of lrd", []string{"--reuid=4711", "--regid=4711", "--groups=" + group}, true},
			{"somebody whose first group is lrd", []string{"--reuid=4711", "--regid=" + group, "--clear-groups"}, true},
			{"somebody else", []string{"--reuid=4711", "--regid=4711", "--clear-groups"}, false},
			{"nobody", []string{"--reuid=65534", "--regid=65534", "--clear-groups"}, false},
			{"somebody of root's group", []string{"--reuid=4711", "--regid=0", "--clear-groups"}, false},
			{"somebody of docker's group", []string{"--reuid=4711", "--regid=4711", "--groups=4712"}, false},
		} {
			args := append([]string{"setpriv"}, c.args...)
			r := l.tryExec(append(args, "env", "HOME=/nonexistent", "docker", "--host", "unix:///run/lrd.sock", "ps", "--no-trunc", "--quiet")...)
			if c.in {
				assert.Check(t, r.code == 0 && r.stdout == id, "%s, %s: %s", c.who, moment, r)
				continue
			}
			assert.Check(t, r.code != 0 && strings.Contains(r.stderr, "permission denied"), "%s, %s: %s", c.who, moment, r)
			r = l.tryExec(append(args, "lrd", "reload")...)
			assert.Check(t, r.code != 0 && strings.Contains(r.stderr, "be root or in its group"), "%s, %s: %s", c.who, moment, r)
		}
	}

	// There is no way around the API: neither to what is known of a container, nor to its streams.
	for _, path := range []string{
		"/var/lib/lrd/containers/" + id + "/record.json",
		"/var/lib/lrd/containers/" + id + "/output",
		"/run/lrd/containers/" + id + "/bundle/config.json",
		"/run/lrd/containers/" + id + "/console-listener",
		"/run/lrd/containers/" + id + "/console-pipe",
		"/run/lrd/runtime/" + id,
		"/var/lib/lrd/storage/overlay-containers",
	} {
		assert.Check(t, l.tryExec("test", "-e", path).code == 0, "%s: there is no such file, so this shows nothing", path)
		for _, test := range []string{"-r", "-w", "-x"} {
			r := l.tryExec("setpriv", "--reuid=4711", "--regid=4711", "--clear-groups", "test", test, path)
			assert.Check(t, is.Equal(r.code, 1), "test %s %s by somebody else", test, path)
		}
	}
}
