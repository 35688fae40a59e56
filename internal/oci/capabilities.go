package oci

import (
	"slices"
	"strings"

	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// allCapabilities stands for every capability in CapAdd and CapDrop.
const allCapabilities = "ALL"

// defaultCapabilities are those of a container that asks for nothing, as
// Docker's.
var defaultCapabilities = []string{
	"CAP_CHOWN",
	"CAP_DAC_OVERRIDE",
	"CAP_FSETID",
	"CAP_FOWNER",
	"CAP_MKNOD",
	"CAP_NET_RAW",
	"CAP_SETGID",
	"CAP_SETUID",
	"CAP_SETFCAP",
	"CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE",
	"CAP_SYS_CHROOT",
	"CAP_KILL",
	"CAP_AUDIT_WRITE",
}

func addCapabilities(s *specs.Spec, in *Input) error {
	caps, err := Capabilities(in.Host.CapAdd, in.Host.CapDrop, in.Host.Privileged, in.Machine)
	if err != nil {
		return err
	}
	// Inheritable and ambient stay empty: with an inheritable set a program
	// with file capabilities would gain them for any user (CVE-2022-24769).
	s.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding:  caps,
		Effective: slices.Clone(caps),
		Permitted: slices.Clone(caps),
	}
	return nil
}

// Capabilities is the set that a container gets: the default set without drop
// and with add, or everything that the host has if privileged. Names are taken
// with and without "CAP_", in any case, and "ALL".
func Capabilities(add, drop []string, privileged bool, m Machine) ([]string, error) {
	add, err := normalizeCapabilities(add, m)
	if err != nil {
		return nil, invalid("invalid CapAdd: %v", err)
	}
	drop, err = normalizeCapabilities(drop, m)
	if err != nil {
		return nil, invalid("invalid CapDrop: %v", err)
	}
	all := m.capabilities()
	switch {
	case privileged:
		return all, nil
	case slices.Contains(add, allCapabilities):
		return without(all, drop), nil
	case slices.Contains(drop, allCapabilities):
		return add, nil
	}
	caps := without(defaultCapabilities, drop)
	for _, c := range add {
		if !slices.Contains(caps, c) {
			caps = append(caps, c)
		}
	}
	return caps, nil
}

// normalizeCapabilities gives names their one form and refuses those that do
// not exist, or not in this kernel.
func normalizeCapabilities(names []string, m Machine) ([]string, error) {
	var normalized []string
	for _, name := range names {
		c := strings.ToUpper(name)
		if c != allCapabilities {
			if !strings.HasPrefix(c, "CAP_") {
				c = "CAP_" + c
			}
			if !slices.Contains(knownCapabilities(), c) {
				return nil, invalid("unknown capability: %q", c)
			}
			if !slices.Contains(m.capabilities(), c) {
				return nil, invalid("capability not supported by your kernel or not available in the current environment: %q", c)
			}
		}
		if !slices.Contains(normalized, c) {
			normalized = append(normalized, c)
		}
	}
	return normalized, nil
}

func (m Machine) capabilities() []string {
	if m.Capabilities == nil {
		return knownCapabilities()
	}
	return slices.Clone(m.Capabilities)
}

func knownCapabilities() []string {
	return capabilityNames(capability.ListKnown())
}

func capabilityNames(list []capability.Cap) []string {
	names := make([]string, len(list))
	for i, c := range list {
		names[i] = "CAP_" + strings.ToUpper(c.String())
	}
	return names
}

func without(list, drop []string) []string {
	var kept []string
	for _, c := range list {
		if !slices.Contains(drop, c) {
			kept = append(kept, c)
		}
	}
	return kept
}
