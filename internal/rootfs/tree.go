package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// Tree is a container's files. Its owner closes it.
type Tree struct {
	root *os.File // O_PATH
	ns   *os.File // the mount namespace that it is in; nil for the daemon's
	// ownOnly leaves out what is mounted below the root.
	ownOnly bool
}

// Open is the tree of a directory of the host's, without what is mounted below it.
func Open(dir string) (*Tree, error) {
	root, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Tree{root: root, ownOnly: true}, nil
}

func openRoot(dir string) (*os.File, error) {
	root, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the root of a container: %w", err)
	}
	return root, nil
}

// Close gives the tree's descriptors back.
func (t *Tree) Close() error {
	err := t.root.Close()
	if t.ns != nil {
		err = errors.Join(err, t.ns.Close())
	}
	return err
}

// maxTries bounds the repetition of a look-up that the kernel could not do safely because something was renamed
// at that moment (openat2(2), EAGAIN). A container that renames without pause can fail copies of its own files.
const maxTries = 1000

// open looks a path up. flags are O_PATH ones. The error is a *fs.PathError.
func (t *Tree) open(name string, flags int) (*os.File, error) {
	resolve := uint64(unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS)
	if t.ownOnly {
		resolve |= unix.RESOLVE_NO_XDEV
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_PATH | unix.O_CLOEXEC), Resolve: resolve}
	err := error(unix.EAGAIN)
	for range maxTries {
		var fd int
		fd, err = unix.Openat2(int(t.root.Fd()), name, &how)
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return nil, &fs.PathError{Op: "openat2", Path: name, Err: err}
}

// clean is a path as Docker reads it: below the root, and with the "/" or "/." at its end that a client writes to
// mean the directory itself and not a link to it.
func clean(name string) string {
	cleaned := path.Join("/", name)
	switch {
	case cleaned == "/":
	case strings.HasSuffix(name, "/."):
		cleaned += "/."
	case strings.HasSuffix(name, "/"):
		cleaned += "/"
	}
	return cleaned
}

// lookup opens what is at a path. A symbolic link at its end is not followed, unless the path says by its end
// that it means a directory.
func (t *Tree) lookup(name string) (*os.File, unix.Stat_t, error) {
	f, err := t.open(name, unix.O_NOFOLLOW)
	if err != nil {
		return nil, unix.Stat_t{}, err
	}
	st, err := stat(f)
	if err != nil {
		return nil, st, errors.Join(err, f.Close())
	}
	return f, st, nil
}

func stat(f *os.File) (st unix.Stat_t, err error) {
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return st, &fs.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	return st, nil
}

// Stat tells what is at a path. LinkTarget of a symbolic link is where it leads to in the tree, whether something
// is there or not. Errors: errdefs.ErrNotFound, errdefs.ErrInvalidArgument where there is no directory and the
// path says that there is one.
func (t *Tree) Stat(name string) (container.PathStat, error) {
	name = clean(name)
	f, st, err := t.lookup(name)
	if err != nil {
		return container.PathStat{}, lookupError(err)
	}
	defer f.Close() // O_PATH: there is nothing to lose
	return t.describe(name, st)
}

func (t *Tree) describe(name string, st unix.Stat_t) (container.PathStat, error) {
	s := container.PathStat{
		Name: path.Base(name), Size: st.Size, Mode: fileMode(st.Mode),
		Mtime: time.Unix(st.Mtim.Unix()),
	}
	if s.Mode&fs.ModeSymlink == 0 {
		return s, nil
	}
	// A sentence for the client only: whoever acts on it looks the path up anew.
	target, err := t.real(name)
	if err != nil {
		return s, lookupError(err)
	}
	s.LinkTarget = target
	return s, nil
}

// vfs lets securejoin follow links in a tree one by one.
type vfs struct{ t *Tree }

func (v vfs) Lstat(name string) (fs.FileInfo, error) {
	f, _, err := v.t.lookup(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // O_PATH: there is nothing to lose
	return f.Stat()
}

func (v vfs) Readlink(name string) (string, error) {
	f, err := v.t.open(name, unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer f.Close() // O_PATH: there is nothing to lose
	return readlink(f)
}

// readlink is what the symbolic link f says.
func readlink(f *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlinkat", Path: f.Name(), Err: err}
	}
	return string(buf[:n]), nil
}

// fileMode is a mode as Go has it.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	for bit, is := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= is
		}
	}
	return mode
}

// kindError is an error of one of errdefs' kinds whose sentence does not name the kind.
type kindError struct {
	kind error
	err  error
}

func newError(kind error, format string, args ...any) error {
	return kindError{kind: kind, err: fmt.Errorf(format, args...)}
}

func (e kindError) Error() string   { return e.err.Error() }
func (e kindError) Unwrap() []error { return []error{e.kind, e.err} }

// lookupError gives the error of a look-up its kind.
func lookupError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return kindError{errdefs.ErrNotFound, err}
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EINVAL):
		return kindError{errdefs.ErrInvalidArgument, err}
	case errors.Is(err, unix.EXDEV):
		return newError(errdefs.ErrInvalidArgument, "%w: it leads out of the container's own files", err)
	}
	return err
}

// real is a path without symbolic links, as of a moment ago: for the choice of words, not to act upon.
func (t *Tree) real(name string) (string, error) { return securejoin.SecureJoinVFS("/", name, vfs{t}) }
