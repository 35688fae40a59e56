//go:build integration

package integration

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// once runs a command in a container made with these flags, and gives back what it said.
func (l *lab) once(flags, script string) string {
	l.t.Helper()
	args := append([]string{"run", "--rm"}, strings.Fields(flags)...)
	return l.docker(append(args, "busybox", "sh", "-c", script)...)
}

// TestCLICreate shows what a container is like from inside, by the flags that made it.
func TestCLICreate(t *testing.T) {
	t.Parallel()
	l := boot(t)

	for _, c := range []struct{ flags, script, want string }{
		{"", "hostname | wc -c; pwd; id -u; echo $HOME", "13\n/\n0\n/root"},
		{"--user 33", "id -u; id -g", "33\n33"},
		{"--user www:tape", "id -u; id -g; id -G", "33\n26\n26"},
		{"--user 1234:5678", "id -u; id -g; echo $HOME", "1234\n5678\n/"},
		{"--user nobody --group-add tape --group-add 4321", "id -G", "65534 26 4321"},
		{"--workdir /made/on/demand", "pwd", "/made/on/demand"},
		{"--env A=1 --env B= --env A=2", "echo $A-$B-; env | grep -c ^A=", "2--\n1"},
		{"--hostname plain", "hostname; cat /etc/hostname", "plain\nplain"},
		{"--add-host other:192.0.2.7", "grep other /etc/hosts", "192.0.2.7\tother"},
		{"--dns 192.0.2.53 --dns-search example.org", "grep -v ^# /etc/resolv.conf", "nameserver 192.0.2.53\nsearch example.org"},
		{"--read-only", "touch /x 2>&1", ""}, // fails, see below
		{"--read-only --tmpfs /tmp", "echo hello >/tmp/x && cat /tmp/x", "hello"},
		{"--tmpfs /t:size=64k,mode=700", "stat -c %a /t; df -k /t | tail -n 1 | awk '{print $2}'", "700\n64"},
		{"--shm-size 2m", "df -k /dev/shm | tail -n 1 | awk '{print $2}'", "2048"},
		{"--ulimit nofile=100:200 --ulimit core=0", "ulimit -n; ulimit -Hn; ulimit -c", "100\n200\n0"},
		{"--cap-drop ALL", "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"},
		{"--cap-drop ALL --cap-add NET_RAW", "grep CapEff /proc/self/status", "CapEff:\t0000000000002000"},
		{"--cap-drop all --cap-add CAP_CHOWN", "grep CapBnd /proc/self/status", "CapBnd:\t0000000000000001"},
		{"", "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"}, // Docker's default set
		{"--user 33", "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"},
		{"--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"},
		{"--privileged", "ls -d /dev/net; touch /sys/fs/cgroup /proc/sys && echo writable", "/dev/net\nwritable"},
		{"", "wc -c </proc/keys; ls -A /sys/firmware; ls /dev/net 2>/dev/null || echo no devices", "0\nno devices"}, // masked
		{"--privileged", "test -c /proc/keys || echo not masked", "not masked"},
		{"", "echo 1 >/proc/sys/kernel/domainname 2>/dev/null || echo read-only; touch /sys/x 2>/dev/null || echo read-only", "read-only\nread-only"},
		{"--sysctl net.ipv4.ip_unprivileged_port_start=99", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "99"},
		{"--device /dev/null:/dev/mynull:rw", "echo x >/dev/mynull && echo written", "written"},
		{"--pid host", "test $$ -ne 1 && echo not first", "not first"},
		{"--oom-score-adj 500", "cat /proc/self/oom_score_adj", "500"},
	} {
		t.Run(c.flags+" "+strings.Fields(c.script)[0], func(t *testing.T) {
			l := l.in(t)
			if strings.Contains(c.script, "touch /x") {
				r := l.tryDocker(append(append([]string{"run", "--rm"}, strings.Fields(c.flags)...), "busybox", "sh", "-c", c.script)...)
				assert.Check(t, r.code == 1 && strings.Contains(r.stdout, "Read-only file system"), "%s", r)
				return
			}
			assert.Check(t, is.Equal(l.once(c.flags, c.script), c.want))
		})
	}

	// A lab has a system call filter and lacks some capabilities itself: what counts is what lrd adds or leaves out.
	own := func(t *testing.T, key string) string {
		for line := range strings.Lines(l.readFile("/proc/1/status")) {
			if value, ok := strings.CutPrefix(line, key+":"); ok {
				return strings.TrimSpace(value)
			}
		}
		t.Fatalf("no %s in /proc/1/status", key)
		return ""
	}

	l.newest("privileged has all capabilities", func(t *testing.T, l *lab) {
		assert.Equal(t, l.once("--privileged", "grep CapEff /proc/self/status"), "CapEff:\t"+own(t, "CapBnd"))
	})

	l.newest("seccomp filters", func(t *testing.T, l *lab) {
		filters, err := strconv.Atoi(own(t, "Seccomp_filters"))
		assert.NilError(t, err)
		for flags, want := range map[string]int{"": filters + 1, "--security-opt seccomp=unconfined": filters, "--privileged": filters} {
			assert.Check(t, is.Equal(l.once(flags, "grep Seccomp_filters /proc/self/status"), fmt.Sprintf("Seccomp_filters:\t%d", want)), flags)
		}
	})

	l.newest("seccomp", func(t *testing.T, l *lab) {
		r := l.tryDocker("run", "--rm", "busybox", "unshare", "-U", "true")
		assert.Check(t, r.code != 0 && strings.Contains(r.stderr, "Operation not permitted"), "%s", r)
		l.docker("run", "--rm", "--security-opt", "seccomp=unconfined", "busybox", "unshare", "-U", "true")
	})

	l.clients("entrypoint and command", func(t *testing.T, l *lab) {
		assert.Equal(t, l.docker("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b"), "a b")
		assert.Equal(t, l.docker("run", "--rm", "--entrypoint", "/bin/echo", "busybox"), "", "the image's command goes with the image's entrypoint")
		assert.Equal(t, l.docker("run", "--rm", "--env-file", "/dev/null", "--label", "x=y", "busybox", "echo", "ok"), "ok")
	})

	l.newest("init", func(t *testing.T, l *lab) {
		r := l.tryDocker("run", "--rm", "--init", "busybox", "sh", "-c", "cat /proc/1/comm; test $$ -ne 1")
		assert.Equal(t, r.code, 0, r)
		assert.Equal(t, r.stdout, "docker-init", r)
	})

	l.newest("limits", func(t *testing.T, l *lab) {
		id := l.tick("limited", "--memory", "64m", "--memory-swap", "96m", "--cpus", "1.5", "--pids-limit", "77", "--cpu-shares", "512", "--cpuset-cpus", "0")
		got := l.exec("systemctl", "show", "--property=MemoryMax,MemorySwapMax,CPUQuotaPerSecUSec,TasksMax,CPUWeight,AllowedCPUs", "lrd-"+id+".service")
		for _, want := range []string{"MemoryMax=67108864", "MemorySwapMax=33554432", "CPUQuotaPerSecUSec=1.500000s", "TasksMax=77", "AllowedCPUs=0"} {
			assert.Check(t, is.Contains(got, want))
		}
		assert.Check(t, is.Regexp(`(?m)^CPUWeight=[0-9]+$`, got), "not the default")
		host := l.inspect("limited").HostConfig
		assert.Check(t, host.Memory == 64<<20 && host.NanoCPUs == 1_500_000_000 && *host.PidsLimit == 77, "%+v", host.Resources)
		assert.Check(t, is.Contains(l.exec("systemctl", "show", "--property=TasksMax", "lrd-"+l.tick("free")+".service"), "infinity"))
		if strings.TrimSpace(l.readFile("/sys/fs/cgroup/cgroup.controllers")) == "" {
			skip(t, "limits: the units have the properties, but this lab has no control group controllers, so that their effect cannot be seen")
		}
	})
}

func TestCLIVolumes(t *testing.T) {
	t.Parallel()
	l := boot(t)

	l.clients("bind", func(t *testing.T, l *lab) {
		l.exec("sh", "-c", "mkdir -p /srv/data; echo from outside >/srv/data/file")
		assert.Equal(t, l.once("-v /srv/data:/data", "cat /data/file; echo from inside >/data/answer"), "from outside")
		assert.Equal(t, strings.TrimSpace(l.readFile("/srv/data/answer")), "from inside")
		assert.Equal(t, l.once("-v /srv/data/file:/file:ro", "cat /file; echo x 2>/dev/null >/file || echo refused"), "from outside\nrefused")
		assert.Equal(t, l.once("-v /srv/data:/data:ro", "touch /data/x 2>/dev/null || echo refused"), "refused")
		assert.Equal(t, l.once("--mount type=bind,source=/srv/data,target=/data,readonly", "touch /data/x 2>/dev/null || echo refused"), "refused")
		// -v makes what is missing, --mount does not.
		l.once("-v /srv/made/by/lrd:/data", "touch /data/x")
		l.readFile("/srv/made/by/lrd/x")
		l.refused(125, []string{"bind source path does not exist", "/srv/nowhere"}, "run", "--rm", "--mount", "type=bind,source=/srv/nowhere,target=/data", "busybox")
	})

	l.clients("named", func(t *testing.T, l *lab) {
		l.once("-v kept:/data", "echo kept >/data/file")
		assert.Equal(t, l.once("-v kept:/elsewhere", "cat /elsewhere/file"), "kept")
		assert.Check(t, is.Contains(l.docker("volume", "ls", "--quiet"), "kept"))
		// An empty volume takes over what the image has in its place.
		assert.Equal(t, l.once("-v copied:/etc", "grep -c ^root: /etc/passwd"), "1")
		l.docker("create", "--name", "user", "-v", "kept:/data", "busybox")
		l.refused(1, []string{"volume is in use"}, "volume", "rm", "kept")
		l.docker("rm", "--volumes", "user")
		assert.Check(t, is.Contains(l.docker("volume", "ls", "--quiet"), "kept"), "rm -v is for anonymous volumes")
		l.docker("volume", "rm", "kept", "copied")
		assert.Equal(t, l.docker("volume", "ls", "--quiet"), "")
	})

	l.clients("anonymous", func(t *testing.T, l *lab) {
		l.once("-v /data", "echo x >/data/file")
		assert.Equal(t, l.docker("volume", "ls", "--quiet"), "", "--rm takes them along")
		l.docker("run", "--name", "anon", "-v", "/data", "busybox", "true")
		volume := l.docker("volume", "ls", "--quiet")
		assert.Check(t, is.Regexp("^[0-9a-f]{64}$", volume))
		assert.Equal(t, l.docker("inspect", "--format", "{{(index .Mounts 0).Name}} {{(index .Mounts 0).Destination}} {{(index .Mounts 0).Type}}", "anon"), volume+" /data volume")
		l.docker("rm", "anon")
		assert.Equal(t, l.docker("volume", "ls", "--quiet"), volume, "rm leaves it")
		l.docker("volume", "rm", volume)
		l.docker("run", "--name", "anon", "-v", "/data", "busybox", "true")
		l.docker("rm", "--volumes", "anon")
		assert.Equal(t, l.docker("volume", "ls", "--quiet"), "", "rm -v does not")
	})

	l.newest("from another container", func(t *testing.T, l *lab) {
		l.docker("run", "--name", "source", "-v", "/shared", "busybox", "sh", "-c", "echo given >/shared/file")
		assert.Equal(t, l.once("--volumes-from source", "cat /shared/file"), "given")
		assert.Equal(t, l.once("--volumes-from source:ro", "touch /shared/x 2>/dev/null || echo refused"), "refused")
	})
}
