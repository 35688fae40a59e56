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
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// ExtractOptions say how an archive is unpacked.
type ExtractOptions struct {
	// KeepKind refuses to replace a directory by what is none, and what is none by a directory.
	KeepKind bool
	// Owner, if not nil, owns all that is unpacked; otherwise the archive's members say who.
	Owner *Owner
	// Mounted says that a path, absolute and without links, is in one of the container's mounts. It chooses the words for
	// what is read-only; nil for none.
	Mounted func(path string) bool
}

// Owner is a user and a group, by number.
type Owner struct{ UID, GID int }

// Extract unpacks an archive, which is not compressed, into an existing directory. Errors: errdefs.ErrNotFound
// without the directory, errdefs.ErrInvalidArgument if it is none or is read-only, for an archive that is broken or
// has names that lead out, and for what KeepKind refuses. What was unpacked before an error stays.
func (t *Tree) Extract(ctx context.Context, r io.Reader, dir string, o ExtractOptions) error {
	base, err := t.open(clean(dir), 0)
	if err != nil {
		return lookupError(err)
	}
	defer base.Close() // O_PATH: there is nothing to lose
	if err := t.writable(base, dir, o); err != nil {
		return err
	}
	x := &extractor{t: t, dir: clean(dir), o: o, buf: make([]byte, 256<<10)}
	defer x.forget()
	tr := tar.NewReader(r)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return x.finish()
		}
		if err == nil {
			err = x.member(ctx, h, tr)
		}
		if err != nil {
			return archiveError(ctx, err)
		}
	}
}

// writable refuses a place that is none to unpack into.
func (t *Tree) writable(base *os.File, dir string, o ExtractOptions) error {
	st, err := stat(base)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return newError(errdefs.ErrInvalidArgument, "extraction point is not a directory")
	}
	if kernelOwn(base) {
		return newError(errdefs.ErrInvalidArgument, "%s is in a file system of the kernel's, where nothing can be put: use docker exec", dir)
	}
	var have unix.Statfs_t
	if err := unix.Fstatfs(int(base.Fd()), &have); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	if have.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	if real, err := t.real(dir); err == nil && o.Mounted != nil && o.Mounted(real) {
		return newError(errdefs.ErrInvalidArgument, "mounted volume is marked read-only")
	}
	return newError(errdefs.ErrInvalidArgument, "container rootfs is marked read-only")
}

// archiveError gives the error of an archive's member its kind. What the kernel says is no fault of the archive.
func archiveError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch {
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF):
		return newError(errdefs.ErrInvalidArgument, "the archive is broken: %w", err)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EROFS):
		return kindError{errdefs.ErrInvalidArgument, err}
	}
	return err
}

// extractor unpacks one archive.
type extractor struct {
	t   *Tree
	dir string // where to
	o   ExtractOptions
	buf []byte

	// parent is the directory of the last member, by its path: archives have a directory's members together.
	parent     *os.File
	parentPath string

	dirs []dirTimes
}

// dirTimes are a directory's, which change with what is put into it and so come last.
type dirTimes struct {
	path string
	at   []unix.Timespec
}

func (x *extractor) forget() {
	if x.parent != nil {
		_ = x.parent.Close() // O_PATH: there is nothing to lose
		x.parent = nil
	}
}

// member unpacks one member.
func (x *extractor) member(ctx context.Context, h *tar.Header, content io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := memberName(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return x.own(h)
	}
	full := path.Join(x.dir, name)
	parent, err := x.enter(path.Dir(full))
	if err != nil {
		return err
	}
	base := path.Base(full)
	there, err := x.makeRoom(parent, base, full, h.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	if !there {
		if err := x.create(ctx, h, parent, base, content); err != nil {
			return err
		}
	}
	if h.Typeflag == tar.TypeLink {
		return nil // the attributes are those of the file that it is a name of
	}
	return x.attributes(h, parent, base, full)
}

// memberName is a member's place below the directory.
func memberName(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", newError(errdefs.ErrInvalidArgument, "the archive has a member %q, which would be outside of the directory", name)
	}
	if name == "" || strings.ContainsRune(name, 0) {
		return "", newError(errdefs.ErrInvalidArgument, "the archive has a member %q, which is no name", name)
	}
	return clean, nil
}

// own is for a member that stands for the directory itself, which is there.
func (x *extractor) own(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return newError(errdefs.ErrInvalidArgument, "cannot overwrite directory %q with non-directory %q", x.dir, h.Name)
	}
	return nil
}

// enter opens a directory of the tree, making what is missing on the way.
func (x *extractor) enter(dir string) (*os.File, error) {
	if x.parent != nil && x.parentPath == dir {
		return x.parent, nil
	}
	x.forget()
	f, err := x.t.makeDirs(dir)
	if err != nil {
		return nil, err
	}
	x.parent, x.parentPath = f, dir
	return f, nil
}

// makeDirs opens a directory of the tree, making it and what it is in if they are not there.
func (t *Tree) makeDirs(dir string) (*os.File, error) {
	f, err := t.open(dir, unix.O_DIRECTORY)
	if !errors.Is(err, fs.ErrNotExist) || dir == "/" {
		return f, err
	}
	parent, err := t.makeDirs(path.Dir(dir))
	if err != nil {
		return nil, err
	}
	defer parent.Close() // O_PATH: there is nothing to lose
	if err := unix.Mkdirat(int(parent.Fd()), path.Base(dir), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "mkdirat", Path: dir, Err: err}
	}
	return t.open(dir, unix.O_DIRECTORY)
}

// makeRoom removes what is in a member's place, unless both are directories: there says that it stays.
func (x *extractor) makeRoom(parent *os.File, base, full string, dir bool) (there bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(int(parent.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &fs.PathError{Op: "fstatat", Path: full, Err: err}
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case isDir && dir:
		return true, nil
	case isDir && x.o.KeepKind:
		return false, newError(errdefs.ErrInvalidArgument, "cannot overwrite directory %q with non-directory %q", full, x.dir)
	case dir && x.o.KeepKind:
		return false, newError(errdefs.ErrInvalidArgument, "cannot overwrite non-directory %q with directory %q", full, x.dir)
	}
	return false, removeAll(parent, base, full)
}

// removeAll removes what parent has under a name, and what is in it, following nothing.
func removeAll(parent *os.File, base, full string) error {
	err := unix.Unlinkat(int(parent.Fd()), base, 0)
	if errors.Is(err, unix.EISDIR) {
		if err = empty(parent, base, full); err == nil {
			err = unix.Unlinkat(int(parent.Fd()), base, unix.AT_REMOVEDIR)
		}
	}
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) || errdefs.IsInvalidArgument(err) {
		return err
	}
	return &fs.PathError{Op: "unlinkat", Path: full, Err: err}
}

// empty removes what is in a directory. Each directory on the way down is held open, and there may be more of them than
// a path has room for: those are left.
func empty(parent *os.File, base, full string) error {
	if len(full) > maxName {
		return newError(errdefs.ErrInvalidArgument, "cannot remove %s…: its name is longer than %d bytes", full[:64], maxName)
	}
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), full)
	defer dir.Close() // it is only read
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := removeAll(dir, name, path.Join(full, name)); err != nil {
			return err
		}
	}
	return nil
}

// create makes a member that is not there.
func (x *extractor) create(ctx context.Context, h *tar.Header, parent *os.File, base string, content io.Reader) error {
	in, mode := int(parent.Fd()), uint32(h.Mode)&0o7777
	var err error
	switch h.Typeflag {
	case tar.TypeReg, '\x00': // the latter is what old archives have
		return x.createFile(ctx, h, parent, base, content)
	case tar.TypeDir:
		err = unix.Mkdirat(in, base, 0o700)
	case tar.TypeSymlink:
		err = unix.Symlinkat(h.Linkname, in, base)
	case tar.TypeLink:
		return x.createLink(h, parent, base)
	case tar.TypeChar:
		err = unix.Mknodat(in, base, unix.S_IFCHR|mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	case tar.TypeBlock:
		err = unix.Mknodat(in, base, unix.S_IFBLK|mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	case tar.TypeFifo:
		err = unix.Mknodat(in, base, unix.S_IFIFO|mode, 0)
	default:
		return newError(errdefs.ErrInvalidArgument, "the archive has a member %q of type %q, which cannot be unpacked", h.Name, h.Typeflag)
	}
	if err != nil {
		return &fs.PathError{Op: "create", Path: h.Name, Err: err}
	}
	return nil
}

// createFile makes a regular file with its content.
func (x *extractor) createFile(ctx context.Context, h *tar.Header, parent *os.File, base string, content io.Reader) (err error) {
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: h.Name, Err: err}
	}
	f := os.NewFile(uintptr(fd), h.Name)
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := content.Read(x.buf)
		if _, err := f.Write(x.buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// createLink makes another name of a file that the archive names from its own root.
func (x *extractor) createLink(h *tar.Header, parent *os.File, base string) error {
	name, err := memberName(h.Linkname)
	if err != nil {
		return err
	}
	full := path.Join(x.dir, name)
	from, err := x.t.open(path.Dir(full), unix.O_DIRECTORY)
	if err != nil {
		return lookupError(err)
	}
	defer from.Close() // O_PATH: there is nothing to lose
	if err := unix.Linkat(int(from.Fd()), path.Base(full), int(parent.Fd()), base, 0); err != nil {
		return &fs.PathError{Op: "link", Path: h.Name, Err: fmt.Errorf("to %s: %w", h.Linkname, err)}
	}
	return nil
}

// attributes gives what was unpacked its owner, capabilities, mode and times, in this order: a change of owner takes
// set-user-ID bits and capabilities away.
func (x *extractor) attributes(h *tar.Header, parent *os.File, base, full string) error {
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "openat", Path: full, Err: err}
	}
	f := os.NewFile(uintptr(fd), full)
	defer f.Close() // O_PATH: there is nothing to lose
	owner := Owner{h.Uid, h.Gid}
	if x.o.Owner != nil {
		owner = *x.o.Owner
	}
	if err := unix.Fchownat(fd, "", owner.UID, owner.GID, unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "chown", Path: full, Err: err}
	}
	if h.Typeflag != tar.TypeSymlink { // a link has neither mode nor these
		if err := setXattrs(f, h.PAXRecords); err != nil {
			return err
		}
		if err := unix.Chmod(link(f), uint32(h.Mode)&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: full, Err: err}
		}
	}
	at := times(h)
	if h.Typeflag == tar.TypeDir {
		x.dirs = append(x.dirs, dirTimes{full, at})
		return nil
	}
	return setTimes(f, at)
}

// setXattrs gives a file the extended attributes of its header. Those in the namespaces of the kernel's own
// file systems describe a layer and not a file, and a file system that has none of these takes none.
func setXattrs(f *os.File, records map[string]string) error {
	for key, value := range records {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok || strings.HasPrefix(name, "trusted.") {
			continue
		}
		if err := unix.Setxattr(link(f), name, []byte(value), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return &fs.PathError{Op: "setxattr " + name, Path: f.Name(), Err: err}
		}
	}
	return nil
}

func times(h *tar.Header) []unix.Timespec {
	at := func(t time.Time) unix.Timespec {
		ts, err := unix.TimeToTimespec(t)
		if err != nil || t.IsZero() { // before or after what a file system knows
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		}
		return ts
	}
	accessed := h.AccessTime
	if accessed.IsZero() {
		accessed = h.ModTime
	}
	return []unix.Timespec{at(accessed), at(h.ModTime)}
}

func setTimes(f *os.File, at []unix.Timespec) error {
	if err := unix.UtimesNanoAt(int(f.Fd()), "", at, unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "utimensat", Path: f.Name(), Err: err}
	}
	return nil
}

// finish gives directories their times. One that the container has moved away meanwhile keeps its own.
func (x *extractor) finish() error {
	for i := len(x.dirs) - 1; i >= 0; i-- {
		f, err := x.t.open(x.dirs[i].path, unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			continue
		}
		if err := errors.Join(setTimes(f, x.dirs[i].at), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
