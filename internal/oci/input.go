package oci

import (
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// SpecVersion is the ociVersion of every Spec made here: the newest that
// crun 1.8.1 (Debian 12) accepts.
const SpecVersion = "1.0.2"

// DefaultShmSize is the size of /dev/shm in bytes when the request names none,
// as Docker's.
const DefaultShmSize = 64 << 20

// InitPath is where the init binary of `--init` appears in the container. The
// name is Docker's: scripts and monitoring look for it.
const InitPath = "/sbin/docker-init"

// Input is everything that [Spec] needs. The caller has validated the request
// and merged the image's configuration into Config.
type Input struct {
	// ID is the container's full identifier.
	ID string
	// Rootfs is the absolute host path of the mounted root filesystem.
	Rootfs string

	Config *container.Config
	Host   *container.HostConfig

	// Mounts are the binds, volumes and tmpfs of the request, as MountPoints
	// gave them, with HostPath filled in for binds and volumes.
	Mounts []Mount

	// Hostname is what the container is called; "" leaves the host's (or that
	// of the UTS namespace it joins) alone. Domainname likewise.
	Hostname   string
	Domainname string

	// ResolvConf, HostsFile and HostnameFile are host paths that are bound over
	// the container's files in /etc; "" leaves the image's file.
	ResolvConf   string
	HostsFile    string
	HostnameFile string

	// NetNS, PidNS, IpcNS and UtsNS are paths of namespaces to join. "" makes a
	// new one, or shares the host's where the request's mode says host.
	NetNS, PidNS, IpcNS, UtsNS string

	// ShmPath is a host directory (a tmpfs) that becomes /dev/shm, for IpcMode
	// "shareable" and "container:"; "" gives the container a tmpfs of its own.
	ShmPath string

	// User is who the process runs as; see ResolveUser.
	User User

	// InitBinary is the host path of a static init (tini, catatonit); it is
	// used when InitEnabled. The caller merges its own default with
	// Host.Init.
	InitBinary  string
	InitEnabled bool

	// ProcessLabel and MountLabel are the SELinux labels of the container's processes and files; "" for none.
	ProcessLabel, MountLabel string

	// DefaultUlimits are the daemon's, by name; those of the request win.
	DefaultUlimits map[string]*container.Ulimit

	// Annotations are added to those of the request, which win.
	Annotations map[string]string

	// Machine says what the host has.
	Machine Machine
}

// User is a container's user, resolved to numbers.
type User struct {
	// UID and GID are inside the container.
	UID, GID uint32
	// AdditionalGIDs are the supplementary groups, the primary one among them
	// (without it a file that denies the group would be open to its members:
	// CVE-2022-36109).
	AdditionalGIDs []uint32
	// Home is the home directory by /etc/passwd, or "/" for a number that is
	// not there.
	Home string
}

// check refuses an Input that no Spec can be made of: programming errors and
// steps that the caller forgot.
func (in *Input) check() error {
	switch {
	case in.Config == nil:
		return invalid("cannot make a spec without a container configuration")
	case in.Host == nil:
		return invalid("cannot make a spec without a host configuration")
	case in.Rootfs == "":
		return invalid("cannot make a spec without a root filesystem")
	}
	return nil
}

// Machine is what Spec and Validate ask of the host. The zero value is a host
// of which nothing is known: every capability that this version knows, no
// AppArmor, no limit on the number of processors, no devices.
type Machine struct {
	// Capabilities are those that a container can have, as "CAP_CHOWN"; a
	// privileged one gets them all.
	Capabilities []string
	// CPUs is the number of processors; 0 when unknown.
	CPUs int
	// CPUSet and MemSet are the processors and memory nodes that are online, in
	// the kernel's list form ("0-3,7"); "" when unknown.
	CPUSet, MemSet string
	// AppArmorProfile is the name of the default profile, loaded; "" where the
	// host has no AppArmor.
	AppArmorProfile string
	// NoSeccomp says that the kernel was built without seccomp filters.
	NoSeccomp bool
	// RecursiveReadOnly says that the kernel has mount_setattr(2) (5.12), so that
	// a read-only mount can make what is mounted below it read-only as well.
	RecursiveReadOnly bool
	// MaskedPaths are masked besides the fixed ones: paths that depend on the
	// hardware.
	MaskedPaths []string
	// Devices gives the device at a path, or all devices below it if it is a
	// directory. Symbolic links are followed at the path itself.
	Devices func(path string) ([]specs.LinuxDevice, error)
}
