package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// Source is what an archive is to be made of: found, and not yet read. Its owner closes it, before the Tree.
type Source struct {
	t    *Tree
	file *os.File // O_PATH
	stat unix.Stat_t
	name string // of the first member; "" for a tree's own files, whose names have nothing in front
	// layer, if not nil, makes an image's layer of the upper directory of an overlay.
	layer *Layer
}

// Find looks up what an archive of a path is made of, and tells of it what Stat does. Errors are those of Stat.
func (t *Tree) Find(name string) (*Source, container.PathStat, error) {
	name = clean(name)
	f, st, err := t.lookup(name)
	if err != nil {
		return nil, container.PathStat{}, lookupError(err)
	}
	told, err := t.describe(name, st)
	if err == nil && kernelOwn(f) {
		err = newError(errdefs.ErrInvalidArgument, "%s is in a file system of the kernel's, which has no files to copy: use docker exec", name)
	}
	if err != nil {
		return nil, told, errors.Join(err, f.Close())
	}
	return &Source{t: t, file: f, stat: st, name: path.Base(name)}, told, nil
}

// All is the source for an archive of all of the tree, with names that have no directory in front.
func (t *Tree) All() (*Source, error) {
	f, st, err := t.lookup("/")
	if err != nil {
		return nil, err
	}
	return &Source{t: t, file: f, stat: st}, nil
}

// AsLayer is All for the upper directory of an overlay: an image's layer, with whiteouts as layers have them.
func (t *Tree) AsLayer(l Layer) (*Source, error) {
	s, err := t.All()
	if err != nil {
		return nil, err
	}
	s.layer = &l
	return s, nil
}

// Close gives the source's descriptor back.
func (s *Source) Close() error { return s.file.Close() }

// Write writes the archive, except for its end marker, which is whole's to decide: it is called when everything has
// been written, and an error of it is Write's. So a client that gets the end marker has got everything.
//
// Members are named after the last element of the path, as Docker names them; those of the root directory begin with "/".
func (s *Source) Write(ctx context.Context, w io.Writer, whole func() error) error {
	a := &archiver{ctx: ctx, tw: tar.NewWriter(w), ownOnly: s.t.ownOnly, layer: s.layer, names: map[inode]string{}, buf: make([]byte, 256<<10)}
	var err error
	switch {
	case s.stat.Mode&unix.S_IFMT != unix.S_IFDIR:
		err = a.file(s.file, s.stat, s.name)
	case s.name == "":
		err = a.children(s.file, s.stat, "")
	case s.name == "/":
		if err = a.header(s.file, s.stat, "/", ""); err == nil {
			err = a.children(s.file, s.stat, "/")
		}
	default:
		err = a.dir(s.file, s.stat, s.name)
	}
	if err != nil {
		return err
	}
	if err := whole(); err != nil {
		return err
	}
	return a.tw.Close()
}

// inode names a file that may have several names.
type inode struct{ dev, ino uint64 }

// archiver writes one archive.
type archiver struct {
	ctx     context.Context
	tw      *tar.Writer
	ownOnly bool
	layer   *Layer
	names   map[inode]string // of files with several, the one that was written
	buf     []byte
}

// maxName is the longest name of a member that is written, and so bounds how deep a container can lead us.
const maxName = unix.PathMax

// entry writes what dir has under a name, whatever it is by now. What has vanished since it was listed is left out.
func (a *archiver) entry(dir *os.File, dirStat unix.Stat_t, base, name string) error {
	if err := a.ctx.Err(); err != nil {
		return context.Cause(a.ctx)
	}
	if len(name) > maxName {
		return newError(errdefs.ErrInvalidArgument, "cannot copy %s…: its name is longer than %d bytes", name[:64], maxName)
	}
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "openat", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // O_PATH: there is nothing to lose
	st, err := stat(f)
	if err != nil {
		return err
	}
	if a.layer != nil {
		if done, err := a.layerEntry(f, st, name); done || err != nil {
			return err
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return a.file(f, st, name)
	}
	if st.Dev == dirStat.Dev || !a.ownOnly && !kernelOwn(f) && name != deviceDir {
		return a.dir(f, st, name)
	}
	return a.header(f, st, name+"/", "")
}

// deviceDir is where the runtime makes the container's devices, when it is mounted there and all of the container is
// copied: nobody who copies a container wants devices.
const deviceDir = "/dev"

// dir writes a directory and what is in it.
func (a *archiver) dir(f *os.File, st unix.Stat_t, name string) error {
	if err := a.header(f, st, name+"/", ""); err != nil {
		return err
	}
	if a.layer != nil {
		if err := a.opaque(f, name); err != nil {
			return err
		}
	}
	return a.children(f, st, name+"/")
}

// children writes what is in a directory, in the order of the names.
func (a *archiver) children(f *os.File, st unix.Stat_t, prefix string) error {
	fd, err := unix.Openat(int(f.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "openat", Path: prefix, Err: err}
	}
	list := os.NewFile(uintptr(fd), prefix)
	names, err := list.Readdirnames(-1)
	if err := errors.Join(err, list.Close()); err != nil {
		return err
	}
	slices.Sort(names)
	for _, base := range names {
		if err := a.entry(f, st, base, prefix+base); err != nil {
			return err
		}
	}
	return nil
}

// file writes what is no directory.
func (a *archiver) file(f *os.File, st unix.Stat_t, name string) error {
	if st.Nlink > 1 {
		key := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // Dev is 32 bits wide on some architectures
		if first, seen := a.names[key]; seen {
			h := header(st, name)
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return a.tw.WriteHeader(h)
		}
		a.names[key] = name
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return a.content(f, name)
	case unix.S_IFLNK:
		target, err := readlink(f)
		if err != nil {
			return err
		}
		return a.header(f, st, name, target)
	case unix.S_IFSOCK: // of no use without who listens
		return nil
	}
	return a.header(f, st, name, "")
}

// content writes a regular file. It is opened by way of the descriptor that was looked at, so that nothing else is.
func (a *archiver) content(f *os.File, name string) (err error) {
	fd, err := unix.Open(link(f), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	in := os.NewFile(uintptr(fd), name)
	defer func() { err = errors.Join(err, in.Close()) }()
	st, err := stat(in) // its size as of now
	if err != nil {
		return err
	}
	if err := a.header(in, st, name, ""); err != nil {
		return err
	}
	for left := st.Size; left > 0; {
		if err := a.ctx.Err(); err != nil {
			return context.Cause(a.ctx)
		}
		n, err := in.Read(a.buf[:min(int64(len(a.buf)), left)])
		if errors.Is(err, io.EOF) {
			return newError(errdefs.ErrAborted, "cannot copy %s: it became %d bytes shorter while it was read", name, left)
		}
		if err != nil {
			return err
		}
		if _, err := a.tw.Write(a.buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

// header writes the header of anything but a hard link. f is the file, or an O_PATH descriptor of it.
func (a *archiver) header(f *os.File, st unix.Stat_t, name, linkTarget string) error {
	h := header(st, name)
	h.Linkname = linkTarget
	if h.Typeflag == tar.TypeReg {
		capability, err := getXattr(f, capabilityXattr)
		if err != nil {
			return err
		}
		if capability != "" {
			h.PAXRecords = map[string]string{paxXattr + capabilityXattr: capability}
		}
	}
	return a.tw.WriteHeader(h)
}

const (
	paxXattr = "SCHILY.xattr."
	// capabilityXattr is the one extended attribute that goes out, as with Docker: file capabilities.
	capabilityXattr = "security.capability"
)

// header is what a header says of a file but for its content and where it links to.
func header(st unix.Stat_t, name string) *tar.Header {
	h := &tar.Header{
		Format: tar.FormatPAX, Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		// Whole seconds, as from Docker: fractions would be a second header for every file.
		ModTime: time.Unix(st.Mtim.Sec, 0), Typeflag: tar.TypeReg, Size: st.Size,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return h
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	h.Size = 0
	return h
}

// getXattr reads an extended attribute; empty if the file has none, or the file system.
func getXattr(f *os.File, name string) (string, error) {
	buf := make([]byte, 256) // file capabilities have 20 or 24 bytes
	n, err := unix.Getxattr(link(f), name, buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read %s of %s: %w", name, f.Name(), err)
	}
	return string(buf[:n]), nil
}

// kernelFS are file systems whose files are made by the kernel when somebody looks. Their sizes are not true,
// reading some has effects, and some never end.
var kernelFS = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
	unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.BINFMTFS_MAGIC, mqueueMagic,
	unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, unix.SELINUX_MAGIC, unix.NSFS_MAGIC,
}

// mqueueMagic is MQUEUE_MAGIC of the kernel's ipc/mqueue.c.
const mqueueMagic = 0x19800202

// kernelOwn says whether a file is in one of kernelFS.
func kernelOwn(f *os.File) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return false // it is copied then, or fails with a better reason
	}
	return slices.Contains(kernelFS, int64(st.Type)) //nolint:unconvert // Type is 32 bits wide on some architectures
}
