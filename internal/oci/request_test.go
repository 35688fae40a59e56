package oci

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

type (
	config = container.Config
	host   = container.HostConfig
	res    = container.Resources
)

func TestValidateAccepts(t *testing.T) {
	pids := int64(-1)
	for _, tc := range []struct {
		cfg *config
		hc  *host
	}{
		{nil, nil},
		{&config{}, &host{}},
		{&config{Hostname: "under_score", WorkingDir: "/x", StopSignal: "RTMIN+3", Env: []string{"A=", "B"}}, &host{
			Resources: res{Memory: 6 << 20, MemorySwap: -1, NanoCPUs: 2e9, CpusetCpus: "0,1", PidsLimit: &pids, BlkioWeight: 10},
			ShmSize:   1, OomScoreAdj: 1000, CapAdd: []string{"ALL"},
			PortBindings:  network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "8080-8090"}, {HostIP: netip.MustParseAddr("127.0.0.1")}}},
			ExtraHosts:    []string{"a:192.0.2.1", "b=host-gateway", "c:2001:db8::1"},
			RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3},
		}},
		{&config{}, &host{NetworkMode: "container:x", PidMode: "container:x", IpcMode: "container:x", UTSMode: "host", CgroupnsMode: "host"}},
	} {
		assert.NilError(t, Validate(tc.cfg, tc.hc, testMachine()))
	}
}

func TestValidateRefuses(t *testing.T) {
	port := network.MustParsePort
	swappy := int64(101)
	for _, tc := range []struct {
		cfg  config
		hc   host
		want string
	}{
		{config{WorkingDir: "x"}, host{}, "the working directory 'x' is invalid, it needs to be an absolute path"},
		{config{StopSignal: "SIGNOT"}, host{}, "invalid signal: SIGNOT"},
		{config{Env: []string{"=x"}}, host{}, "invalid environment variable: =x"},
		{config{Env: []string{""}}, host{}, "invalid environment variable: "},
		{config{Cmd: []string{"a\x00b"}}, host{}, "NUL"},
		{config{Hostname: "a/b"}, host{}, "invalid hostname format: a/b"},
		{config{Hostname: strings.Repeat("a", 65)}, host{}, "invalid hostname format"},
		{config{Domainname: "a b"}, host{}, "invalid domainname format"},
		{config{ExposedPorts: network.PortSet{port("0/tcp"): {}}}, host{}, `invalid port specification: "0/tcp"`},
		{config{ExposedPorts: network.PortSet{port("1/ftp"): {}}}, host{}, "invalid proto: ftp"},

		{config{}, host{Resources: res{Memory: -1}}, "invalid memory limit -1"},
		{config{}, host{Resources: res{Memory: 5 << 20}}, "Minimum memory limit allowed is 6MB"},
		{config{}, host{Resources: res{Memory: 64 << 20, MemorySwap: 32 << 20}}, "Minimum memoryswap limit should be larger than memory limit, see usage"},
		{config{}, host{Resources: res{MemorySwap: 32 << 20}}, "You should always set the Memory limit when using Memoryswap limit, see usage"},
		{config{}, host{Resources: res{MemorySwap: -2}}, "invalid memory and swap limit"},
		{config{}, host{Resources: res{MemoryReservation: 1}}, "Minimum memory reservation allowed is 6MB"},
		{config{}, host{Resources: res{MemoryReservation: -1}}, "invalid memory reservation"},
		{config{}, host{Resources: res{Memory: 8 << 20, MemoryReservation: 9 << 20}}, "Minimum memory limit can not be less than memory reservation limit, see usage"},
		{config{}, host{Resources: res{MemorySwappiness: &swappy}}, "valid memory swappiness range is 0-100"},
		{config{}, host{Resources: res{NanoCPUs: 3e9}}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"},
		{config{}, host{Resources: res{NanoCPUs: -1}}, "range of CPUs"},
		{config{}, host{Resources: res{NanoCPUs: 1, CPUPeriod: 1000}}, "Nano CPUs and CPU Period cannot both be set"},
		{config{}, host{Resources: res{NanoCPUs: 1, CPUQuota: 1000}}, "Nano CPUs and CPU Quota cannot both be set"},
		{config{}, host{Resources: res{CPUPeriod: 10}}, "CPU cfs period can not be less than 1ms"},
		{config{}, host{Resources: res{CPUQuota: 10}}, "CPU cfs quota can not be less than 1ms"},
		{config{}, host{Resources: res{CPUShares: -1}}, "invalid CPU shares (-1)"},
		{config{}, host{Resources: res{CpusetCpus: "x"}}, "Invalid value x for cpuset cpus"},
		{config{}, host{Resources: res{CpusetCpus: "3-1"}}, "Invalid value 3-1 for cpuset cpus"},
		{config{}, host{Resources: res{CpusetCpus: "0-7"}}, "Requested CPUs are not available - requested 0-7, available: 0-1"},
		{config{}, host{Resources: res{CpusetMems: "1"}}, "Requested memory nodes are not available - requested 1, available: 0"},
		{config{}, host{Resources: res{BlkioWeight: 9}}, "Range of blkio weight is from 10 to 1000"},
		{config{}, host{Resources: res{BlkioWeightDevice: []*blkiodev.WeightDevice{nil}}}, "invalid blkio weight device"},
		{config{}, host{Resources: res{BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{{}}}}, "invalid blkio limit"},
		{config{}, host{Resources: res{Ulimits: []*units.Ulimit{{Name: "speed"}}}}, "invalid ulimit name speed"},
		{config{}, host{Resources: res{Ulimits: []*units.Ulimit{{Name: "nofile", Soft: 2, Hard: 1}}}}, "ulimit soft limit must be less than or equal to hard limit: 2 > 1"},
		{config{}, host{Resources: res{Ulimits: []*units.Ulimit{{Name: "nofile", Soft: -1, Hard: 1}}}}, "ulimit soft limit"},
		{config{}, host{ShmSize: -1}, "SHM size can not be less than 0"},
		{config{}, host{OomScoreAdj: 1001}, "Invalid value 1001, range for oom score adj is [-1000, 1000]"},
		{config{}, host{Resources: res{Devices: []container.DeviceMapping{{}}}}, "the path on the host must not be empty"},
		{config{}, host{Resources: res{Devices: []container.DeviceMapping{{PathOnHost: "x"}}}}, "paths must be absolute"},
		{config{}, host{Resources: res{Devices: []container.DeviceMapping{{PathOnHost: "/x", CgroupPermissions: "rx"}}}}, "invalid device mode: rx"},
		{config{}, host{Resources: res{DeviceCgroupRules: []string{"x"}}}, "invalid device cgroup rule format: 'x'"},
		{config{}, host{Resources: res{DeviceCgroupRules: []string{"c *:5 r"}}}, "a minor number needs a major number"},

		{config{}, host{CapAdd: []string{"FLY"}}, `unknown capability: "CAP_FLY"`},
		{config{}, host{SecurityOpt: []string{"x"}}, "invalid --security-opt 1"},
		{config{}, host{Sysctls: map[string]string{"kernel.panic": "1"}}, "sysctl 'kernel.panic' is not in a separate kernel namespace"},
		{config{}, host{NetworkMode: "host", Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}}, "not allowed in host network namespace"},
		{config{}, host{IpcMode: "host", Sysctls: map[string]string{"fs.mqueue.msg_max": "1"}}, "not allowed in host IPC namespace"},
		{config{}, host{UTSMode: "host", Sysctls: map[string]string{"kernel/domainname": "1"}}, "not allowed in host UTS namespace"},

		{config{}, host{IpcMode: "x"}, "invalid IPC mode: x"},
		{config{}, host{PidMode: "container:"}, "invalid PID mode"},
		{config{}, host{UTSMode: "x"}, "invalid UTS mode: x"},
		{config{}, host{CgroupnsMode: "x"}, "invalid cgroup namespace mode: x"},
		{config{}, host{UsernsMode: "x"}, "invalid user namespace mode: x"},
		{config{Hostname: "h"}, host{UTSMode: "host"}, "conflicting options: hostname and the UTS mode"},
		{config{Hostname: "h"}, host{NetworkMode: "container:x"}, "conflicting options: hostname and the network mode"},
		{config{}, host{NetworkMode: "container:x", DNS: []netip.Addr{{}}}, "conflicting options: dns and the network mode"},
		{config{}, host{NetworkMode: "container:x", PublishAllPorts: true}, "conflicting options: port publishing and the container type network mode"},
		{config{}, host{NetworkMode: "container:"}, "invalid container format"},
		{config{}, host{PortBindings: network.PortMap{port("80/tcp"): {{HostPort: "x"}}}}, `invalid port specification: "x"`},
		{config{}, host{ExtraHosts: []string{"x"}}, `bad format for add-host: "x"`},
		{config{}, host{ExtraHosts: []string{"x:y"}}, `invalid IP address in add-host: "y"`},

		{config{}, host{AutoRemove: true, RestartPolicy: container.RestartPolicy{Name: "always"}}, "can't create 'AutoRemove' container with restart policy"},
		{config{}, host{RestartPolicy: container.RestartPolicy{Name: "x"}}, "invalid restart policy: unknown policy 'x'"},
		{config{}, host{RestartPolicy: container.RestartPolicy{Name: "always", MaximumRetryCount: 1}}, "maximum retry count can only be used with 'on-failure'"},

		{config{}, host{Resources: res{CgroupParent: "/x"}}, "a cgroup parent is not supported"},
		{config{}, host{Links: []string{"a"}}, "links are not supported in the default network"},
		{config{}, host{Resources: res{DeviceRequests: []container.DeviceRequest{{Driver: "nv"}}}}, `could not select device driver "nv"`},
		{config{}, host{Isolation: "hyperv"}, "invalid isolation 'hyperv' on linux"},
		{config{}, host{Binds: []string{"/a:/x", "bb:/x"}}, "Duplicate mount point: /x"},
	} {
		err := Validate(&tc.cfg, &tc.hc, testMachine())
		assert.Check(t, cmp.ErrorContains(err, tc.want))
		assert.Check(t, errdefs.IsInvalidArgument(err) || errdefs.IsNotImplemented(err), "%v", err)
	}
}

func TestParseBind(t *testing.T) {
	for raw, want := range map[string]Mount{
		"/data":           {Type: mount.TypeVolume, Target: "/data"},
		"name:/data/":     {Type: mount.TypeVolume, Source: "name", Target: "/data"},
		"/src/../x:/data": {Type: mount.TypeBind, Source: "/x", HostPath: "/x", Target: "/data", CreateSource: true},
		"/x:/data:ro,z":   {Type: mount.TypeBind, Source: "/x", HostPath: "/x", Target: "/data", CreateSource: true, ReadOnly: true, Mode: "ro,z"},
		"/x:/data:rw,rslave": {
			Type: mount.TypeBind, Source: "/x", HostPath: "/x", Target: "/data", CreateSource: true,
			Propagation: mount.PropagationRSlave, Mode: "rw,rslave",
		},
		"name:/data:nocopy": {Type: mount.TypeVolume, Source: "name", Target: "/data", NoCopy: true, Mode: "nocopy"},
	} {
		got, err := ParseBind(raw)
		assert.NilError(t, err, raw)
		assert.Check(t, cmp.DeepEqual(got, want))
	}
	for raw, want := range map[string]string{
		"":              "mount path must be absolute",
		"data":          "mount path must be absolute",
		"/x:data":       "invalid volume specification: '/x:data': invalid mount path: 'data' mount path must be absolute",
		"/x:/":          "destination can't be '/'",
		"/x:/../..":     "destination can't be '/'",
		"/x:ro":         "invalid volume specification: '/x:ro'",
		":/x":           "invalid volume specification: ':/x'",
		"/x:/y:":        "invalid volume specification: '/x:/y:'",
		"a:b:c:d":       "invalid volume specification: 'a:b:c:d'",
		"/x:/y:fast":    "invalid mode: fast",
		"/x:/y:ro,rw":   "invalid mode: ro,rw",
		"name:/y:slave": "propagation is for bind mounts",
		"./rel:/y":      "If you intended to pass a host directory, use absolute path",
		"b:/y":          "volume name is too short",
		"a/b:/y":        "includes invalid characters for a local volume name",
	} {
		_, err := ParseBind(raw)
		assert.Check(t, cmp.ErrorContains(err, want), raw)
		assert.Check(t, errdefs.IsInvalidArgument(err))
	}
}

func TestMountPoints(t *testing.T) {
	got, err := MountPoints(
		&config{Volumes: map[string]struct{}{"/b": {}, "/anon": {}}},
		&host{
			Binds:        []string{"/src:/b", "named:/c"},
			Tmpfs:        map[string]string{"/t": "size=1m,exec", "/t2": ""},
			VolumeDriver: "local",
			Mounts: []mount.Mount{
				{Type: mount.TypeBind, Source: "/s", Target: "/m", ReadOnly: true, BindOptions: &mount.BindOptions{NonRecursive: true, Propagation: "shared"}},
				{Type: mount.TypeVolume, Source: "vol", Target: "/v", VolumeOptions: &mount.VolumeOptions{NoCopy: true, Subpath: "a/b"}},
				{Type: mount.TypeTmpfs, Target: "/tm", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 7, Mode: 0o700}},
			},
		})
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []Mount{
		{Type: mount.TypeVolume, Target: "/anon", Driver: "local"},
		{Type: mount.TypeBind, Source: "/src", HostPath: "/src", Target: "/b", CreateSource: true, Driver: "local"},
		{Type: mount.TypeVolume, Source: "named", Target: "/c", Driver: "local"},
		{Type: mount.TypeBind, Source: "/s", HostPath: "/s", Target: "/m", ReadOnly: true, NonRecursive: true, Propagation: "shared"},
		{Type: mount.TypeTmpfs, Target: "/t", Mode: "size=1m,exec", TmpfsOptions: []string{"size=1m", "exec"}},
		{Type: mount.TypeTmpfs, Target: "/t2"},
		{Type: mount.TypeTmpfs, Target: "/tm", TmpfsOptions: []string{"size=7", "mode=700"}},
		{Type: mount.TypeVolume, Source: "vol", Target: "/v", NoCopy: true, Subpath: "a/b"},
	})
	assert.Check(t, got[0].Anonymous() && !got[2].Anonymous())

	for want, hc := range map[string]*host{
		"Duplicate mount point: /x":      {Binds: []string{"a1:/x"}, Tmpfs: map[string]string{"/x/": ""}},
		`invalid tmpfs option "colour"`:  {Tmpfs: map[string]string{"/x": "colour"}},
		"mount path must be absolute":    {Tmpfs: map[string]string{"x": ""}},
		`type "bind": field Source must`: {Mounts: []mount.Mount{{Type: mount.TypeBind, Target: "/x"}}},
		"field Target must not be empty": {Mounts: []mount.Mount{{Type: mount.TypeBind, Source: "/x"}}},
		`type "npipe": mount type unknown`: {
			Mounts: []mount.Mount{{Type: mount.TypeNamedPipe, Source: "/x", Target: "/y"}},
		},
		"invalid propagation mode: x": {
			Mounts: []mount.Mount{{Type: mount.TypeBind, Source: "/x", Target: "/y", BindOptions: &mount.BindOptions{Propagation: "x"}}},
		},
		"subpath must be a relative path": {
			Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: "vol", Target: "/y", VolumeOptions: &mount.VolumeOptions{Subpath: "../x"}}},
		},
		"ReadOnly mode when using anonymous": {
			Mounts: []mount.Mount{{Type: mount.TypeVolume, Target: "/y", ReadOnly: true}},
		},
		"field Source must not be specified": {
			Mounts: []mount.Mount{{Type: mount.TypeTmpfs, Source: "/x", Target: "/y"}},
		},
	} {
		_, err := MountPoints(&config{}, hc)
		assert.Check(t, cmp.ErrorContains(err, want))
		assert.Check(t, errdefs.IsInvalidArgument(err))
	}
}

func TestParseSignal(t *testing.T) {
	for raw, want := range map[string]syscall.Signal{
		"9": 9, "KILL": 9, "SIGKILL": 9, "sigterm": 15, "RTMIN": 34, "RTMIN+3": 37, "SIGRTMAX-1": 63, "RTMAX": 64, "64": 64, "IOT": 6, "CHLD": 17, "CLD": 17, "POLL": 29,
	} {
		got, err := ParseSignal(raw)
		assert.NilError(t, err, raw)
		assert.Check(t, cmp.Equal(got, want), raw)
	}
	for _, raw := range []string{"", "0", "-1", "65", "SIG", "SIGNOT", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMAX-31", "RTMIN+x", "9x"} {
		_, err := ParseSignal(raw)
		assert.Check(t, cmp.Error(err, "invalid signal: "+raw))
		assert.Check(t, errdefs.IsInvalidArgument(err))
	}
}

func p(n uint64) *uint64 { return &n }

func TestLimits(t *testing.T) {
	pids := func(n int64) *int64 { return &n }
	for _, tc := range []struct {
		name string
		r    res
		want Limits
	}{
		{"nothing", res{}, Limits{}},
		{"memory alone doubles with swap", res{Memory: 100 << 20}, Limits{MemoryMax: p(100 << 20), MemorySwapMax: p(100 << 20)}},
		{"no swap", res{Memory: 100 << 20, MemorySwap: 100 << 20}, Limits{MemoryMax: p(100 << 20), MemorySwapMax: p(0)}},
		{"some swap", res{Memory: 100 << 20, MemorySwap: 150 << 20}, Limits{MemoryMax: p(100 << 20), MemorySwapMax: p(50 << 20)}},
		{"any swap", res{Memory: 100 << 20, MemorySwap: -1}, Limits{MemoryMax: p(100 << 20), MemorySwapMax: p(Infinity)}},
		{"reservation", res{MemoryReservation: 50 << 20}, Limits{MemoryLow: p(50 << 20)}},
		{"cpus", res{NanoCPUs: 1_500_000_000}, Limits{CPUQuotaPerSecUSec: p(1_500_000)}},
		{"quota", res{CPUQuota: 50_000}, Limits{CPUQuotaPerSecUSec: p(500_000)}},
		{"quota and period", res{CPUQuota: 30_000, CPUPeriod: 10_000}, Limits{CPUQuotaPerSecUSec: p(3_000_000), CPUQuotaPeriodUSec: p(10_000)}},
		{"huge quota", res{CPUQuota: math.MaxInt64}, Limits{CPUQuotaPerSecUSec: p(Infinity)}},
		{"no quota", res{CPUQuota: -1}, Limits{CPUQuotaPerSecUSec: p(Infinity)}},
		{"shares: default", res{CPUShares: 1024}, Limits{CPUWeight: p(39)}},
		{"shares: least", res{CPUShares: 1}, Limits{CPUWeight: p(1)}},
		{"shares: most", res{CPUShares: 1 << 40}, Limits{CPUWeight: p(10000)}},
		{"cpuset", res{CpusetCpus: "0-2, 5", CpusetMems: "1"}, Limits{AllowedCPUs: []int{0, 1, 2, 5}, AllowedMemoryNodes: []int{1}}},
		{"pids", res{PidsLimit: pids(10)}, Limits{TasksMax: p(10)}},
		{"any pids", res{PidsLimit: pids(-1)}, Limits{TasksMax: p(Infinity)}},
		{"pids unset", res{PidsLimit: pids(0)}, Limits{}},
		{"io", res{
			BlkioWeight: 10, BlkioWeightDevice: []*blkiodev.WeightDevice{{Path: "/dev/sda", Weight: 1000}},
			BlkioDeviceReadBps: []*blkiodev.ThrottleDevice{{Path: "/dev/sda", Rate: 5}}, BlkioDeviceWriteIOps: []*blkiodev.ThrottleDevice{{Path: "/dev/sda"}},
		}, Limits{IOWeight: p(1), IODeviceWeight: []DeviceValue{{"/dev/sda", 10000}}, IOReadBandwidth: []DeviceValue{{"/dev/sda", 5}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := LimitsOf(&host{Resources: tc.r}, testMachine())
			assert.NilError(t, err)
			tc.want.DevicePolicy, tc.want.DeviceAllow = "strict", defaultDeviceAllow
			assert.DeepEqual(t, got, tc.want)
		})
	}
}

func TestDevicePolicy(t *testing.T) {
	hc := &host{Resources: res{
		Devices:           []container.DeviceMapping{{PathOnHost: "/dev/fuse"}, {PathOnHost: "/dev/sda", PathInContainer: "/dev/x", CgroupPermissions: "r"}},
		DeviceCgroupRules: []string{"c 116:* rw", "b 8:1 r", "a 9:9 m", "c *:* m"},
	}}
	l, err := LimitsOf(hc, testMachine())
	assert.NilError(t, err)
	assert.DeepEqual(t, l.DeviceAllow[len(defaultDeviceAllow):], []DeviceAllow{
		{"/dev/char/10:229", "rwm"},
		{"/dev/block/8:0", "r"},
		{"char-116", "rw"},
		{"/dev/block/8:1", "r"},
		{"/dev/char/9:9", "m"},
		{"/dev/block/9:9", "m"},
	})
	hc.Privileged = true
	l, err = LimitsOf(hc, testMachine())
	assert.NilError(t, err)
	assert.Equal(t, fmt.Sprint(l.DevicePolicy, l.DeviceAllow), "auto[]")
}

func TestCPUMask(t *testing.T) {
	assert.DeepEqual(t, CPUMask([]int{0, 1, 9}), []byte{3, 2})
	assert.Check(t, CPUMask(nil) == nil)
}
