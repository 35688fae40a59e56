package volumes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inode names a file that may have several names.
type inode struct{ dev, ino uint64 }

// several tells which file it is, of one that has several names; false for others.
func several(info fs.FileInfo) (inode, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 || info.IsDir() {
		return inode{}, false
	}
	return inode{uint64(st.Dev), st.Ino}, true //nolint:unconvert // Dev is 32 bits wide on some architectures
}

// treeCopy is one copy of a tree. No symbolic link is followed, neither in the
// source (links are copied as links) nor in the copy: that may be in reach of a container, and nothing is
// ever made outside of it.
type treeCopy struct {
	from  string
	to    *os.Root
	links map[inode]string // where files with several names have been copied to
	dirs  []string         // relative; their attributes come last, from below
}

// copyTree copies what is in the directory from, and its attributes, to the directory to, which is empty:
// contents, owners, modes, times, extended attributes, hard links within the
// tree, devices. Sockets are left out: they are of no use without who listens.
func copyTree(ctx context.Context, from string, to *os.Root) error {
	c := &treeCopy{from: from, to: to, links: map[inode]string{}}
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return c.entry(ctx, rel)
	})
	if err != nil {
		return err
	}
	// A directory's times change with what is put into it.
	for i := len(c.dirs) - 1; i >= 0; i-- {
		if err := c.attributes(c.dirs[i]); err != nil {
			return err
		}
	}
	return nil
}

// entry copies one file, and notes a directory for later.
func (c *treeCopy) entry(ctx context.Context, rel string) error {
	src := filepath.Join(c.from, rel)
	info, err := os.Lstat(src)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("cannot tell what %s is", src)
	}
	if info.IsDir() {
		c.dirs = append(c.dirs, rel)
		if rel == "." {
			return nil
		}
		return c.to.Mkdir(rel, 0o700)
	}
	if key, ok := several(info); ok {
		if first, seen := c.links[key]; seen {
			return c.to.Link(first, rel)
		}
		c.links[key] = rel
	}
	switch info.Mode().Type() {
	case 0:
		err = c.file(ctx, rel)
	case fs.ModeSymlink:
		var target string
		if target, err = os.Readlink(src); err == nil {
			err = c.to.Symlink(target, rel)
		}
	case fs.ModeNamedPipe, fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		err = c.node(rel, st)
	case fs.ModeSocket:
		return nil
	default:
		return fmt.Errorf("cannot copy %s: it is a %s", src, info.Mode().Type())
	}
	if err != nil {
		return err
	}
	return c.attributes(rel)
}

// node makes a FIFO or a device.
func (c *treeCopy) node(rel string, st *syscall.Stat_t) error {
	dir, err := c.to.OpenFile(filepath.Dir(rel), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close() // O_PATH: there is nothing to lose
	if err := unix.Mknodat(int(dir.Fd()), filepath.Base(rel), st.Mode, int(st.Rdev)); err != nil {
		return &fs.PathError{Op: "mknod", Path: rel, Err: err}
	}
	return nil
}

// file copies a regular file's content. io.Copy uses copy_file_range, which
// shares blocks where the file system can.
func (c *treeCopy) file(ctx context.Context, rel string) (err error) {
	in, err := os.OpenFile(filepath.Join(c.from, rel), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := c.to.OpenFile(rel, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for {
		// In pieces, so that a large file ends with the context too.
		n, err := io.CopyN(out, in, 64<<20)
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// attributes gives what was copied those of what it is a copy of.
func (c *treeCopy) attributes(rel string) error {
	src := filepath.Join(c.from, rel)
	info, err := os.Lstat(src)
	if err != nil {
		return err
	}
	return giveAttributes(info, src, c.to, rel)
}

// giveAttributes gives what root has under a name the extended attributes of src, and the owner, mode and times that
// were known of that. The order matters: a change of owner clears set-user-ID bits and file
// capabilities.
func giveAttributes(info fs.FileInfo, src string, root *os.Root, rel string) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("cannot tell who owns %s", src)
	}
	f, err := root.OpenFile(rel, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close() // O_PATH: there is nothing to lose
	fd := int(f.Fd())
	if err := unix.Fchownat(fd, "", int(st.Uid), int(st.Gid), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "chown", Path: rel, Err: err}
	}
	// By which system calls without descriptors reach the file, and nothing else.
	dst := fmt.Sprintf("/proc/self/fd/%d", fd)
	if info.Mode()&fs.ModeSymlink == 0 { // a link has neither a mode of its own nor attributes that matter
		if err := copyXattrs(src, dst); err != nil {
			return err
		}
		if err := unix.Chmod(dst, st.Mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: rel, Err: err}
		}
	}
	times := []unix.Timespec{{Sec: st.Atim.Sec, Nsec: st.Atim.Nsec}, {Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}}
	if err := unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "utimensat", Path: rel, Err: err}
	}
	return nil
}

// copyXattrs copies the extended attributes that a file system lets be copied.
// The kernel's own for overlay ("trusted.overlay.") describe a layer and not a
// file, and SELinux labels say where a file lies; both stay behind.
func copyXattrs(src, dst string) error {
	names, err := xattrNames(src)
	if err != nil {
		return &fs.PathError{Op: "llistxattr", Path: src, Err: err}
	}
	for _, name := range names {
		if strings.HasPrefix(name, "trusted.overlay.") || name == "security.selinux" {
			continue
		}
		value, err := xattr(src, name)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "lgetxattr " + name, Path: src, Err: err}
		}
		err = unix.Setxattr(dst, name, value, 0)
		if errors.Is(err, unix.ENOTSUP) { // the volume's file system has none of these
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "setxattr " + name, Path: src, Err: err}
		}
	}
	return nil
}

// xattrNames lists a file's extended attributes; none where the file system
// has none.
func xattrNames(path string) ([]string, error) {
	raw, err := sized(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(string(raw), func(r rune) bool { return r == 0 }), nil
}

// xattr reads one extended attribute.
func xattr(path, name string) ([]byte, error) {
	return sized(func(buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) })
}

// sized calls a system call that says how large its answer is, and then again
// with room for it, until the two agree.
func sized(call func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := call(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		buf := make([]byte, n)
		n, err = call(buf)
		if errors.Is(err, unix.ERANGE) { // has grown meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}
