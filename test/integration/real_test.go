//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// realPackages are what the image of TestRealImage has besides a minimal Debian.
const realPackages = "postgresql,postgresql-contrib,nginx-light"

// realTree is a tar of a Debian with these packages. It is made once and kept with the labs' trees: it takes
// about a minute, and a mirror of Debian.
func realTree(t *testing.T) string {
	t.Helper()
	cache := environment("LRD_LAB_CACHE", "/var/cache/lrd-lab")
	path := filepath.Join(cache, "real-"+strings.ReplaceAll(realPackages, ",", "-")+".tar")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	building := filepath.Join(t.TempDir(), "real.tar")
	args := []string{"--variant=minbase", "--mode=root", "--include=" + realPackages, "trixie", building}
	if mirror := os.Getenv("LRD_LAB_MIRROR"); mirror != "" {
		args = append(args, mirror)
	}
	out, err := exec.CommandContext(t.Context(), "mmdebstrap", args...).CombinedOutput()
	assert.NilError(t, err, "%s", out)
	assert.NilError(t, os.MkdirAll(cache, 0o755))
	data, err := os.ReadFile(building)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(path+".new", data, 0o644))
	assert.NilError(t, os.Rename(path+".new", path))
	return path
}

// realDockerfile makes an image of several layers of that tree.
const realDockerfile = `FROM scratch
ADD real.tar /
COPY start /usr/local/bin/start
COPY index.html /var/www/html/index.html
ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
VOLUME /var/lib/postgresql
EXPOSE 80
CMD ["start"]
`

// realStart is the main program: PostgreSQL as its own user on the volume, nginx beside it.
const realStart = `#!/bin/sh -e
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data
nginx
chown postgres /var/lib/postgresql
mkdir -p /run/postgresql && chown postgres /run/postgresql
[ -e $data/PG_VERSION ] || setpriv --reuid=postgres --regid=postgres --clear-groups $bin/initdb --no-sync --auth=trust $data
exec setpriv --reuid=postgres --regid=postgres --clear-groups $bin/postgres -D $data
`

// TestRealImage runs a database and a web server of Debian's own packages, built by buildah, and restarts and kills lrd
// under a load on them: no transaction and no request fails.
func TestRealImage(t *testing.T) {
	if os.Getenv("LRD_SOAK") == "" {
		skip(t, "making a Debian with PostgreSQL takes a minute, or longer: make soak does it")
	}
	t.Parallel()
	l := boot(t)
	l.exec("mkdir", "-p", "/root/work", "/var/tmp", "/etc/containers", "/usr/lib/podman")
	l.exec("sh", "-ec", "[ -e /usr/lib/podman/netavark ] || install -m 755 /bin/true /usr/lib/podman/netavark") // as in interop_test.go
	l.writeFile("/etc/containers/policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	l.writeFile("/root/work/Dockerfile", realDockerfile)
	l.writeFile("/root/work/start", realStart)
	l.exec("chmod", "755", "/root/work/start")
	l.writeFile("/root/work/index.html", "served by nginx\n")
	tree, err := os.ReadFile(realTree(t))
	assert.NilError(t, err)
	l.writeFile("/root/work/real.tar", string(tree))
	l.exec("sh", "-ec", "buildah "+sharing+" build --layers --isolation chroot --quiet --tag docker.io/library/real:1 /root/work; rm /root/work/real.tar")

	l.docker("run", "--detach", "--name", "db", "--publish", "8080:80", "--volume", "pgdata:/var/lib/postgresql", "real:1")
	psql := []string{"exec", "--user", "postgres", "db", "psql", "--tuples-only", "--no-align", "--command"}
	l.eventually(2*time.Minute, "the database is up", func() bool { return l.tryDocker(append(psql, "select 1")...).stdout == "1" })
	pid := l.inspect("db").State.Pid
	l.docker("exec", "--user", "postgres", "db", "pgbench", "--initialize", "--quiet", "--scale", "2")
	seconds := rounds(t, 10, 60)
	l.docker("run", "--detach", "--name", "load", "--network", "container:db", "--volumes-from", "db", "--user", "postgres", "real:1",
		"pgbench", "--host", "127.0.0.1", "--client", "4", "--time", fmt.Sprint(seconds), "--progress", "1")
	l.exec("systemd-run", "--quiet", "--unit=asks", "sh", "-c",
		"i=0; while [ ! -e /run/enough ]; do curl --fail --silent --show-error --max-time 20 http://127.0.0.1:8080/ >/run/answer || echo failed >>/run/failures; i=$((i+1)); echo $i >/run/asked; done")

	for range 3 {
		l.restart()
		l.kill9()
		l.stop()
		l.start()
	}
	assert.Equal(t, l.docker("wait", "load"), "0")
	l.exec("touch", "/run/enough")
	report := l.docker("logs", "load")
	t.Log(report[max(0, len(report)-800):])
	assert.Check(t, is.Contains(report, "number of failed transactions: 0 (0.000%)"))
	assert.Equal(t, l.exec("sh", "-c", "cat /run/failures 2>/dev/null; cat /run/answer"), "served by nginx")
	l.fine("db", pid)

	// What was written is there in the next container.
	sum := l.docker(append(psql, "select count(*) > 0, sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history")...)
	assert.Equal(t, sum, "t|t")
	history := l.docker(append(psql, "select count(*) from pgbench_history")...)
	l.docker("rm", "--force", "load")
	l.docker("stop", "--time", "60", "db")
	l.docker("rm", "db")
	l.docker("run", "--detach", "--name", "db", "--volume", "pgdata:/var/lib/postgresql", "real:1")
	l.eventually(2*time.Minute, "the database is up again", func() bool { return l.tryDocker(append(psql, "select 1")...).stdout == "1" })
	assert.Equal(t, l.docker(append(psql, "select count(*) from pgbench_history")...), history)
}
