package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/profiles/apparmor"
	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Probe fills in a Machine from this host. AppArmorProfile is left empty: see
// LoadAppArmor, which changes the host.
func Probe() (Machine, error) {
	caps, err := availableCapabilities()
	if err != nil {
		return Machine{}, fmt.Errorf("cannot list the host's capabilities: %w", err)
	}
	m := Machine{
		Capabilities: capabilityNames(caps),
		CPUSet:       readLine("/sys/devices/system/cpu/online"),
		MemSet:       readLine("/sys/devices/system/node/online"),
		NoSeccomp:    readLine("/proc/sys/kernel/seccomp/actions_avail") == "",
		Devices:      hostDevices,
	}
	// An attempt on no mount at all tells an old kernel from a wrong argument.
	m.RecursiveReadOnly = unix.MountSetattr(-1, "", 0, &unix.MountAttr{}) != unix.ENOSYS
	if set, err := parseSet(m.CPUSet); err == nil {
		m.CPUs = len(set)
	}
	// Writing there, or even reading often, is a way to learn of other
	// processors' work; the paths exist only on some hardware.
	m.MaskedPaths, err = filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	return m, err
}

// availableCapabilities are those that the kernel has and that PID 1 may give:
// containers are its children, not the daemon's, whose own bounding set may be
// smaller. Asking for more than that makes the runtime's capset(2) fail, on a
// host that is itself a container for instance.
func availableCapabilities() ([]capability.Cap, error) {
	supported, err := capability.ListSupported()
	if err != nil {
		return nil, err
	}
	init, err := capability.NewPid2(1)
	if err != nil {
		return nil, err
	}
	if err := init.Load(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(supported, func(c capability.Cap) bool {
		return !init.Get(capability.BOUNDING, c)
	}), nil
}

// LoadAppArmor makes sure that Docker's default profile is loaded under a
// name, and gives the name back, or "" where the host has no AppArmor: not in
// the kernel, or, which is logged, nothing that could load a profile. Debian's
// kernel has it enabled also where none of its packages are installed.
func LoadAppArmor(name string, log *slog.Logger) (string, error) {
	if readLine("/sys/module/apparmor/parameters/enabled") != "Y" {
		return "", nil
	}
	if loaded, err := apparmor.IsLoaded(name); err == nil && loaded {
		return name, nil
	}
	if _, err := exec.LookPath("apparmor_parser"); err != nil {
		log.Warn("AppArmor is enabled in the kernel, but apparmor_parser is not installed: containers run without a profile", "error", err)
		return "", nil
	}
	if err := apparmor.InstallDefault(name); err != nil {
		return "", fmt.Errorf("cannot load the AppArmor profile %s: %w", name, err)
	}
	return name, nil
}

// readLine is a one-line file of the kernel's, or "" where it is not there.
func readLine(name string) string {
	content, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(content))
}

// privateBelowDev are the directories of /dev that hold other namespaces'
// devices, or none.
var privateBelowDev = map[string]bool{
	"pts": true, "shm": true, "fd": true, "mqueue": true,
	".lxc": true, ".lxd-mounts": true, ".udev": true, "console": true,
}

// hostDevices implements Machine.Devices.
func hostDevices(name string) ([]specs.LinuxDevice, error) {
	resolved, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		d, ok, err := deviceOf(resolved, name)
		if err != nil || !ok {
			return nil, err
		}
		return []specs.LinuxDevice{d}, nil
	}
	return devicesBelow(resolved, name)
}

// devicesBelow lists the devices in a directory tree; called is what the
// directory was asked for as. Links are left out: they name devices that are
// listed elsewhere.
func devicesBelow(dir, called string) ([]specs.LinuxDevice, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var devices []specs.LinuxDevice
	for _, e := range entries {
		full, as := path.Join(dir, e.Name()), path.Join(called, e.Name())
		switch {
		case privateBelowDev[e.Name()] && dir == "/dev":
		case e.IsDir():
			below, err := devicesBelow(full, as)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				return nil, err
			}
			devices = append(devices, below...)
		case e.Type()&fs.ModeDevice != 0:
			d, ok, err := deviceOf(full, as)
			// A device may go while /dev is walked.
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			if err == nil && ok {
				devices = append(devices, d)
			}
		}
	}
	return devices, nil
}

// deviceOf describes a device node; ok is false for anything else.
func deviceOf(name, as string) (d specs.LinuxDevice, ok bool, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return d, false, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	default:
		return d, false, nil
	}
	mode := fs.FileMode(st.Mode & 0o7777)
	uid, gid := st.Uid, st.Gid
	d.Path = path.Clean(as)
	d.Major, d.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	d.FileMode, d.UID, d.GID = &mode, &uid, &gid
	return d, true, nil
}
