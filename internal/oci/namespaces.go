package oci

import (
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// addNamespaces lists the namespaces that the container does not share with
// the host: new ones, or those of another container, by path.
func addNamespaces(s *specs.Spec, in *Input) error {
	add := func(kind specs.LinuxNamespaceType, path string, host bool) {
		if !host {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
		}
	}
	hc := in.Host
	for _, join := range []struct {
		what string
		asks bool
		path string
	}{
		{"network", hc.NetworkMode.IsContainer(), in.NetNS},
		{"PID", hc.PidMode.IsContainer(), in.PidNS},
		{"IPC", hc.IpcMode.IsContainer(), in.IpcNS},
	} {
		if join.asks && join.path == "" {
			return invalid("cannot join the %s namespace of another container without its path", join.what)
		}
	}
	add(specs.MountNamespace, "", false)
	add(specs.NetworkNamespace, in.NetNS, hc.NetworkMode.IsHost())
	add(specs.UTSNamespace, in.UtsNS, hc.UTSMode.IsHost())
	add(specs.PIDNamespace, in.PidNS, hc.PidMode.IsHost())
	add(specs.IPCNamespace, in.IpcNS, hc.IpcMode.IsHost())
	add(specs.CgroupNamespace, "", hc.CgroupnsMode == container.CgroupnsModeHost)
	return nil
}

// addSysctls sets the request's sysctls over Docker's two defaults: ordinary
// processes may bind ports below 1024 and send pings. Both are properties of
// the network namespace, so they are only set where the container has its own.
func addSysctls(s *specs.Spec, in *Input) error {
	sysctls := s.Linux.Sysctl
	set := func(key, value string) {
		if sysctls == nil {
			sysctls = map[string]string{}
		}
		sysctls[key] = value
	}
	if in.ownsNetwork() {
		set("net.ipv4.ip_unprivileged_port_start", "0")
		set("net.ipv4.ping_group_range", "0 2147483647")
	}
	for key, value := range in.Host.Sysctls {
		if err := checkSysctl(key, in.Host); err != nil {
			return err
		}
		// Both spellings name one file; the dotted one is what runtimes check.
		set(strings.ReplaceAll(key, "/", "."), value)
	}
	s.Linux.Sysctl = sysctls
	return nil
}

// ownsNetwork says that the container's network namespace is its own: neither
// the host's nor another container's.
func (in *Input) ownsNetwork() bool {
	return in.Host.NetworkMode.IsPrivate()
}

// ipcSysctls are the kernel.* sysctls that belong to the IPC namespace
// (namespaces(7)); all others are the whole machine's.
var ipcSysctls = map[string]bool{
	"kernel.msgmax":          true,
	"kernel.msgmnb":          true,
	"kernel.msgmni":          true,
	"kernel.sem":             true,
	"kernel.shmall":          true,
	"kernel.shmmax":          true,
	"kernel.shmmni":          true,
	"kernel.shm_rmid_forced": true,
}

// checkSysctl allows the sysctls of namespaces that the container owns.
func checkSysctl(key string, hc *container.HostConfig) error {
	name := strings.ReplaceAll(key, "/", ".")
	switch {
	case strings.HasPrefix(name, "net."):
		if hc.NetworkMode.IsHost() {
			return invalid("sysctl '%s' not allowed in host network namespace", key)
		}
	case ipcSysctls[name], strings.HasPrefix(name, "fs.mqueue."):
		if hc.IpcMode.IsHost() {
			return invalid("sysctl '%s' not allowed in host IPC namespace", key)
		}
	case name == "kernel.domainname", name == "kernel.hostname":
		if hc.UTSMode.IsHost() {
			return invalid("sysctl '%s' not allowed in host UTS namespace", key)
		}
	default:
		return invalid("sysctl '%s' is not in a separate kernel namespace", key)
	}
	return nil
}
