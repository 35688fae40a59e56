package oci

import (
	"maps"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Spec makes the runtime configuration of a container, as Docker's daemon
// would. It changes nothing in its argument and, given the functions of
// in.Machine, depends on nothing but it (the default seccomp profile also asks
// uname(2) for the kernel's version).
//
// Errors are ErrInvalidArgument when the request is at fault, ErrNotFound when
// a device that it names does not exist.
func Spec(in Input) (*specs.Spec, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:  SpecVersion,
		Root:     &specs.Root{Path: in.Rootfs, Readonly: in.Host.ReadonlyRootfs},
		Hostname: in.Hostname,
		Linux:    &specs.Linux{},
	}
	if in.Host.UTSMode.IsHost() || in.UtsNS != "" {
		// The name belongs to the namespace's owner; the runtime refuses to set
		// one without a UTS namespace of its own.
		s.Hostname = ""
	} else if in.Domainname != "" {
		// Spec.Domainname came with 1.1.0; the sysctl says the same to every
		// runtime.
		s.Linux.Sysctl = map[string]string{"kernel.domainname": in.Domainname}
	}
	s.Annotations = merge(in.Annotations, in.Host.Annotations)

	// The order matters where a step reads what an earlier one wrote: seccomp
	// depends on the capabilities.
	for _, step := range []func(*specs.Spec, *Input) error{
		addProcess,
		addCapabilities,
		addNamespaces,
		addSysctls,
		addDevices,
		addMounts,
		addSecurity,
	} {
		if err := step(s, &in); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// merge is a over b, or nil if both are empty; b wins.
func merge(a, b map[string]string) map[string]string {
	if len(a)+len(b) == 0 {
		return nil
	}
	m := make(map[string]string, len(a)+len(b))
	maps.Copy(m, a)
	maps.Copy(m, b)
	return m
}
