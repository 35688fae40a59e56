package oci

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// defaultDeviceAllow is what every container may use: any node may be made
// (CAP_MKNOD does no harm without access), and the harmless ones used. It is
// Docker's list in systemd's words; /dev/char/M:N names a number, whether or
// not a node of that name exists.
var defaultDeviceAllow = []DeviceAllow{
	{"char-*", "m"},
	{"block-*", "m"},
	{"/dev/char/1:3", "rwm"}, // null
	{"/dev/char/1:5", "rwm"}, // zero
	{"/dev/char/1:7", "rwm"}, // full
	{"/dev/char/1:8", "rwm"}, // random
	{"/dev/char/1:9", "rwm"}, // urandom
	{"/dev/char/5:0", "rwm"}, // tty
	{"/dev/char/5:1", "rwm"}, // console
	{"/dev/char/5:2", "rwm"}, // ptmx
	{"char-pts", "rwm"},
}

// devicePolicy is what the container may open: everything if privileged,
// otherwise the default list, the devices of --device and the rules of
// --device-cgroup-rule.
func devicePolicy(hc *container.HostConfig, m Machine) (string, []DeviceAllow, error) {
	if hc.Privileged {
		return "auto", nil, nil
	}
	allow := append([]DeviceAllow(nil), defaultDeviceAllow...)
	for _, mapping := range hc.Devices {
		devices, err := mappedDevices(mapping, m)
		if err != nil {
			return "", nil, err
		}
		access := mapping.CgroupPermissions
		if access == "" {
			access = "rwm"
		}
		for _, d := range devices {
			allow = append(allow, DeviceAllow{numberedNode(d.Type, d.Major, d.Minor), access})
		}
	}
	for _, rule := range hc.DeviceCgroupRules {
		parsed, err := parseDeviceRule(rule)
		if err != nil {
			return "", nil, err
		}
		allow = append(allow, parsed...)
	}
	return "strict", joinAllow(allow), nil
}

// joinAllow is a list with one entry for each node, which allows what any of its
// entries does: to systemd the last one of a node is all that counts.
func joinAllow(list []DeviceAllow) []DeviceAllow {
	var joined []DeviceAllow
	at := map[string]int{}
	for _, d := range list {
		i, ok := at[d.Node]
		if !ok {
			at[d.Node] = len(joined)
			joined = append(joined, d)
			continue
		}
		access := ""
		for _, a := range "rwm" {
			if strings.ContainsRune(joined[i].Access+d.Access, a) {
				access += string(a)
			}
		}
		joined[i].Access = access
	}
	return joined
}

// Allow adds devices to those that a container which is not privileged may use.
func (l *Limits) Allow(more ...DeviceAllow) {
	if l.DevicePolicy == "strict" {
		l.DeviceAllow = joinAllow(append(l.DeviceAllow, more...))
	}
}

func numberedNode(kind string, major, minor int64) string {
	if kind == "b" {
		return fmt.Sprintf("/dev/block/%d:%d", major, minor)
	}
	return fmt.Sprintf("/dev/char/%d:%d", major, minor)
}

// deviceRule is the form of cgroup v1's devices.allow:
// TYPE MAJOR:MINOR ACCESS.
var deviceRule = regexp.MustCompile(`^([acb]) ([0-9]{1,10}|\*):([0-9]{1,10}|\*) ([rwm]{1,3})$`)

// parseDeviceRule translates `--device-cgroup-rule`. A rule for one minor of
// every major has no form in systemd and is refused.
func parseDeviceRule(rule string) ([]DeviceAllow, error) {
	parts := deviceRule.FindStringSubmatch(rule)
	if parts == nil {
		return nil, invalid("invalid device cgroup rule format: '%s'", rule)
	}
	kind, major, minor, access := parts[1], parts[2], parts[3], parts[4]
	if major == "*" && minor != "*" {
		return nil, unsupported("device cgroup rule '%s' is not supported: a minor number needs a major number", rule)
	}
	kinds := []string{"char", "block"}
	switch kind {
	case "c":
		kinds = kinds[:1]
	case "b":
		kinds = kinds[1:]
	}
	var allow []DeviceAllow
	for _, k := range kinds {
		node := k + "-" + major
		if minor != "*" {
			node = "/dev/" + k + "/" + major + ":" + minor
		}
		allow = append(allow, DeviceAllow{node, access})
	}
	return allow, nil
}

// checkDevice refuses a --device that no host could satisfy.
func checkDevice(d container.DeviceMapping) error {
	if d.PathOnHost == "" {
		return invalid("invalid device: the path on the host must not be empty")
	}
	if !strings.HasPrefix(d.PathOnHost, "/") || d.PathInContainer != "" && !strings.HasPrefix(d.PathInContainer, "/") {
		return invalid("invalid device %q: paths must be absolute", d.PathOnHost)
	}
	if p := d.CgroupPermissions; p != "" && strings.Trim(p, "rwm") != "" {
		return invalid("invalid device mode: %s", p)
	}
	return nil
}
