package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"

	"lrd/internal/thread"
)

// Mount is a directory or a file of the host's that a container that does not run would have in its tree.
type Mount struct {
	Source   string // absolute, on the host
	Part     string // what of Source is mounted, found within it whatever links there are; "" for all
	Target   string // absolute, in the tree
	ReadOnly bool
}

// Assemble is the tree that a container would see: a root filesystem of the host's, and mounts in it. A mount's
// place is made where it is missing, as the runtime would make it. With readOnly nothing but the mounts can be written to.
func Assemble(dir string, readOnly bool, mounts []Mount) (*Tree, error) {
	mounts = slices.Clone(mounts)
	slices.SortStableFunc(mounts, func(a, b Mount) int {
		return strings.Count(path.Clean(a.Target), "/") - strings.Count(path.Clean(b.Target), "/")
	})
	var t *Tree
	err := thread.Alone(func() (err error) {
		t, err = assemble(dir, readOnly, mounts)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot assemble the container's files: %w", err)
	}
	return t, nil
}

// assemble is Assemble on a thread of its own.
func assemble(dir string, readOnly bool, mounts []Mount) (_ *Tree, err error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, os.NewSyscallError("unshare", err)
	}
	// What happens on the host still reaches us until we have left it; nothing of ours reaches the host.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return nil, os.NewSyscallError("mount", err)
	}
	if err := bind(dir, dir, false); err != nil {
		return nil, err
	}
	root, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	t := &Tree{root: root}
	defer func() {
		if err != nil {
			_ = t.Close()
		}
	}()
	if t.ns, err = os.Open("/proc/thread-self/ns/mnt"); err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if err := t.mount(m); err != nil {
			return nil, fmt.Errorf("%s: %w", m.Target, err)
		}
	}
	if readOnly {
		if err := remountReadOnly(link(root)); err != nil {
			return nil, err
		}
	}
	return t, leaveHost(root)
}

// leaveHost makes root the namespace's own, so that it does not hold on to what is mounted on the host.
func leaveHost(root *os.File) error {
	if err := unix.Fchdir(int(root.Fd())); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	err := unix.PivotRoot(".", ".")
	if errors.Is(err, unix.EINVAL) {
		return nil // a host that runs from its initramfs: the namespace keeps its mounts for as long as it is there
	}
	if err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	// The old root is on top of the new one now.
	return os.NewSyscallError("umount2", unix.Unmount(".", unix.MNT_DETACH))
}

// mount mounts m in the tree, in the namespace of the thread that it is called on.
func (t *Tree) mount(m Mount) error {
	source := m.Source
	if m.Part != "" {
		part, err := pathrs.OpenInRoot(m.Source, m.Part)
		if err != nil {
			return err
		}
		defer part.Close() // O_PATH: there is nothing to lose
		source = link(part)
	}
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	place, err := t.place(m.Target, info.IsDir())
	if err != nil {
		return err
	}
	defer place.Close() // O_PATH: there is nothing to lose
	if err := bind(source, link(place), true); err != nil {
		return err
	}
	if !m.ReadOnly {
		return nil
	}
	// What is mounted now lies over the place.
	over, err := t.open(m.Target, 0)
	if err != nil {
		return err
	}
	defer over.Close() // O_PATH: there is nothing to lose
	return remountReadOnly(link(over))
}

// place opens a mount's place, making it if it is not there.
func (t *Tree) place(target string, dir bool) (*os.File, error) {
	f, err := t.open(target, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if dir {
		return t.makeDirs(target)
	}
	parent, err := t.makeDirs(path.Dir(target))
	if err != nil {
		return nil, err
	}
	defer parent.Close() // O_PATH: there is nothing to lose
	fd, err := unix.Openat(int(parent.Fd()), path.Base(target), unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return nil, &fs.PathError{Op: "openat", Path: target, Err: err}
	}
	return os.NewFile(uintptr(fd), target), nil
}

// link is a path by which system calls without descriptors reach f, and nothing else.
func link(f *os.File) string { return fmt.Sprintf("/proc/thread-self/fd/%d", f.Fd()) }

func bind(source, target string, recursive bool) error {
	flags := uintptr(unix.MS_BIND)
	if recursive {
		flags |= unix.MS_REC
	}
	if err := unix.Mount(source, target, "", flags, ""); err != nil {
		return &fs.PathError{Op: "mount", Path: source, Err: err}
	}
	return nil
}

func remountReadOnly(target string) error {
	var have unix.Statfs_t
	if err := unix.Statfs(target, &have); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	// The flags that statfs tells are the mount's, with the same values, but for these; they are kept.
	keep := uintptr(have.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|keep, ""); err != nil {
		return &fs.PathError{Op: "remount", Path: target, Err: err}
	}
	return nil
}
