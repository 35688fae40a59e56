//go:build integration

package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// killer is the runtime, but that lrd is killed when it has made the container: the moment at which a start is half done.
const killer = `#!/bin/sh
for word; do [ "$word" = create ] && kill=yes; done
[ "$kill" ] || exec /usr/bin/crun "$@"
/usr/bin/crun "$@" || exit
kill -KILL "$(systemctl show --property=MainPID --value lrd.service)"
`

// The process of a container without a restart policy begins when lrd says so, and, if lrd is not there to say it, when it is back; if it is systemd that
// starts the container again, by itself.
func TestBegin(t *testing.T) {
	t.Parallel()
	l := boot(t)
	crun := strings.TrimSpace(l.exec("sh", "-c", "command -v crun"))
	l.writeFile("/opt/killer/crun", strings.ReplaceAll(killer, "/usr/bin/crun", crun))
	l.exec("chmod", "+x", "/opt/killer/crun")
	l.config("[runtimes.killer]\npath = \"/opt/killer/crun\"\n")
	assert.NilError(t, l.reload())
	begun := func(name string, times int) {
		t.Helper()
		l.eventually(20*time.Second, name+" has begun", func() bool {
			return strings.Count(l.docker("logs", name), "begun") == times
		})
	}

	for _, flags := range []string{"--interactive=false", "--tty"} {
		name := "half" + flags[:3]
		r := l.tryDocker("run", flags, "--detach", "--runtime", "killer", "--name", name, "busybox", "sh", "-c", "echo begun; exec sleep 1000")
		assert.Check(t, r.code != 0, "the daemon was to be killed under the client")
		l.status(name, container.StateRunning)
		begun(name, 1)
		l.docker("exec", name, "true")
		l.docker("kill", name)
		assert.Check(t, is.Equal(l.inspect(name).State.ExitCode, 137))
		l.docker("rm", name)
	}

	id := l.docker("run", "--detach", "--name", "again", "busybox", "sh", "-c", "echo begun; exec sleep 1000")
	begun("again", 1)
	l.stop()
	l.exec("systemctl", "restart", "lrd-"+id+".service")
	l.start()
	begun("again", 2)
	l.exec("systemctl", "kill", "--signal=KILL", "--kill-who=main", "lrd-"+id+".service")
	assert.Check(t, is.Equal(l.docker("wait", "again"), "137"))
	l.docker("rm", "again")
	l.assertClean()
}
