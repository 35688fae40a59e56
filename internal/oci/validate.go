package oci

import (
	"net/netip"
	"path"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Validate refuses a request that could never run on this host, with the
// sentences of Docker's daemon where it has one. It reads nothing but its
// arguments: a name that must exist (a volume, a container, a user) is the
// caller's to look up. cfg and hc may be nil for an empty request.
func Validate(cfg *container.Config, hc *container.HostConfig, m Machine) error {
	if cfg != nil {
		if err := validateConfig(cfg); err != nil {
			return err
		}
	}
	if hc == nil {
		return nil
	}
	if cfg == nil {
		cfg = &container.Config{}
	}
	for _, check := range []func(*container.Config, *container.HostConfig, Machine) error{
		validateUnsupported,
		validateLifecycle,
		validateNamespaces,
		validateNetwork,
		validateSecurity,
		validateResources,
		validateDevices,
	} {
		if err := check(cfg, hc, m); err != nil {
			return err
		}
	}
	_, err := MountPoints(cfg, hc)
	return err
}

func validateConfig(cfg *container.Config) error {
	if wd := cfg.WorkingDir; wd != "" && !path.IsAbs(wd) {
		return invalid("the working directory '%s' is invalid, it needs to be an absolute path", wd)
	}
	if cfg.StopSignal != "" {
		if _, err := ParseSignal(cfg.StopSignal); err != nil {
			return err
		}
	}
	for _, env := range cfg.Env {
		if key, _, _ := strings.Cut(env, "="); key == "" {
			return invalid("invalid environment variable: %s", env)
		}
		if strings.ContainsRune(env, 0) {
			return invalid("invalid environment variable: %q contains a NUL byte", env)
		}
	}
	for _, arg := range append(append([]string{cfg.User, cfg.WorkingDir}, cfg.Entrypoint...), cfg.Cmd...) {
		if strings.ContainsRune(arg, 0) {
			return invalid("invalid argument: %q contains a NUL byte", arg)
		}
	}
	if err := checkHostname(cfg.Hostname); err != nil {
		return err
	}
	if len(cfg.Domainname) > maxHostname || strings.ContainsAny(cfg.Domainname, " \t\r\n\x00/") {
		return invalid("invalid domainname format: %s", cfg.Domainname)
	}
	for port := range cfg.ExposedPorts {
		if err := checkPort(port); err != nil {
			return err
		}
	}
	return nil
}

// maxHostname is what sethostname(2) takes.
const maxHostname = 64

// checkHostname is as lenient as the kernel: Docker takes underscores, and so
// do people.
func checkHostname(name string) error {
	if len(name) > maxHostname || strings.ContainsAny(name, " \t\r\n\x00/") || strings.HasPrefix(name, "-") {
		return invalid("invalid hostname format: %s", name)
	}
	return nil
}

func checkPort(port network.Port) error {
	if !port.IsValid() || port.Num() == 0 {
		return invalid("invalid port specification: %q", port)
	}
	switch port.Proto() {
	case network.TCP, network.UDP, network.SCTP:
		return nil
	}
	return invalid("invalid proto: %s", port.Proto())
}

// validateUnsupported names what lrd does not do, rather than leave it out
// silently.
func validateUnsupported(_ *container.Config, hc *container.HostConfig, _ Machine) error {
	r := hc.Resources
	switch {
	case hc.CgroupParent != "":
		return unsupported("a cgroup parent is not supported: containers are units in lrd.slice")
	case len(hc.Links) > 0 && (hc.NetworkMode == "" || !hc.NetworkMode.IsUserDefined()):
		return unsupported("links are not supported in the default network: in one that you make (docker network create), containers find each other by name, and links are more names")
	case len(hc.StorageOpt) > 0:
		return unsupported("storage options per container are not supported")
	case !hc.Isolation.IsDefault():
		return invalid("invalid isolation '%s' on linux", hc.Isolation)
	case r.CPURealtimePeriod != 0 || r.CPURealtimeRuntime != 0:
		return unsupported("real-time scheduling limits are not supported: cgroup v2 has none")
	case r.CPUCount != 0 || r.CPUPercent != 0 || r.IOMaximumIOps != 0 || r.IOMaximumBandwidth != 0:
		return invalid("CPU count, CPU percent and IO maximum are not for linux")
	}
	return nil
}

func validateLifecycle(_ *container.Config, hc *container.HostConfig, _ Machine) error {
	if err := container.ValidateRestartPolicy(hc.RestartPolicy); err != nil {
		return invalid("%v", err)
	}
	if hc.AutoRemove && !hc.RestartPolicy.IsNone() {
		return invalid("can't create 'AutoRemove' container with restart policy")
	}
	return nil
}

func validateNamespaces(cfg *container.Config, hc *container.HostConfig, _ Machine) error {
	switch {
	case !hc.IpcMode.Valid() || hc.IpcMode.IsContainer() && hc.IpcMode.Container() == "":
		return invalid("invalid IPC mode: %v", hc.IpcMode)
	case !hc.PidMode.Valid():
		return invalid("invalid PID mode: %v", hc.PidMode)
	case !hc.UTSMode.Valid():
		return invalid("invalid UTS mode: %v", hc.UTSMode)
	case !hc.CgroupnsMode.Valid():
		return invalid("invalid cgroup namespace mode: %v", hc.CgroupnsMode)
	case !hc.UsernsMode.Valid():
		return invalid("invalid user namespace mode: %v", hc.UsernsMode)
	case !hc.Cgroup.Valid():
		return invalid("invalid cgroup spec: %v", hc.Cgroup)
	case hc.UTSMode.IsHost() && cfg.Hostname != "":
		return invalid("conflicting options: hostname and the UTS mode")
	}
	for key := range hc.Sysctls {
		if err := checkSysctl(key, hc); err != nil {
			return err
		}
	}
	return nil
}

// validateNetwork holds the options against the network mode: a container that
// joins another's network has no network of its own to configure.
func validateNetwork(cfg *container.Config, hc *container.HostConfig, _ Machine) error {
	for port, bindings := range hc.PortBindings {
		if err := checkPort(port); err != nil {
			return err
		}
		for _, b := range bindings {
			if err := checkHostPort(b.HostPort); err != nil {
				return err
			}
		}
	}
	for _, entry := range hc.ExtraHosts {
		if err := checkExtraHost(entry); err != nil {
			return err
		}
	}
	if !hc.NetworkMode.IsContainer() {
		return nil
	}
	switch {
	case hc.NetworkMode.ConnectedContainer() == "":
		return invalid("invalid container format container:<name|id>")
	case cfg.Hostname != "":
		return invalid("conflicting options: hostname and the network mode")
	case len(hc.DNS) > 0:
		return invalid("conflicting options: dns and the network mode")
	case len(hc.ExtraHosts) > 0:
		return invalid("conflicting options: custom host-to-IP mapping and the network mode")
	case len(hc.PortBindings) > 0 || hc.PublishAllPorts:
		return invalid("conflicting options: port publishing and the container type network mode")
	case len(cfg.ExposedPorts) > 0:
		return invalid("conflicting options: port exposing and the container type network mode")
	}
	return nil
}

// checkHostPort accepts "", "8080" and "8080-8090".
func checkHostPort(port string) error {
	if port == "" {
		return nil
	}
	if _, err := network.ParsePortRange(port); err != nil || strings.Contains(port, "/") {
		return invalid("invalid port specification: %q", port)
	}
	return nil
}

// hostGateway is the address of an extra host that stands for the host itself.
const hostGateway = "host-gateway"

// checkExtraHost accepts NAME:ADDRESS and NAME=ADDRESS.
func checkExtraHost(entry string) error {
	sep := strings.IndexAny(entry, ":=")
	if sep <= 0 {
		return invalid("bad format for add-host: %q", entry)
	}
	address := strings.Trim(entry[sep+1:], "[]")
	if address == hostGateway {
		return nil
	}
	if _, err := netip.ParseAddr(address); err != nil {
		return invalid("invalid IP address in add-host: %q", entry[sep+1:])
	}
	return nil
}

func validateSecurity(_ *container.Config, hc *container.HostConfig, m Machine) error {
	if _, err := Capabilities(hc.CapAdd, hc.CapDrop, hc.Privileged, m); err != nil {
		return err
	}
	_, err := ParseSecurityOpt(hc.SecurityOpt)
	return err
}

func validateDevices(_ *container.Config, hc *container.HostConfig, _ Machine) error {
	for _, d := range hc.Devices {
		if err := checkDevice(d); err != nil {
			return err
		}
	}
	for _, rule := range hc.DeviceCgroupRules {
		if _, err := parseDeviceRule(rule); err != nil {
			return err
		}
	}
	return checkDeviceRequests(hc.DeviceRequests)
}
