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
	defer s.locks.lock(name)()
	m, err := s.read(name)
	if err != nil {
		return err
	}
	dest, err := s.checkedData(name)
	if err != nil {
		return err
	}
	if err := s.copyUp(ctx, m, rootfs, dir, dest); err != nil && !errors.Is(err, unix.EROFS) { // mounted so: nothing to fill
		return fmt.Errorf("cannot fill volume %s with %s of the image: %w", name, dir, err)
	}
	return nil
}

// copyUp is CopyUp with the volume's lock held.
func (s *Store) copyUp(ctx context.Context, m metadata, rootfs, dir, dest string) (err error) {
	part, whole := s.where(m)
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if _, err := os.Lstat(whole); err == nil {
		return moveUp(whole, dest)
	}
	empty, err := isEmpty(dest)
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
			err = errors.Join(err, os.RemoveAll(part))
		}
	}()
	if err := copyTree(ctx, from, part); err != nil {
		return err
	}
	if err := os.Rename(part, whole); err != nil {
		return err
	}
	return moveUp(whole, dest)
}

// moveUp moves what was copied into the volume. The volume's directory itself
// stays: a container may have it mounted. What is in the volume already is left
// alone; that is possible only after a crash.
func moveUp(whole, dest string) error {
	info, err := os.Lstat(whole) // before its times change
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(whole)
	if err != nil {
		return err
	}
	for _, e := range entries {
		target := filepath.Join(dest, e.Name())
		if _, err := os.Lstat(target); err == nil {
			continue
		}
		if err := os.Rename(filepath.Join(whole, e.Name()), target); err != nil {
			return err
		}
	}
	if err := giveAttributes(info, whole, dest); err != nil {
		return err
	}
	return os.RemoveAll(whole)
}

// isEmpty tells whether a directory has nothing in it.
func isEmpty(dir string) (_ bool, err error) {
	f, err := os.Open(dir)
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
