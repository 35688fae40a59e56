package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"

	"lrd/internal/config"
	"lrd/internal/logopts"
)

// goArch is this machine's architecture as images name it.
const goArch = runtime.GOARCH

// defaultRegistry is where names without a registry are looked for, as clients expect it in /info.
const defaultRegistry = "https://index.docker.io/v1/"

func (s *Server) info(w http.ResponseWriter, r *request) error {
	info, err := s.systemInfo(r)
	if err != nil {
		return err
	}
	body, err := infoFor(r.version, info)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, body)
}

func (s *Server) systemInfo(r *request) (system.Info, error) {
	images, err := s.Images.Count(r.Context())
	if err != nil {
		return system.Info{}, err
	}
	status, err := s.Images.Status()
	if err != nil {
		return system.Info{}, err
	}
	c := r.config
	counts := s.Containers.Counts()
	cgroups := findCgroups()
	info := system.Info{
		ID:                 s.host.id,
		Containers:         counts.Total,
		ContainersRunning:  counts.Running,
		ContainersPaused:   counts.Paused,
		ContainersStopped:  counts.Stopped,
		Images:             images,
		Driver:             s.Images.Driver(),
		DriverStatus:       status,
		Plugins:            system.PluginsInfo{Volume: []string{"local"}, Network: []string{"bridge", "host", "null"}, Log: logopts.Drivers()},
		MemoryLimit:        cgroups["memory"],
		SwapLimit:          cgroups["memory"],
		CPUCfsPeriod:       cgroups["cpu"],
		CPUCfsQuota:        cgroups["cpu"],
		CPUShares:          cgroups["cpu"],
		CPUSet:             cgroups["cpuset"],
		PidsLimit:          cgroups["pids"],
		IPv4Forwarding:     readLine("/proc/sys/net/ipv4/ip_forward") == "1",
		Debug:              c.Debug,
		NFd:                countFds(),
		NGoroutines:        runtime.NumGoroutine(),
		NEventsListener:    s.Events.Subscribers(),
		SystemTime:         time.Now().Format(time.RFC3339Nano),
		LoggingDriver:      c.LogDriver,
		CgroupDriver:       "systemd",
		CgroupVersion:      "2",
		KernelVersion:      s.host.kernel,
		OperatingSystem:    s.host.os,
		OSVersion:          s.host.osVersion,
		OSType:             "linux",
		Architecture:       s.host.machine,
		IndexServerAddress: defaultRegistry,
		RegistryConfig:     registryConfig(c),
		NCPU:               runtime.NumCPU(),
		MemTotal:           s.host.memory,
		DockerRootDir:      c.DataRoot,
		Name:               hostname(),
		Labels:             notNil(c.Labels),
		ServerVersion:      s.Build.Version,
		Runtimes:           runtimes(c),
		DefaultRuntime:     c.DefaultRuntime,
		Swarm:              swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		LiveRestoreEnabled: c.LiveRestore,
		InitBinary:         c.InitPath,
		SecurityOptions:    securityOptions(c),
		CDISpecDirs:        c.CDIDirs(),
	}
	for _, p := range c.AddressPools {
		info.DefaultAddressPools = append(info.DefaultAddressPools, system.NetworkAddressPool{Base: p.Base, Size: p.Size})
	}
	info.Warnings = warnings(info)
	if s.Warnings != nil {
		info.Warnings = append(info.Warnings, s.Warnings()...)
	}
	return info, nil
}

// warnings are what `docker info` shows below everything else: limits that this machine cannot keep.
func warnings(info system.Info) []string {
	var list []string
	for _, w := range []struct {
		fine     bool
		sentence string
	}{
		{info.MemoryLimit, "WARNING: No memory limit support"},
		{info.CPUCfsQuota, "WARNING: No cpu cfs quota support"},
		{info.CPUShares, "WARNING: No cpu shares support"},
		{info.CPUSet, "WARNING: No cpuset support"},
		{info.PidsLimit, "WARNING: No pids limit support"},
		{info.IPv4Forwarding, "WARNING: IPv4 forwarding is disabled"},
	} {
		if !w.fine {
			list = append(list, w.sentence)
		}
	}
	return list
}

func securityOptions(c *config.Config) []string {
	profile := c.SeccompProfile
	if profile == "" {
		profile = "builtin"
	}
	list := []string{"name=seccomp,profile=" + profile, "name=cgroupns"}
	if c.NoNewPrivileges {
		list = append(list, "name=no-new-privileges")
	}
	return list
}

func runtimes(c *config.Config) map[string]system.RuntimeWithStatus {
	all := make(map[string]system.RuntimeWithStatus, len(c.Runtimes))
	for name, rt := range c.Runtimes {
		all[name] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: rt.Path, Args: rt.Args}}
	}
	return all
}

func registryConfig(c *config.Config) *registry.ServiceConfig {
	r := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{},
		IndexConfigs:          map[string]*registry.IndexInfo{"docker.io": {Name: "docker.io", Mirrors: notNil(c.RegistryMirrors), Secure: true, Official: true}},
		Mirrors:               notNil(c.RegistryMirrors),
	}
	for _, name := range c.InsecureRegistries {
		if p, err := netip.ParsePrefix(name); err == nil {
			r.InsecureRegistryCIDRs = append(r.InsecureRegistryCIDRs, p)
		} else {
			r.IndexConfigs[name] = &registry.IndexInfo{Name: name, Mirrors: []string{}}
		}
	}
	return r
}

// host is what does not change while the daemon runs.
type host struct {
	id, kernel, machine, os, osVersion string
	memory                             int64
}

func findHost() host {
	h := host{
		id:      daemonID(readLine("/etc/machine-id")),
		kernel:  readLine("/proc/sys/kernel/osrelease"),
		machine: machine(),
		memory:  totalMemory(),
	}
	h.os, h.osVersion = operatingSystem()
	return h
}

// daemonID is stable on one machine and does not tell its machine-id, which is confidential (machine-id(5)).
func daemonID(machineID string) string {
	mac := hmac.New(sha256.New, []byte(machineID))
	mac.Write([]byte("lrd"))
	u := mac.Sum(nil)[:16]
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80 // a UUID of version 4
	return uuidText(u)
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// findCgroups returns the controllers that systemd can give a container's unit: those of the root of cgroup v2.
func findCgroups() map[string]bool {
	found := map[string]bool{}
	for _, c := range strings.Fields(readLine("/sys/fs/cgroup/cgroup.controllers")) {
		found[c] = true
	}
	return found
}
