package volumes

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mount"
)

// The options of the driver local (`docker volume create --opt`): what mount(8) takes as -t, as the device, and as -o.
const (
	optionType   = "type"
	optionDevice = "device"
	optionMount  = "o"
	optionSize   = "size" // a quota, which no file system here can give
)

// needs says which options an option is nothing without, as Docker has it.
var needs = []struct{ option, other string }{
	{optionDevice, optionType}, {optionType, optionDevice}, {optionMount, optionDevice}, {optionMount, optionType},
}

// checkOptions refuses options that could never be mounted, in Docker's words.
func checkOptions(options map[string]string) error {
	for key := range options {
		switch key {
		case optionType, optionDevice, optionMount:
		case optionSize:
			return newError(errdefs.ErrInvalidArgument, "quota size requested but no quota support")
		default:
			return newError(errdefs.ErrInvalidArgument, "invalid option: %q", key)
		}
	}
	for _, n := range needs {
		if _, there := options[n.option]; !there {
			continue
		}
		if _, there := options[n.other]; !there {
			return newError(errdefs.ErrInvalidArgument, "missing required option: %q", n.other)
		}
	}
	if options[optionType] != "cifs" {
		return nil
	}
	device, err := url.Parse(options[optionDevice])
	if err != nil {
		return newError(errdefs.ErrInvalidArgument, "error parsing mount device url: %w", err)
	}
	if device.Port() != "" {
		return newError(errdefs.ErrInvalidArgument, "port not allowed in CIFS device URL, include 'port' in 'o='")
	}
	return nil
}

// mountOptions mounts what the options say on a directory. The kernel does not resolve names, mount.nfs(8) and its
// kin do: as they are not used, a name in addr= is resolved here, and of a CIFS share the server's.
func mountOptions(options map[string]string, target string) error {
	fsType, device, data := options[optionType], options[optionDevice], options[optionMount]
	if fsType == "nfs" || fsType == "cifs" {
		resolved, err := resolveAddr(fsType, device, data)
		if err != nil {
			return fmt.Errorf("error while mounting volume '%s': %w", target, err)
		}
		data = resolved
	}
	if err := mount.Mount(device, target, fsType, data); err != nil {
		said := err.Error()
		if password := optionValue(data, "password"); password != "" {
			said = strings.ReplaceAll(said, "password="+password, "password=********")
		}
		return newError(err, "error while mounting volume '%s': failed to mount local volume: %s", target, said)
	}
	return nil
}

// resolveAddr puts an address in the place of a name in addr=, and, for CIFS without one, the server's into it.
func resolveAddr(fsType, device, data string) (string, error) {
	addr := optionValue(data, "addr")
	if addr == "" && fsType == "cifs" {
		if u, err := url.Parse(device); err == nil {
			if addr = u.Hostname(); addr != "" {
				data = strings.TrimPrefix(data+",addr="+addr, ",")
			}
		}
	}
	if addr == "" || net.ParseIP(addr) != nil {
		return data, nil
	}
	ip, err := net.ResolveIPAddr("ip", addr)
	if err != nil {
		return "", fmt.Errorf("error resolving passed in network volume address: %w", err)
	}
	return strings.Replace(data, "addr="+addr, "addr="+ip.String(), 1), nil
}

// optionValue is the value of key in a list of mount options; empty if it is not there.
func optionValue(options, key string) string {
	for option := range strings.SplitSeq(options, ",") {
		if value, ok := strings.CutPrefix(option, key+"="); ok {
			return value
		}
	}
	return ""
}
