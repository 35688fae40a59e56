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
	all := m.capabilities()
	add, err := normalizeCapabilities(add)
	if err == nil {
		err = checkAvailable(add, all)
	}
	if err != nil {
		return nil, invalid("invalid CapAdd: %v", err)
	}
	drop, err = normalizeCapabilities(drop)
	if err != nil {
		return nil, invalid("invalid CapDrop: %v", err)
	}
	switch {
	case privileged:
		return all, nil
	case slices.Contains(add, allCapabilities):
		return without(all, drop), nil
	case slices.Contains(drop, allCapabilities):
		return add, nil
	}
	// What the host cannot give must not be asked of the runtime: its capset(2)
	// would fail.
	caps := slices.DeleteFunc(without(defaultCapabilities, drop), func(c string) bool { return !slices.Contains(all, c) })
	for _, c := range add {
		if !slices.Contains(caps, c) {
			caps = append(caps, c)
		}
	}
	return caps, nil
}

// normalizeCapabilities gives names their one form and refuses those that do
// not exist.
func normalizeCapabilities(names []string) ([]string, error) {
	var normalized []string
	for _, name := range names {
		c := strings.ToUpper(name)
		if c != allCapabilities && !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if c != allCapabilities && !slices.Contains(knownCapabilities(), c) {
			return nil, invalid("unknown capability: %q", c)
		}
		if !slices.Contains(normalized, c) {
			normalized = append(normalized, c)
		}
	}
	return normalized, nil
}

// checkAvailable refuses to add what the host does not have; to drop it is
// fine.
func checkAvailable(add, available []string) error {
	for _, c := range add {
		if c != allCapabilities && !slices.Contains(available, c) {
			return invalid("capability not supported by your kernel or not available in the current environment: %q", c)
		}
	}
	return nil
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
