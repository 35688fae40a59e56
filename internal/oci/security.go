package oci

import (
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const unconfined = "unconfined"

// defaultMaskedPaths hide what tells about, or reaches into, the host, as
// Docker's. Machine.MaskedPaths come on top.
var defaultMaskedPaths = []string{
	"/proc/acpi",
	"/proc/asound",
	"/proc/interrupts",
	"/proc/kcore",
	"/proc/keys",
	"/proc/latency_stats",
	"/proc/sched_debug",
	"/proc/scsi",
	"/proc/timer_list",
	"/proc/timer_stats",
	"/sys/devices/virtual/powercap",
	"/sys/firmware",
}

// defaultReadonlyPaths are visible but not for writing, as Docker's.
var defaultReadonlyPaths = []string{
	"/proc/bus",
	"/proc/fs",
	"/proc/irq",
	"/proc/sys",
	"/proc/sysrq-trigger",
}

// DefaultMaskedPaths are masked in a container that is not privileged and
// whose request names no list of its own.
func DefaultMaskedPaths(m Machine) []string {
	return slices.Concat(defaultMaskedPaths, m.MaskedPaths)
}

// DefaultReadonlyPaths are read-only in such a container.
func DefaultReadonlyPaths() []string { return slices.Clone(defaultReadonlyPaths) }

// SecurityOptions are the meaning of HostConfig.SecurityOpt.
type SecurityOptions struct {
	// NoNewPrivileges forbids gaining any by execve(2) (prctl(2),
	// PR_SET_NO_NEW_PRIVS).
	NoNewPrivileges bool
	// Seccomp is "unconfined", the JSON of a profile (the client reads the file
	// and sends its content), or "" for the default.
	Seccomp string
	// AppArmor is the name of a profile, "unconfined", or "" for the default.
	AppArmor string
	// Label are what SELinux labels are made of: "type:container_t" and its kin, or "disable".
	Label []string
	// WritableCgroups mounts /sys/fs/cgroup for writing.
	WritableCgroups bool
}

// LabelOptions are what the SELinux labels of a container are made of; none if it asks for none. They have no effect on a host
// without SELinux, as with Docker.
func LabelOptions(hc *container.HostConfig) []string {
	o, err := ParseSecurityOpt(hc.SecurityOpt)
	if err != nil || hc.Privileged || slices.Contains(o.Label, "disable") {
		return nil
	}
	return o.Label
}

// ParseSecurityOpt reads `--security-opt` values.
func ParseSecurityOpt(opts []string) (SecurityOptions, error) {
	var o SecurityOptions
	for _, opt := range opts {
		if opt == "no-new-privileges" {
			o.NoNewPrivileges = true
			continue
		}
		key, value, ok := strings.Cut(opt, "=")
		if !ok {
			// The form before API 1.23.
			key, value, ok = strings.Cut(opt, ":")
		}
		if !ok {
			return o, invalid("invalid --security-opt 1: %q", opt)
		}
		var err error
		switch key {
		case "label":
			o.Label = append(o.Label, value)
		case "apparmor":
			o.AppArmor = value
		case "seccomp":
			// "builtin" is how a client asks for the daemon's own over a default
			// that the daemon's configuration set.
			if o.Seccomp = value; value == "builtin" {
				o.Seccomp = ""
			}
		case "no-new-privileges":
			o.NoNewPrivileges, err = strconv.ParseBool(value)
		case "writable-cgroups":
			o.WritableCgroups, err = strconv.ParseBool(value)
		default:
			return o, invalid("invalid --security-opt 2: %q", opt)
		}
		if err != nil {
			return o, invalid("invalid --security-opt 2: %q", opt)
		}
	}
	return o, nil
}

// addSecurity comes last: the seccomp profile is fitted to the capabilities.
func addSecurity(s *specs.Spec, in *Input) error {
	opts, err := ParseSecurityOpt(in.Host.SecurityOpt)
	if err != nil {
		return err
	}
	s.Process.NoNewPrivileges = opts.NoNewPrivileges
	s.Process.SelinuxLabel, s.Linux.MountLabel = in.ProcessLabel, in.MountLabel
	s.Process.ApparmorProfile, err = appArmorProfile(opts, in)
	if err != nil {
		return err
	}
	if s.Linux.Seccomp, err = seccompProfile(opts, in, s); err != nil {
		return err
	}
	if in.Host.Privileged {
		return nil
	}
	// nil is "the daemon's defaults"; an empty list is "none"
	// (systempaths=unconfined sends that).
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = in.Host.MaskedPaths, in.Host.ReadonlyPaths
	if s.Linux.MaskedPaths == nil {
		s.Linux.MaskedPaths = DefaultMaskedPaths(in.Machine)
	}
	if s.Linux.ReadonlyPaths == nil {
		s.Linux.ReadonlyPaths = DefaultReadonlyPaths()
	}
	return nil
}

func appArmorProfile(opts SecurityOptions, in *Input) (string, error) {
	if in.Machine.AppArmorProfile == "" {
		if opts.AppArmor != "" && opts.AppArmor != unconfined {
			return "", invalid("AppArmor is not enabled on this host, cannot apply the profile %q", opts.AppArmor)
		}
		return "", nil
	}
	switch {
	case opts.AppArmor != "":
		return opts.AppArmor, nil
	case in.Host.Privileged:
		return unconfined, nil
	}
	return in.Machine.AppArmorProfile, nil
}

// seccompProfile is nil for no filter at all.
func seccompProfile(opts SecurityOptions, in *Input, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	switch {
	case opts.Seccomp == unconfined:
		return nil, nil
	case in.Machine.NoSeccomp && opts.Seccomp != "":
		return nil, invalid("seccomp is not enabled in your kernel, cannot run a custom seccomp profile")
	case in.Machine.NoSeccomp:
		return nil, nil
	case opts.Seccomp != "":
		profile, err := seccomp.LoadProfile(opts.Seccomp, s)
		if err != nil {
			return nil, invalid("invalid seccomp profile: %v", err)
		}
		return profile, nil
	case in.Host.Privileged:
		return nil, nil
	}
	return seccomp.GetDefaultProfile(s)
}

// CheckSeccompProfile says what is wrong with the text of a seccomp profile, as far as it can be told without a container.
func CheckSeccompProfile(text string) error {
	s := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}
	if _, err := seccomp.LoadProfile(text, s); err != nil {
		return invalid("invalid seccomp profile: %v", err)
	}
	return nil
}
