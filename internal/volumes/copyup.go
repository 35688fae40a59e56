package volumes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

const (
	copyPart  = "copy-up.tmp" // being copied; worth nothing after a crash
	copyWhole = "copy-up"     // whole; being moved into the volume

	// The same in a volume with options.
	mountedPart  = ".lrd-copy-up.tmp"
	mountedWhole = ".lrd-copy-up"
)

// CopyUp fills a volume that is empty with the content of a directory of a root
// filesystem, and gives it that directory's owner, mode, times and extended
// attributes. dir is resolved within rootfs, so that a symbolic link in it
// cannot lead out; one that does not exist, or is no directory, leaves the
// volume as it is. So does a volume that has something in it.
//
// The content appears in the volume when all of it has been copied. A CopyUp
// that was cut short by a crash is begun again, or finished, by the next. The
// caller has mounted the volume.
func (s *Store) CopyUp(ctx context.Context, name, rootfs, dir string) error {
	defer s.locks.Lock(name)()
	m, err := s.read(name)
	if err != nil {
		return err
	}
	if _, err := s.checkedData(name); err != nil {
		return err
	}
	if err := s.copyUp(ctx, m, rootfs, dir); err != nil && !errors.Is(err, unix.EROFS) { // mounted so: nothing to fill
		return fmt.Errorf("cannot fill volume %s with %s of the image: %w", name, dir, err)
	}
	return nil
}

// places are where a copy-up happens: three names below a directory. A container may be at work in that of a volume with
// options, which is why nothing is reached by way of its links.
type places struct{ base, part, whole, dest string }

// where are the places of a copy-up: beside the volume's content, or, as a rename cannot leave a mount, in it.
func (s *Store) where(m metadata) places {
	if len(m.Options) > 0 {
		return places{s.data(m.Name), mountedPart, mountedWhole, "."}
	}
	return places{filepath.Join(s.root, m.Name), copyPart, copyWhole, dataDir}
}

// copyUp is CopyUp with the volume's lock held.
func (s *Store) copyUp(ctx context.Context, m metadata, rootfs, dir string) (err error) {
	at := s.where(m)
	base, err := os.OpenRoot(at.base)
	if err != nil {
		return err
	}
	defer base.Close() // it is not written to
	if err := base.RemoveAll(at.part); err != nil {
		return err
	}
	if info, err := base.Lstat(at.whole); err == nil && info.IsDir() {
		return moveUp(base, at)
	}
	empty, err := isEmpty(base, at.dest)
	if err != nil || !empty {
		return err
	}
	from, err := securejoin.SecureJoin(rootfs, dir)
	if err != nil {
		return err
	}
	info, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, base.RemoveAll(at.part))
		}
	}()
	if err := copyInto(ctx, from, base, at.part); err != nil {
		return err
	}
	if err := base.Rename(at.part, at.whole); err != nil {
		return err
	}
	return moveUp(base, at)
}

// copyInto copies a tree to a directory that it makes.
func copyInto(ctx context.Context, from string, base *os.Root, name string) error {
	if err := base.Mkdir(name, 0o700); err != nil {
		return err
	}
	to, err := base.OpenRoot(name)
	if err != nil {
		return err
	}
	defer to.Close() // it is not written to
	return copyTree(ctx, from, to)
}

// moveUp moves what was copied into the volume. The volume's directory itself
// stays: a container may have it mounted. What is in the volume already is left
// alone; that is possible only after a crash.
func moveUp(base *os.Root, at places) error {
	info, err := base.Lstat(at.whole) // before its times change
	if err != nil {
		return err
	}
	entries, err := fs.ReadDir(base.FS(), at.whole)
	if err != nil {
		return err
	}
	for _, e := range entries {
		target := filepath.Join(at.dest, e.Name())
		if _, err := base.Lstat(target); err == nil {
			continue
		}
		if err := base.Rename(filepath.Join(at.whole, e.Name()), target); err != nil {
			return err
		}
	}
	if err := giveAttributes(info, filepath.Join(at.base, at.whole), base, at.dest); err != nil {
		return err
	}
	return base.RemoveAll(at.whole)
}

// isEmpty tells whether a directory has nothing in it.
func isEmpty(base *os.Root, dir string) (_ bool, err error) {
	f, err := base.Open(dir)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.ReadDir(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}
