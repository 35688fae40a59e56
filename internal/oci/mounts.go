package oci

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultMounts are in every container, in the order in which they are made.
func defaultMounts(in *Input) []specs.Mount {
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
	if shm, ok := shmMount(in); ok {
		mounts = append(mounts, shm)
	}
	return mounts
}

// shmMount is /dev/shm: its size is part of what programs rely on, so it
// belongs to the IPC namespace that the container is in.
func shmMount(in *Input) (specs.Mount, bool) {
	bind := func(source string) specs.Mount {
		return specs.Mount{Destination: "/dev/shm", Type: "bind", Source: source, Options: []string{"rbind", "rprivate"}}
	}
	switch {
	case in.Host.IpcMode.IsNone():
		return specs.Mount{}, false
	case in.Host.IpcMode.IsHost():
		return bind("/dev/shm"), true
	case in.ShmPath != "":
		return bind(in.ShmPath), true
	}
	size := in.Host.ShmSize
	if size == 0 {
		size = DefaultShmSize
	}
	return specs.Mount{
		Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(size, 10)},
	}, true
}

// addMounts puts the request's mounts over the default ones: a default one
// whose place the request takes is left out, and everything below /dev with it
// if the request takes /dev.
func addMounts(s *specs.Spec, in *Input) error {
	own, err := requestedMounts(s, in)
	if err != nil {
		return err
	}
	taken := func(destination string) bool {
		return slices.ContainsFunc(own, func(m specs.Mount) bool {
			return m.Destination == destination ||
				m.Destination == "/dev" && strings.HasPrefix(destination, "/dev/")
		})
	}
	opts, err := ParseSecurityOpt(in.Host.SecurityOpt)
	if err != nil {
		return err
	}
	for _, m := range defaultMounts(in) {
		if taken(m.Destination) {
			continue
		}
		switch {
		case in.Host.Privileged && (m.Type == "sysfs" || m.Type == "cgroup"),
			opts.WritableCgroups && m.Type == "cgroup":
			m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
		case in.Host.ReadonlyRootfs && m.Type == "cgroup" && !slices.Contains(m.Options, "ro"):
			m.Options = append(m.Options, "ro")
		}
		s.Mounts = append(s.Mounts, m)
	}
	own = append(own, namedFiles(in, taken)...)
	if in.useInit() {
		own = append(own, specs.Mount{Destination: InitPath, Type: "bind", Source: in.InitBinary, Options: []string{"bind", "ro"}})
	}
	// A parent before what is mounted below it; equal depths stay in the order
	// of the request.
	slices.SortStableFunc(own, func(a, b specs.Mount) int {
		return depth(a.Destination) - depth(b.Destination)
	})
	s.Mounts = append(s.Mounts, own...)
	return nil
}

func depth(p string) int { return strings.Count(path.Clean(p), "/") }

// namedFiles are the three files of /etc that the daemon writes.
func namedFiles(in *Input, taken func(string) bool) []specs.Mount {
	var mounts []specs.Mount
	for _, f := range []struct{ source, destination string }{
		{in.ResolvConf, "/etc/resolv.conf"},
		{in.HostnameFile, "/etc/hostname"},
		{in.HostsFile, "/etc/hosts"},
	} {
		if f.source == "" || taken(f.destination) {
			continue
		}
		options := []string{"rbind", "rprivate"}
		if in.Host.ReadonlyRootfs {
			options = append(options, "ro")
		}
		mounts = append(mounts, specs.Mount{Destination: f.destination, Type: "bind", Source: f.source, Options: options})
	}
	return mounts
}

// requestedMounts translates the binds, volumes and tmpfs of the request and
// sets the propagation that the root needs for them.
func requestedMounts(s *specs.Spec, in *Input) ([]specs.Mount, error) {
	var mounts []specs.Mount
	seen := map[string]bool{}
	for _, m := range in.Mounts {
		target := path.Clean(m.Target)
		if seen[target] {
			return nil, invalid("Duplicate mount point: %s", target)
		}
		seen[target] = true
		if m.Type == mount.TypeTmpfs {
			options, err := tmpfsOptions(m.TmpfsOptions)
			if err != nil {
				return nil, err
			}
			mounts = append(mounts, specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: options})
			continue
		}
		if !path.IsAbs(m.HostPath) {
			return nil, invalid("cannot mount %s at %s: its place on the host is not known", m.Source, target)
		}
		mounts = append(mounts, specs.Mount{Destination: target, Type: "bind", Source: m.HostPath, Options: bindOptions(m, in.Machine)})
		s.Linux.RootfsPropagation = rootPropagation(s.Linux.RootfsPropagation, m.Propagation)
	}
	return mounts, nil
}

func bindOptions(m Mount, machine Machine) []string {
	options := []string{"rbind"}
	if m.NonRecursive {
		options = []string{"bind"}
	}
	propagation := m.Propagation
	if propagation == "" {
		propagation = mount.PropagationRPrivate
	}
	if m.NonRecursive {
		// One mount has nothing below it, and crun takes the "r" of a propagation for that of rbind.
		propagation = mount.Propagation(strings.TrimPrefix(string(propagation), "r"))
	}
	options = append(options, string(propagation))
	switch {
	case m.ReadOnly && (m.RecursiveReadOnly || machine.RecursiveReadOnly && !m.NonRecursive && !m.TopReadOnly):
		options = append(options, "rro")
	case m.ReadOnly:
		options = append(options, "ro")
	}
	return options
}

// rootPropagation is the weakest propagation of the root under which every
// mount's own works (mount_namespaces(7)): a shared mount needs a shared root,
// a slave one a root that still receives.
func rootPropagation(have string, m mount.Propagation) string {
	switch m {
	case mount.PropagationShared, mount.PropagationRShared:
		return "shared"
	case mount.PropagationSlave, mount.PropagationRSlave:
		if have == "" {
			return "rslave"
		}
	default: // a private mount asks nothing of the root
	}
	return have
}

// tmpfsDefaults are a tmpfs mount's options unless the request says otherwise.
var tmpfsDefaults = []string{"noexec", "nosuid", "nodev", "rprivate"}

// tmpfsFlags maps each flag to what it is about: of two flags about the same,
// the later one wins.
var tmpfsFlags = map[string]string{
	"ro": "write", "rw": "write",
	"exec": "exec", "noexec": "exec",
	"suid": "suid", "nosuid": "suid",
	"dev": "dev", "nodev": "dev",
	"sync": "sync", "async": "sync",
	"dirsync": "dirsync",
	"atime":   "atime", "noatime": "atime", "relatime": "atime", "norelatime": "atime", "strictatime": "atime", "nostrictatime": "atime",
	"diratime": "diratime", "nodiratime": "diratime",
	"private": "propagation", "rprivate": "propagation",
	"shared": "propagation", "rshared": "propagation",
	"slave": "propagation", "rslave": "propagation",
	"unbindable": "propagation", "runbindable": "propagation",
	"defaults": "defaults",
}

// tmpfsKeys are the options of the file system itself (tmpfs(5)).
var tmpfsKeys = map[string]bool{
	"size": true, "mode": true, "uid": true, "gid": true,
	"nr_inodes": true, "nr_blocks": true, "mpol": true,
}

// tmpfsOptions merges the defaults with what was asked for, and refuses
// options that are none of tmpfs's.
func tmpfsOptions(asked []string) ([]string, error) {
	at := map[string]int{}
	var options []string
	for _, o := range slices.Concat(tmpfsDefaults, asked) {
		if o == "" {
			continue
		}
		about, isFlag := tmpfsFlags[o]
		if key, value, hasValue := strings.Cut(o, "="); !isFlag && hasValue && tmpfsKeys[key] && value != "" {
			about = key
		} else if !isFlag {
			return nil, invalid("invalid tmpfs option %q", o)
		}
		if i, again := at[about]; again {
			options[i] = o
			continue
		}
		at[about] = len(options)
		options = append(options, o)
	}
	return options, nil
}
