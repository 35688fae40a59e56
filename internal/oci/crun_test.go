//go:build integration

package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// inside marks the test binary's second self, in a mount namespace of its own.
const inside = "LRD_TEST_OWN_MOUNTS"

// TestMain gives the tests a unified cgroup hierarchy, as lrd has it: crun does
// not work on a host of the hybrid kind, which many test machines are.
func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(inside) != "" {
		if err := unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0, ""); err != nil {
			fmt.Fprintln(os.Stderr, "cannot mount a cgroup2:", err)
		}
		os.Exit(m.Run())
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), inside+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if err := self.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runReal runs a shell script in a container that the distribution's crun
// makes of a Spec, and gives its output.
func runReal(t *testing.T, script string, change func(*Input)) (string, error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: needs root, to run containers")
	}
	crun, err := exec.LookPath("crun")
	if err != nil {
		t.Skip("SKIPPED: needs crun")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("SKIPPED: needs a static /bin/busybox")
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "sbin"} {
		assert.NilError(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	assert.NilError(t, os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755))
	for _, tool := range []string{"sh", "cat", "id", "grep", "mount", "mkdir", "touch", "hostname", "ls", "ulimit", "head", "ping", "stat", "df", "unshare", "sleep", "echo", "wc"} {
		assert.NilError(t, os.Symlink("busybox", filepath.Join(root, "bin", tool)))
	}
	assert.NilError(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n"), 0o644))
	assert.NilError(t, os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\nu:x:1000:\nmore:x:77:u\n"), 0o644))

	machine, err := Probe()
	assert.NilError(t, err)
	in := Input{
		ID: "lrd-test", Rootfs: root, Hostname: "box",
		Config:  &container.Config{Cmd: []string{"sh", "-c", script}},
		Host:    &container.HostConfig{},
		Machine: machine,
	}
	in.User, err = ResolveUser(root, "", nil)
	assert.NilError(t, err)
	if change != nil {
		change(&in)
	}
	spec, err := Spec(in)
	assert.NilError(t, err)
	config, err := json.Marshal(spec)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600))
	id := "lrd-test-" + filepath.Base(filepath.Dir(dir)) + filepath.Base(dir)
	cmd := exec.Command(crun, "--root", filepath.Join(dir, "state"), "--cgroup-manager=disabled", "run", "--bundle", dir, id)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestRealContainer(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script string
		change func(*Input)
		want   []string
		not    []string
	}{
		{
			name:   "defaults",
			script: "hostname; echo $PATH $HOME $HOSTNAME; grep -E 'CapEff|Seccomp:|NoNewPrivs' /proc/self/status; ls /dev; mount; head -c 10 /proc/kcore | wc -c; cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
			want: []string{
				"box\n", defaultPath + " /root box", "CapEff:\t00000000a80425fb", "Seccomp:\t2", "NoNewPrivs:\t0",
				"mqueue", "shm", "full", "shm on /dev/shm type tmpfs (rw,nosuid,nodev,noexec,relatime,size=65536k",
				"sysfs on /sys type sysfs (ro", "\n0\n",
			},
		},
		{
			name:   "nothing on standard error",
			script: "true",
			not:    []string{"crun", "unknown", "ignored"},
		},
		{
			name:   "privileged",
			script: "grep -E 'CapEff|Seccomp:' /proc/self/status; mount; ls /dev/mem /dev/kmsg; echo x >/proc/sys/kernel/domainname && echo writable",
			change: func(in *Input) { in.Host.Privileged = true },
			want:   []string{"Seccomp:\t0", "sysfs on /sys type sysfs (rw", "/dev/kmsg", "writable"},
		},
		{
			name:   "user",
			script: "id; echo $HOME; unshare -U true || echo refused",
			change: func(in *Input) {
				var err error
				in.User, err = ResolveUser(in.Rootfs, "u", []string{"44"})
				assert.NilError(t, err)
				umask := uint32(0o77)
				in.Host.Umask = &umask
			},
			want: []string{"uid=1000(u) gid=1000(u) groups=44,77(more),1000(u)", "/home/u", "refused"},
		},
		{
			name:   "read-only root and mounts",
			script: "touch /x && echo BAD; touch /tmp/ok && echo tmpfs; touch /in/x && echo BAD; touch /in/deep/x && echo BAD; cat /in/file; touch /rw/y && echo written; mount | grep -E ' /(in|tmp|rw)'; true",
			change: func(in *Input) {
				source := t.TempDir()
				assert.NilError(t, os.WriteFile(filepath.Join(source, "file"), []byte("content\n"), 0o644))
				in.Host.ReadonlyRootfs = true
				in.Config.WorkingDir = "/"
				in.Mounts = []Mount{
					{Type: mount.TypeBind, HostPath: source, Target: "/in", ReadOnly: true},
					{Type: mount.TypeBind, HostPath: source, Target: "/rw", Propagation: mount.PropagationRSlave},
					{Type: mount.TypeTmpfs, Target: "/tmp", TmpfsOptions: []string{"size=1m", "exec"}},
				}
				for _, d := range []string{"in", "rw"} {
					assert.NilError(t, os.Mkdir(filepath.Join(in.Rootfs, d), 0o755))
				}
			},
			want: []string{"tmpfs\n", "content", "written"},
			not:  []string{"BAD"},
		},
		{
			name:   "recursive read-only",
			script: "for d in default insisted; do touch /$d/deep/x && echo BAD; done; touch /top/deep/x && echo writable; cat /default/deep/file",
			change: func(in *Input) {
				source := t.TempDir()
				deep := filepath.Join(source, "deep")
				assert.NilError(t, os.Mkdir(deep, 0o755))
				assert.NilError(t, unix.Mount("tmpfs", deep, "tmpfs", 0, ""))
				t.Cleanup(func() { assert.Check(t, unix.Unmount(deep, 0)) })
				assert.NilError(t, os.WriteFile(filepath.Join(deep, "file"), []byte("content\n"), 0o644))
				in.Mounts = []Mount{
					{Type: mount.TypeBind, HostPath: source, Target: "/default", ReadOnly: true},
					{Type: mount.TypeBind, HostPath: source, Target: "/insisted", ReadOnly: true, RecursiveReadOnly: true},
					{Type: mount.TypeBind, HostPath: source, Target: "/top", ReadOnly: true, TopReadOnly: true},
				}
			},
			want: []string{"content", "writable"},
			not:  []string{"BAD"},
		},
		{
			name:   "limits, sysctls, capabilities, init",
			script: "ulimit -n; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/domainname /proc/sys/kernel/msgmax; grep -E 'CapEff|NoNewPrivs' /proc/self/status; cat /proc/1/cmdline",
			change: func(in *Input) {
				in.Host.Ulimits = []*units.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}}
				in.Host.Sysctls = map[string]string{"net.core.somaxconn": "77", "kernel.msgmax": "4444"}
				in.Domainname = "example"
				in.Host.CapDrop = []string{"ALL"}
				in.Host.CapAdd = []string{"net_admin"}
				in.Host.SecurityOpt = []string{"no-new-privileges"}
				in.InitEnabled, in.InitBinary = true, fakeInit(t)
			},
			want: []string{"100\n77\nexample\n4444\n", "CapEff:\t0000000000001000", "NoNewPrivs:\t1", "docker-init\x00--\x00sh"},
		},
		{
			name:   "host's namespaces",
			script: "ls -l /proc/self/ns",
			change: func(in *Input) {
				in.Host.NetworkMode, in.Host.PidMode, in.Host.IpcMode = "host", "host", "host"
				in.Host.UTSMode, in.Host.CgroupnsMode = "host", "host"
			},
			want: namespacesOfThisProcess(t, "net", "pid", "ipc", "uts", "cgroup"),
		},
		{
			name:   "device",
			script: "ls -l /dev/own; head -c 3 /dev/own | wc -c",
			change: func(in *Input) {
				in.Host.Devices = []container.DeviceMapping{{PathOnHost: "/dev/zero", PathInContainer: "/dev/own", CgroupPermissions: "r"}}
			},
			want: []string{"1,   5", "\n3\n"},
		},
		{
			name:   "own seccomp profile",
			script: "mkdir /tmp/d || echo refused",
			change: func(in *Input) {
				in.Host.SecurityOpt = []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`}
			},
			want: []string{"refused"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := runReal(t, tc.script, tc.change)
			assert.Check(t, err, "%s", out)
			for _, want := range tc.want {
				assert.Check(t, cmp.Contains(out, want))
			}
			for _, not := range tc.not {
				assert.Check(t, !strings.Contains(out, not), "%q in %s", not, out)
			}
		})
	}
}

func namespacesOfThisProcess(t *testing.T, kinds ...string) []string {
	t.Helper()
	var links []string
	for _, kind := range kinds {
		link, err := os.Readlink("/proc/self/ns/" + kind)
		assert.NilError(t, err)
		links = append(links, link)
	}
	return links
}

// fakeInit is a script that stands for an init binary: it runs what comes
// after "--".
func fakeInit(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "init")
	assert.NilError(t, os.WriteFile(path, []byte("#!/bin/sh\nshift\nexec 3</proc/self/status\n\"$@\"\n"), 0o755))
	return path
}

func TestRealNamespaceByPath(t *testing.T) {
	out, err := runReal(t, "ls -l /proc/self/ns/net; cat /proc/sys/net/ipv4/ping_group_range", func(in *Input) {
		// Any namespace will do; the test's own is at hand.
		in.NetNS = "/proc/self/ns/net"
	})
	assert.NilError(t, err, "%s", out)
	own, err := os.Readlink("/proc/self/ns/net")
	assert.NilError(t, err)
	assert.Check(t, cmp.Contains(out, own))
}
