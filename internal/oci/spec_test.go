package oci

import (
	"encoding/json"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"
)

// testMachine is a host with two processors and three devices.
func testMachine() Machine {
	mode := fs.FileMode(0o660)
	zero := uint32(0)
	devices := map[string]specs.LinuxDevice{
		"/dev/sda":     {Path: "/dev/sda", Type: "b", Major: 8, Minor: 0, FileMode: &mode, UID: &zero, GID: &zero},
		"/dev/fuse":    {Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &zero, GID: &zero},
		"/dev/snd/pcm": {Path: "/dev/snd/pcm", Type: "c", Major: 116, Minor: 2, FileMode: &mode, UID: &zero, GID: &zero},
	}
	return Machine{
		Capabilities: append(slices.Clone(defaultCapabilities), "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
		CPUs:         2, CPUSet: "0-1", MemSet: "0",
		MaskedPaths: []string{"/sys/devices/system/cpu/cpu0/thermal_throttle"},
		Devices: func(name string) ([]specs.LinuxDevice, error) {
			var found []specs.LinuxDevice
			for p, d := range devices {
				if p == path.Clean(name) || strings.HasPrefix(p, path.Clean(name)+"/") {
					found = append(found, d)
				}
			}
			slices.SortFunc(found, func(a, b specs.LinuxDevice) int { return strings.Compare(a.Path, b.Path) })
			if found == nil && name != "/etc/passwd" {
				return nil, fs.ErrNotExist
			}
			return found, nil
		},
	}
}

func testInput() Input {
	return Input{
		ID: strings.Repeat("a", 64), Rootfs: "/rootfs", Hostname: "box", NetNS: "/run/netns/x",
		Config:     &container.Config{Cmd: []string{"sh"}},
		Host:       &container.HostConfig{},
		ResolvConf: "/c/resolv.conf", HostsFile: "/c/hosts", HostnameFile: "/c/hostname",
		User:    User{AdditionalGIDs: []uint32{0}, Home: "/root"},
		Machine: testMachine(),
	}
}

func mustSpec(t *testing.T, in Input) *specs.Spec {
	t.Helper()
	s, err := Spec(in)
	assert.NilError(t, err)
	return s
}

// goldenSpec compares a Spec without its seccomp profile, which depends on the
// kernel that the test runs on.
func goldenSpec(t *testing.T, in Input, name string) {
	t.Helper()
	s := mustSpec(t, in)
	s.Linux.Seccomp = nil
	text, err := json.MarshalIndent(s, "", "  ")
	assert.NilError(t, err)
	golden.Assert(t, string(text)+"\n", name)
}

func TestSpecOfDefaults(t *testing.T) {
	in := testInput()
	goldenSpec(t, in, "default.json")
	s := mustSpec(t, in)
	assert.Assert(t, s.Linux.Seccomp != nil)
	assert.Equal(t, s.Linux.Seccomp.DefaultAction, specs.ActErrno)
	assert.Check(t, s.Linux.Resources == nil && s.Linux.CgroupsPath == "")
	assert.Equal(t, s.Version, "1.0.2")
}

func TestSpecOfPrivileged(t *testing.T) {
	in := testInput()
	in.Host.Privileged = true
	goldenSpec(t, in, "privileged.json")
	assert.Check(t, mustSpec(t, in).Linux.Seccomp == nil)
}

func TestSpecOfEverything(t *testing.T) {
	in := testInput()
	umask := uint32(0o27)
	in.Config = &container.Config{
		Entrypoint: []string{"/entry"}, Cmd: []string{"a", "b"}, WorkingDir: "/work", Tty: true,
		Env: []string{"PATH=/bin", "A=1", "A=2", "HOME", "EMPTY="},
	}
	in.Domainname = "example"
	in.User = User{UID: 1000, GID: 1001, AdditionalGIDs: []uint32{1001, 27}, Home: "/home/u"}
	in.InitEnabled, in.InitBinary = true, "/usr/libexec/init"
	in.ProcessLabel, in.MountLabel = "system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"
	in.DefaultUlimits = map[string]*container.Ulimit{
		"nofile": {Name: "nofile", Soft: 1, Hard: 1}, "nproc": {Name: "nproc", Soft: 5, Hard: -1}, "core": {Name: "core", Soft: -1, Hard: -1},
	}
	in.Annotations = map[string]string{"a": "daemon", "b": "daemon"}
	in.Mounts = []Mount{
		{Type: mount.TypeBind, HostPath: "/src/deep", Target: "/data/a/b", ReadOnly: true, Propagation: mount.PropagationRSlave},
		{Type: mount.TypeVolume, HostPath: "/vol", Target: "/data"},
		{Type: mount.TypeBind, HostPath: "/src/once", Target: "/once", NonRecursive: true},
		{Type: mount.TypeBind, HostPath: "/src/hosts", Target: "/etc/hosts"},
		{Type: mount.TypeTmpfs, Target: "/tmp/", TmpfsOptions: []string{"exec", "size=64m", "mode=1777", "ro", "rw"}},
		{Type: mount.TypeBind, HostPath: "/shm", Target: "/dev/shm"},
	}
	in.Host = &container.HostConfig{
		ReadonlyRootfs: true, ConsoleSize: [2]uint{24, 80}, OomScoreAdj: -5, Umask: &umask,
		CapAdd: []string{"net_admin"}, CapDrop: []string{"CAP_MKNOD", "kill"},
		SecurityOpt: []string{"no-new-privileges:true", "seccomp=unconfined", "label=disable"},
		Sysctls:     map[string]string{"net.core.somaxconn": "1024", "kernel.msgmax": "1"},
		Annotations: map[string]string{"b": "request"},
		MaskedPaths: []string{}, ReadonlyPaths: []string{"/proc/mine"},
		Resources: container.Resources{
			Memory:  1 << 30,
			Ulimits: []*units.Ulimit{{Name: "nofile", Soft: 1024, Hard: 2048}},
			Devices: []container.DeviceMapping{{PathOnHost: "/dev/fuse"}, {PathOnHost: "/dev/snd", PathInContainer: "/dev/sound"}},
		},
	}
	goldenSpec(t, in, "everything.json")
}

func namespaces(s *specs.Spec) string {
	var words []string
	for _, n := range s.Linux.Namespaces {
		w := string(n.Type)
		if n.Path != "" {
			w += "=" + n.Path
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

func TestNamespaces(t *testing.T) {
	for _, tc := range []struct {
		change func(*Input)
		want   string
	}{
		{func(*Input) {}, "mount network=/run/netns/x uts pid ipc cgroup"},
		{func(in *Input) {
			in.Host.NetworkMode, in.Host.PidMode, in.Host.IpcMode, in.Host.UTSMode, in.Host.CgroupnsMode = "host", "host", "host", "host", "host"
		}, "mount"},
		{func(in *Input) {
			in.Host.NetworkMode, in.Host.PidMode, in.Host.IpcMode = "container:x", "container:x", "container:x"
			in.PidNS, in.IpcNS = "/p", "/i"
		}, "mount network=/run/netns/x uts pid=/p ipc=/i cgroup"},
	} {
		in := testInput()
		tc.change(&in)
		assert.Equal(t, namespaces(mustSpec(t, in)), tc.want)
	}
	in := testInput()
	in.Host.PidMode = "container:x"
	_, err := Spec(in)
	assert.Check(t, errdefs.IsInvalidArgument(err), "%v", err)

	in = testInput()
	in.Host.NetworkMode = "container:x"
	assert.Check(t, cmp.Len(mustSpec(t, in).Linux.Sysctl, 0), "the sysctls of another container's network are not ours")
	in.Host.UTSMode = "host"
	assert.Equal(t, mustSpec(t, in).Hostname, "")
}

func mountAt(s *specs.Spec, destination string) *specs.Mount {
	i := slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == destination })
	if i < 0 {
		return nil
	}
	return &s.Mounts[i]
}

func TestShm(t *testing.T) {
	in := testInput()
	in.Host.ShmSize = 1 << 20
	assert.Check(t, cmp.Contains(mountAt(mustSpec(t, in), "/dev/shm").Options, "size=1048576"))
	in.ShmPath = "/shared"
	assert.Equal(t, mountAt(mustSpec(t, in), "/dev/shm").Source, "/shared")
	in.Host.IpcMode = "host"
	assert.Equal(t, mountAt(mustSpec(t, in), "/dev/shm").Source, "/dev/shm")
	in.Host.IpcMode = "none"
	assert.Check(t, mountAt(mustSpec(t, in), "/dev/shm") == nil)
}

func TestReadOnlyMounts(t *testing.T) {
	in := testInput()
	in.Machine.RecursiveReadOnly = true
	in.Mounts = []Mount{
		{HostPath: "/x", Target: "/1", ReadOnly: true},
		{HostPath: "/x", Target: "/2", ReadOnly: true, NonRecursive: true},
		{HostPath: "/x", Target: "/3", ReadOnly: true, TopReadOnly: true},
		{HostPath: "/x", Target: "/4"},
	}
	s := mustSpec(t, in)
	for target, want := range map[string]string{"/1": "rbind rprivate rro", "/2": "bind private ro", "/3": "rbind rprivate ro", "/4": "rbind rprivate"} {
		assert.Check(t, cmp.Equal(strings.Join(mountAt(s, target).Options, " "), want))
	}
}

func TestOwnDevTakesAllOfIt(t *testing.T) {
	in := testInput()
	in.Mounts = []Mount{{Type: mount.TypeBind, HostPath: "/dev", Target: "/dev"}}
	s := mustSpec(t, in)
	assert.Equal(t, mountAt(s, "/dev").Type, "bind")
	assert.Check(t, mountAt(s, "/dev/pts") == nil)
	assert.Check(t, mountAt(s, "/dev/shm") == nil)
}

func TestInitNeedsAPidNamespace(t *testing.T) {
	in := testInput()
	in.InitEnabled, in.InitBinary = true, "/init"
	assert.DeepEqual(t, mustSpec(t, in).Process.Args, []string{InitPath, "--", "sh"})
	in.Host.PidMode = "host"
	s := mustSpec(t, in)
	assert.DeepEqual(t, s.Process.Args, []string{"sh"})
	assert.Check(t, mountAt(s, InitPath) == nil)
}

func TestSecurity(t *testing.T) {
	spec := func(opts ...string) (*specs.Spec, error) {
		in := testInput()
		in.Host.SecurityOpt = opts
		return Spec(in)
	}
	s, err := spec(`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`)
	assert.NilError(t, err)
	assert.Equal(t, s.Linux.Seccomp.DefaultAction, specs.ActAllow)
	s, err = spec("writable-cgroups=true")
	assert.NilError(t, err)
	assert.Check(t, !slices.Contains(mountAt(s, "/sys/fs/cgroup").Options, "ro"))
	for opt, want := range map[string]string{
		"seccomp=/a/file":         "invalid seccomp profile",
		"nonsense":                `invalid --security-opt 1: "nonsense"`,
		"colour=red":              `invalid --security-opt 2: "colour=red"`,
		"no-new-privileges=maybe": `invalid --security-opt 2: "no-new-privileges=maybe"`,
		"apparmor=mine":           "AppArmor is not enabled",
	} {
		_, err := spec(opt)
		assert.Check(t, cmp.ErrorContains(err, want))
		assert.Check(t, errdefs.IsInvalidArgument(err), opt)
	}

	in := testInput()
	in.Machine.AppArmorProfile = "lrd-default"
	assert.Equal(t, mustSpec(t, in).Process.ApparmorProfile, "lrd-default")
	in.Host.Privileged = true
	assert.Equal(t, mustSpec(t, in).Process.ApparmorProfile, "unconfined")
	in.Host.SecurityOpt = []string{"apparmor=mine"}
	assert.Equal(t, mustSpec(t, in).Process.ApparmorProfile, "mine")

	in = testInput()
	in.Machine.NoSeccomp = true
	assert.Check(t, mustSpec(t, in).Linux.Seccomp == nil)
}

// The default profile lets through what a capability allows (here
// CAP_SYS_ADMIN: mount), and nothing more.
func TestSeccompFollowsCapabilities(t *testing.T) {
	allows := func(s *specs.Spec, call string) bool {
		return slices.ContainsFunc(s.Linux.Seccomp.Syscalls, func(r specs.LinuxSyscall) bool {
			return r.Action == specs.ActAllow && len(r.Args) == 0 && slices.Contains(r.Names, call)
		})
	}
	in := testInput()
	assert.Check(t, !allows(mustSpec(t, in), "mount"))
	in.Host.CapAdd = []string{"SYS_ADMIN"}
	assert.Check(t, allows(mustSpec(t, in), "mount"))
}

func TestCapabilities(t *testing.T) {
	m := testMachine()
	for _, tc := range []struct {
		add, drop  []string
		privileged bool
		want       string
	}{
		{want: strings.Join(defaultCapabilities, " ")},
		{add: []string{"all"}, drop: []string{"NET_ADMIN"}, want: strings.Join(defaultCapabilities, " ") + " CAP_SYS_ADMIN"},
		{drop: []string{"BPF"}, want: strings.Join(defaultCapabilities, " ")},
		{add: []string{"chown", "CAP_CHOWN", "cap_kill"}, drop: []string{"ALL"}, want: "CAP_CHOWN CAP_KILL"},
		{drop: []string{"ALL"}, want: ""},
		{add: []string{"KILL"}, want: strings.Join(defaultCapabilities, " ")},
		{privileged: true, drop: []string{"KILL"}, want: strings.Join(m.Capabilities, " ")},
	} {
		got, err := Capabilities(tc.add, tc.drop, tc.privileged, m)
		assert.NilError(t, err)
		assert.Equal(t, strings.Join(got, " "), tc.want)
	}
	_, err := Capabilities([]string{"fly"}, nil, false, m)
	assert.Error(t, err, `invalid CapAdd: unknown capability: "CAP_FLY"`)
	assert.Check(t, errdefs.IsInvalidArgument(err))
	_, err = Capabilities(nil, []string{"FLY"}, false, m)
	assert.Error(t, err, `invalid CapDrop: unknown capability: "CAP_FLY"`)
	_, err = Capabilities([]string{"BPF"}, nil, false, m)
	assert.ErrorContains(t, err, "not supported by your kernel")
	got, err := Capabilities(nil, nil, false, Machine{Capabilities: []string{"CAP_SYS_ADMIN", "CAP_KILL"}})
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []string{"CAP_KILL"})
}

func TestMergeEnv(t *testing.T) {
	got := MergeEnv([]string{"A=1", "B=2"}, []string{"C=3", "A=9", "B", "C=4", "D", "E=x=y"})
	assert.DeepEqual(t, got, []string{"A=9", "C=4", "E=x=y"})
	assert.DeepEqual(t, MergeEnv([]string{"A=1"}, []string{"A", "A=2"}), []string{"A=2"})
}

func TestSpecRefusals(t *testing.T) {
	for want, change := range map[string]func(*Input){
		"no command specified":         func(in *Input) { in.Config.Cmd = nil },
		"without a root filesystem":    func(in *Input) { in.Rootfs = "" },
		"without a host configuration": func(in *Input) { in.Host = nil },
		"Duplicate mount point: /a": func(in *Input) {
			in.Mounts = []Mount{{Type: mount.TypeTmpfs, Target: "/a"}, {Type: mount.TypeTmpfs, Target: "/a/"}}
		},
		"its place on the host is not known": func(in *Input) {
			in.Mounts = []Mount{{Type: mount.TypeVolume, Source: "v", Target: "/a"}}
		},
		`"/dev/nothing": no such file or directory`: func(in *Input) {
			in.Host.Devices = []container.DeviceMapping{{PathOnHost: "/dev/nothing"}}
		},
		`"/etc/passwd": not a device node`: func(in *Input) {
			in.Host.Devices = []container.DeviceMapping{{PathOnHost: "/etc/passwd"}}
		},
	} {
		in := testInput()
		change(&in)
		_, err := Spec(in)
		assert.Check(t, cmp.ErrorContains(err, want))
		assert.Check(t, errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err), want)
	}
}

func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"Cmd":["sh"],"Env":["A=1","="]}`), []byte(`{"Binds":["/a:/b:ro","v:/c"],"CapAdd":["ALL"],"Tmpfs":{"/t":"size=1m"},"Memory":6291456}`))
	f.Add([]byte(`{"Entrypoint":["x"],"Tty":true}`), []byte(`{"Privileged":true,"Devices":[{"PathOnHost":"/dev/fuse"}],"SecurityOpt":["seccomp={}"],"Ulimits":[{"Name":"nofile","Soft":-1,"Hard":-1},null]}`))
	f.Add([]byte(`{"Cmd":["sh"]}`), []byte(`{"Mounts":[{"Type":"bind","Source":"/x","Target":"/y","BindOptions":{"Propagation":"shared"}}],"PortBindings":{"80/tcp":[{"HostPort":"1-2"}]},"CpusetCpus":"0-1","PidsLimit":-1}`))
	f.Fuzz(func(t *testing.T, config, host []byte) {
		in := testInput()
		if json.Unmarshal(config, in.Config) != nil || json.Unmarshal(host, in.Host) != nil {
			return
		}
		valid := Validate(in.Config, in.Host, in.Machine) == nil
		_, limitsErr := LimitsOf(in.Host, in.Machine)
		mounts, err := MountPoints(in.Config, in.Host)
		if err != nil {
			assert.Assert(t, !valid, "%v", err)
			return
		}
		for i := range mounts {
			mounts[i].HostPath = "/host"
		}
		in.Mounts = mounts
		s, err := Spec(in)
		if err == nil {
			_, err = json.Marshal(s)
			assert.NilError(t, err)
		}
		if valid && limitsErr != nil {
			assert.Assert(t, errdefs.IsNotFound(limitsErr) || errdefs.IsInvalidArgument(limitsErr), "%v", limitsErr)
		}
	})
}
