//go:build integration

package integration

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// TestPackage: the package for Debian is installed, upgraded, removed, installed again and purged. Containers go on until
// the purge, which leaves nothing of lrd, and all that is not lrd's.
func TestPackage(t *testing.T) {
	t.Parallel()
	l := boot(t, withoutImage())
	l.uninstall()
	l.dpkg("--install", l.deb("1.0"))
	assert.Equal(t, l.exec("systemctl", "is-enabled", "lrd.socket", "lrd.service"), "enabled\nenabled")
	assert.Equal(t, l.exec("stat", "--format=%G", "/run/lrd.sock"), "lrd")
	l.load(busybox())
	l.exec("mkdir", "/srv/kept")
	l.docker("network", "create", "net")
	l.docker("volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", "device=/srv/kept", "kept")
	l.counter("web", "--network=net", "--volume=kept:/kept", "--restart=always", "--stop-timeout=1", "--health-cmd=true", "--health-interval=1s")
	pid := l.inspect("web").State.Pid
	goesOn := func() {
		t.Helper()
		l.fine("web", pid)
	}
	l.healthIs("web", container.Healthy)

	// An upgrade: a new daemon and new helpers, the same container, its client and the administrator's configuration.
	l.config("debug = true\n")
	reader := l.follows("logs", "--follow", "web")
	helpers := func() []string {
		return strings.Fields(l.exec("systemctl", "show", "--property=MainPID", "--value", "lrd.service", "lrd-standby.service", "lrd-dns.service"))
	}
	before := helpers()
	newer := l.deb("1.1")
	l.dpkg("--install", newer)
	after := helpers()
	for i, old := range before {
		assert.Check(t, old != "0" && after[i] != "0" && old != after[i], "%v are now %v", before, after)
	}
	goesOn()
	assert.Check(t, is.Contains(l.docker("info"), "Debug Mode: true"))
	had := reader.read.Load()
	l.eventually(time.Minute, "docker logs goes on", func() bool { return reader.read.Load() > had })
	assert.NilError(t, reader.cmd.Process.Kill())
	last, _ := reader.ends(t)
	assert.Check(t, last > 10)

	// What is stopped stays stopped.
	l.stop()
	l.dpkg("--install", newer)
	assert.Equal(t, l.tryExec("systemctl", "is-active", "lrd.service", "lrd-standby.service", "lrd.socket").stdout, "inactive\nactive\nactive")
	l.start()
	goesOn()

	// A removal stops lrd alone, and who installs it again finds all of it.
	said := l.dpkg("--remove", "lrd")
	assert.Check(t, is.Contains(said, "containers run on"))
	l.exec("test", "!", "-e", "/usr/bin/lrd", "-a", "!", "-e", "/run/lrd.sock", "-a", "-e", "/etc/lrd/lrd.toml", "-a", "-d", fmt.Sprintf("/proc/%d", pid))
	l.dpkg("--install", newer)
	goesOn()

	l.writeFile("/srv/kept/file", "somebody's")
	l.dpkg("--purge", "lrd")
	left := ""
	defer func() {
		if t.Failed() {
			t.Log("left:", left)
		}
	}()
	l.eventually(20*time.Second, "nothing is left", func() bool { // a unit is collected when systemd comes to it
		left = l.exec("sh", "-c", `
			systemctl list-units --all --plain --no-legend 'lrd*'
			ls -d /etc/lrd /run/lrd* /usr/libexec/lrd /usr/lib/systemd/system/lrd* /var/lib/lrd/* 2>/dev/null
			find /etc/systemd /var/lib/systemd -name '*lrd*'
			grep -o ' /[^ ]*lrd/[^ ]*' /proc/self/mountinfo
			nft list tables | grep lrd
			ip -o link show | grep lrd
			true`)
		return left == ""
	})
	assert.Equal(t, l.readFile("/srv/kept/file"), "somebody's")
}

// uninstall takes away what boot has installed, so that the machine has never had lrd.
func (l *lab) uninstall() {
	l.t.Helper()
	l.exec("sh", "-ec", `
		systemctl --quiet disable --now lrd.socket lrd.service
		systemctl stop lrd-standby.service lrd-dns.socket lrd-dns.service
		! mountpoint -q /var/lib/lrd/storage/overlay || umount /var/lib/lrd/storage/overlay
		rm -rf /usr/bin/lrd /usr/libexec/lrd /usr/lib/systemd/system/lrd* /usr/lib/sysusers.d/lrd.conf /usr/lib/tmpfiles.d/lrd.conf \
			/usr/share/man/man*/lrd* /etc/lrd /run/lrd /run/lrd.sock /var/lib/lrd/*
		groupdel lrd
		systemctl daemon-reload
		printf '#!/bin/sh\n' >/usr/sbin/policy-rc.d # services may start; the machine below may have one that says no
		chmod +x /usr/sbin/policy-rc.d`)
}

// deb builds a package of what is tested, puts it into the lab and tells where.
func (l *lab) deb(version string) (path string) {
	l.t.Helper()
	out := l.path("/root")
	build := exec.CommandContext(l.t.Context(), "../../packaging/deb/build", filepath.Dir(suite.bin), version, out)
	build.Env = append(build.Environ(), "DPKG_DEB_COMPRESSOR_TYPE=none")
	l.must("build a package", l.run(build, nil))
	found, err := filepath.Glob(filepath.Join(out, "lrd_"+version+"_*.deb"))
	assert.NilError(l.t, err)
	assert.Assert(l.t, is.Len(found, 1))
	return filepath.Join("/root", filepath.Base(found[0]))
}

// dpkg runs dpkg and gives back what it says. Without the triggers of other packages: man-db's index takes longer than all else.
func (l *lab) dpkg(args ...string) string {
	l.t.Helper()
	return l.exec(append([]string{"env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--no-triggers"}, args...)...)
}
