//go:build integration

package integration

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// swarmSentence is Docker's.
const swarmSentence = "--live-restore daemon configuration is incompatible with swarm mode"

// systemdStatus is the line of systemctl status that lrd writes itself.
func (l *lab) systemdStatus() string {
	l.t.Helper()
	return l.exec("systemctl", "show", "--property=StatusText", "--value", "lrd.service")
}

// debugging says whether debug is on.
func (l *lab) debugging() bool {
	l.t.Helper()
	return l.docker("info", "--format", "{{.Debug}}") == "true"
}

// hangup sends SIGHUP to lrd.
func (l *lab) hangup() {
	l.t.Helper()
	l.exec("systemctl", "kill", "--signal=HUP", "--kill-who=main", "lrd.service")
}

// refusedReload checks that a reload fails visibly and changes nothing. Each of says is to be read in systemctl status.
func (l *lab) refusedReload(says ...string) {
	l.t.Helper()
	debug, pid := l.debugging(), l.exec("systemctl", "show", "--property=MainPID", "--value", "lrd.service")
	if err := l.reload(); err == nil {
		l.t.Error("systemctl reload succeeds")
	}
	status := l.exec("sh", "-c", "systemctl --no-pager --full status lrd.service || true")
	for _, s := range says {
		assert.Check(l.t, is.Contains(l.systemdStatus(), s))
		assert.Check(l.t, is.Contains(status, s))
	}
	assert.Equal(l.t, l.debugging(), debug)
	assert.Equal(l.t, l.exec("systemctl", "show", "--property=MainPID", "--value", "lrd.service"), pid)
	assert.Equal(l.t, l.exec("systemctl", "is-active", "lrd.service"), "active")
}

// TestReload is everything that can be in the file when lrd is told to read it again.
func TestReload(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.docker("run", "-d", "--name", "bystander", "busybox", "sleep", "10000")
	pid := l.inspect("bystander").State.Pid
	assert.Check(t, !l.debugging())

	l.config("debug = true\n")
	assert.NilError(t, l.reload())
	assert.Check(t, l.debugging(), "a good file")

	l.config("debug = false\nlive-restor = true\n")
	l.refusedReload("/etc/lrd/lrd.toml:2", "live-restor: unknown key", "live-restore")
	l.config("debug = false\nshutdown-timeout = [1]\n")
	l.refusedReload("/etc/lrd/lrd.toml:2", "shutdown-timeout")
	l.config("debug = \"yes\"\n")
	l.refusedReload("/etc/lrd/lrd.toml:1", "debug", "true or false")
	l.config("debug = \n")
	l.refusedReload("/etc/lrd/lrd.toml:1")
	l.config("debug = false\nswarm = true\n")
	l.refusedReload(swarmSentence)

	l.config("debug = false\n\nseccomp-profile = \"/nowhere.json\"\n")
	l.refusedReload("/etc/lrd/lrd.toml:3: seccomp-profile", "/nowhere.json: no such file")
	// Each mistake is told, not only the first.
	l.config("debug = 1\nnonsense = 2\n")
	l.refusedReload("debug", "nonsense")

	// After the reload that succeeds, nothing is said of the one that failed.
	l.config("")
	assert.NilError(t, l.reload())
	assert.Check(t, !l.debugging(), "the key is gone from the file, and its default is back")
	assert.Check(t, !strings.Contains(l.systemdStatus(), "failed"), l.systemdStatus())

	// A key that needs a restart is named, and the others take effect.
	l.config("debug = true\nbip = \"10.99.0.1/24\"\n")
	assert.NilError(t, l.reload())
	assert.Check(t, l.debugging())
	assert.Check(t, is.Contains(l.systemdStatus(), "waiting for a restart: bip"))
	out := l.exec("lrd", "reload")
	assert.Check(t, is.Contains(out, "needs a restart of lrd: bip"))
	gateway := l.docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
	assert.Check(t, gateway != "10.99.0.1", "it is applied without a restart")

	// A missing file is one without any key.
	l.exec("rm", "/etc/lrd/lrd.toml")
	assert.NilError(t, l.reload())
	assert.Check(t, !l.debugging())
	assert.Check(t, !strings.Contains(l.systemdStatus(), "waiting"), l.systemdStatus())

	// A drop-in counts as the file does.
	l.writeFile("/etc/lrd/lrd.toml.d/50-debug.toml", "debug = true\n")
	assert.NilError(t, l.reload())
	assert.Check(t, l.debugging())
	l.writeFile("/etc/lrd/lrd.toml.d/60-bad.toml", "debug = 5\n")
	l.refusedReload("/etc/lrd/lrd.toml.d/60-bad.toml:1")

	assert.Equal(t, l.inspect("bystander").State.Pid, pid)
}

// TestSecondDaemon is somebody who starts lrd by hand, or another service of it: nothing happens to the one that runs.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	l := boot(t, withoutImage())
	socket := l.exec("stat", "--format=%i", "/run/lrd.sock")
	r := l.tryExec("lrd", "serve")
	assert.Check(t, r.code == 1 && strings.Contains(r.stderr, "systemctl start lrd"), r)
	r = l.tryExec("systemd-run", "--quiet", "--pipe", "--wait", "--collect",
		"--property=Type=notify", "--property=NotifyAccess=main", "--property=FileDescriptorStoreMax=9", "/usr/bin/lrd", "serve")
	assert.Check(t, r.code != 0 && strings.Contains(r.stderr, "cannot use data-root /var/lib/lrd: another lrd uses it"), r)
	assert.Equal(t, l.exec("stat", "--format=%i", "/run/lrd.sock"), socket)
	l.docker("version")
	l.assertClean()
}

// TestReloadSignal is SIGHUP, which cannot fail visibly but in the status and in the log.
func TestReloadSignal(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.config("debug = true\n")
	l.hangup()
	l.eventually(20*time.Second, "debug is on", l.debugging)
	l.config("debug = 7\n")
	l.hangup()
	l.eventually(20*time.Second, "the status tells of the failure", func() bool {
		return strings.Contains(l.systemdStatus(), "failed: /etc/lrd/lrd.toml:1: debug")
	})
	assert.Check(t, l.debugging(), "the old configuration stays")
	assert.Check(t, is.Contains(l.journal("--unit=lrd"), "/etc/lrd/lrd.toml:1: debug"))
	l.config("")
	l.hangup()
	l.eventually(20*time.Second, "debug is off", func() bool { return !l.debugging() })
	// It is debug's turn first: the reload as a whole may take a moment more.
	l.eventually(20*time.Second, "the reload is over", func() bool {
		return l.exec("systemctl", "show", "--property=ActiveState", "--value", "lrd.service") == "active"
	})
}

// TestReloadCrowd is twenty reloads at once, of both kinds, while containers are being started.
func TestReloadCrowd(t *testing.T) {
	t.Parallel()
	l := boot(t)
	var all sync.WaitGroup
	errs := make(chan error, 100)
	for i := range 3 {
		all.Go(func() {
			for n := range 4 {
				r := l.tryDocker("run", "--rm", "busybox", "sh", "-c", "echo $((6*7)); exit 9")
				if r.code != 9 || r.stdout != "42" {
					errs <- fmt.Errorf("run %d of %d: %s", n, i, r)
				}
			}
		})
	}
	for i := range 20 {
		all.Go(func() {
			// Every one has to succeed, and to answer for what was in the file when it was asked for.
			if r := l.tryExec("lrd", "reload"); r.code != 0 {
				errs <- fmt.Errorf("reload %d: %s", i, r)
			}
		})
	}
	for i := range 5 {
		l.config("debug = " + strconv.FormatBool(i%2 == 0) + "\n")
		l.hangup()
		if err := l.reload(); err != nil {
			t.Error(err)
		}
		assert.Equal(t, l.debugging(), i%2 == 0)
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	l.assertClean()
}

// TestSwarm is what Docker says of live-restore and swarm mode, at each place where somebody may ask for both.
func TestSwarm(t *testing.T) {
	t.Parallel()
	l := boot(t, withoutImage())
	c := l.client()
	_, err := c.SwarmInit(t.Context(), client.SwarmInitOptions{ListenAddr: "0.0.0.0:2377"})
	assert.ErrorContains(t, err, swarmSentence)
	_, err = c.SwarmJoin(t.Context(), client.SwarmJoinOptions{ListenAddr: "0.0.0.0:2377", RemoteAddrs: []string{"192.0.2.1:2377"}, JoinToken: "x"})
	assert.ErrorContains(t, err, swarmSentence)
	for _, l := range []*lab{l, l.old()} {
		l.refused(1, []string{swarmSentence}, "swarm", "init")
	}

	// Without live-restore there is no swarm mode either, and somebody is told what there is.
	l.config("live-restore = false\n")
	assert.NilError(t, l.reload())
	r := l.tryDocker("swarm", "init")
	assert.Check(t, r.code == 1 && strings.Contains(r.stderr, "swarm mode") && !strings.Contains(r.stderr, "live-restore"), r)

	l.config("live-restore = true\nswarm = true\n")
	r = l.tryExec("lrd", "validate")
	assert.Check(t, r.code != 0 && strings.Contains(r.stderr, swarmSentence), r)
	l.refusedReload(swarmSentence)
	r = l.tryExec("lrd", "serve", "--live-restore", "--swarm")
	assert.Check(t, r.code == 78 && strings.Contains(r.stderr, swarmSentence), r)
	l.stop()
	// systemd tries again and again; what is wrong is in the log for whoever looks.
	l.tryExec("timeout", "3", "systemctl", "start", "lrd.service")
	l.eventually(20*time.Second, "the log says why lrd does not start", func() bool {
		return strings.Contains(l.journal("--unit=lrd", "--lines=20"), swarmSentence)
	})
	// And once it is right, it comes up by itself.
	l.config("")
	l.eventually(30*time.Second, "lrd is up", func() bool {
		return l.exec("systemctl", "show", "--property=ActiveState", "--value", "lrd.service") == "active"
	})
	l.docker("version")
}
