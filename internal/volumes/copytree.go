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
// source (links are copied as links) nor in the copy (it is made from nothing,
// directory by directory).
type treeCopy struct {
	from, to string
	links    map[inode]string // where files with several names have been copied to
	dirs     []string         // relative; their attributes come last, from below
}

// copyTree copies the directory from to the path to, which must not exist:
// contents, owners, modes, times, extended attributes, hard links within the
// tree, devices. Sockets are left out: they are of no use without who listens.
func copyTree(ctx context.Context, from, to string) error {
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
		if err := copyAttributes(filepath.Join(from, c.dirs[i]), filepath.Join(to, c.dirs[i])); err != nil {
			return err
		}
	}
	return nil
}

// entry copies one file, and notes a directory for later.
func (c *treeCopy) entry(ctx context.Context, rel string) error {
	src, dst := filepath.Join(c.from, rel), filepath.Join(c.to, rel)
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
		return os.Mkdir(dst, 0o700)
	}
	if key, ok := several(info); ok {
		if first, seen := c.links[key]; seen {
			return os.Link(first, dst)
		}
		c.links[key] = dst
	}
	switch info.Mode().Type() {
	case 0:
		err = copyFile(ctx, src, dst)
	case fs.ModeSymlink:
		var target string
		if target, err = os.Readlink(src); err == nil {
			err = os.Symlink(target, dst)
		}
	case fs.ModeNamedPipe, fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		err = unix.Mknod(dst, st.Mode, int(st.Rdev))
	case fs.ModeSocket:
		return nil
	default:
		return fmt.Errorf("cannot copy %s: it is a %s", src, info.Mode().Type())
	}
	if err != nil {
		return err
	}
	return copyAttributes(src, dst)
}

// copyFile copies a regular file's content. io.Copy uses copy_file_range, which
// shares blocks where the file system can.
func copyFile(ctx context.Context, src, dst string) (err error) {
	in, err := os.OpenFile(src, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
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

// copyAttributes gives dst the owner, extended attributes, mode and times of
// src.
func copyAttributes(src, dst string) error {
	info, err := os.Lstat(src)
	if err != nil {
		return err
	}
	return giveAttributes(info, src, dst)
}

// giveAttributes is copyAttributes with what was known of src at an earlier
// time. The order matters: a change of owner clears set-user-ID bits and file
// capabilities.
func giveAttributes(info fs.FileInfo, src, dst string) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("cannot tell who owns %s", src)
	}
	if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := copyXattrs(src, dst); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink == 0 { // a link has no mode of its own
		if err := unix.Chmod(dst, st.Mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: dst, Err: err}
		}
	}
	times := []unix.Timespec{{Sec: st.Atim.Sec, Nsec: st.Atim.Nsec}, {Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dst, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimensat", Path: dst, Err: err}
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
		err = unix.Lsetxattr(dst, name, value, 0)
		if errors.Is(err, unix.ENOTSUP) { // the volume's file system has none of these
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "lsetxattr " + name, Path: dst, Err: err}
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
