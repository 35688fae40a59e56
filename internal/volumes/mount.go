package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// holders are who has a volume at the moment: names that the callers choose, as a container's ID. The zero value is ready.
type holders struct {
	// mu guards byVolume. What depends on a volume's holders happens with the volume's lock held too.
	mu       sync.Mutex
	byVolume map[string]map[string]bool
}

func (h *holders) add(volume, holder string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byVolume == nil {
		h.byVolume = map[string]map[string]bool{}
	}
	if h.byVolume[volume] == nil {
		h.byVolume[volume] = map[string]bool{}
	}
	h.byVolume[volume][holder] = true
}

// remove tells whether nobody is left.
func (h *holders) remove(volume, holder string) (none bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byVolume[volume], holder)
	if len(h.byVolume[volume]) > 0 {
		return false
	}
	delete(h.byVolume, volume)
	return true
}

func (h *holders) of(volume string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.byVolume[volume]))
}

// Mount is the directory to mount for a volume, and keeps the volume for a holder until [Store.Unmount]: it cannot be
// removed, and what its options say is mounted there. However often a holder calls it, one Unmount undoes it. The
// directory is one and no link to one: errdefs.ErrFailedPrecondition otherwise. Error: errdefs.ErrNotFound.
func (s *Store) Mount(ctx context.Context, name, holder string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	defer s.locks.Lock(name)()
	m, err := s.read(name)
	if err != nil {
		return "", err
	}
	path, err := s.checkedData(name)
	if err != nil {
		return "", err
	}
	if len(m.Options) > 0 {
		mounted, err := mountinfo.Mounted(path)
		if err != nil {
			return "", fmt.Errorf("cannot tell whether volume %s is mounted: %w", name, err)
		}
		if !mounted {
			if err := mountOptions(m.Options, path); err != nil {
				return "", err
			}
		}
	}
	s.holders.add(name, holder)
	return path, nil
}

// Hold is Mount for a holder of whom an earlier process has mounted the volume. Nothing is mounted, and nothing can go
// wrong: what is not mounted any more is, for who has it, what it has always been.
func (s *Store) Hold(name, holder string) { s.holders.add(name, holder) }

// Unmount gives a volume back. What its options have mounted is unmounted with the last holder. A volume that does not
// exist any more is no error.
func (s *Store) Unmount(name, holder string) error {
	if CheckName(name) != nil {
		return nil
	}
	defer s.locks.Lock(name)()
	if !s.holders.remove(name, holder) {
		return nil
	}
	return s.unmount(name)
}

// unmount unmounts what a volume's options have mounted. The caller holds the volume's lock.
func (s *Store) unmount(name string) error {
	path := s.data(name)
	mounted, err := mountinfo.Mounted(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !mounted {
		return nil
	}
	if err == nil {
		// Who is in there still keeps the file system, and nobody has to wait for it.
		err = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err != nil {
		return fmt.Errorf("cannot unmount volume %s: %w", name, err)
	}
	return nil
}

// Release unmounts the volumes with options that nobody holds. It is for a start, after all holders of before have been
// told by Hold.
func (s *Store) Release() error {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return fmt.Errorf("cannot list volumes: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || CheckName(e.Name()) != nil || len(s.holders.of(e.Name())) > 0 {
			continue
		}
		unlock := s.locks.Lock(e.Name())
		if m, err := s.read(e.Name()); err == nil && len(m.Options) > 0 && len(s.holders.of(e.Name())) == 0 {
			errs = append(errs, s.unmount(e.Name()))
		}
		unlock()
	}
	return errors.Join(errs...)
}

// Size adds up what is in a volume, in bytes; a file with several names counts once. It is -1 for a volume with
// options, which is somewhere else. Links lead nowhere: containers may be at work in the volume.
func (s *Store) Size(ctx context.Context, name string) (int64, error) {
	m, err := s.read(name)
	if err != nil {
		return 0, err
	}
	if len(m.Options) > 0 {
		return -1, nil
	}
	root, err := os.OpenRoot(s.data(name))
	if err != nil {
		return 0, fmt.Errorf("cannot add up volume %s: %w", name, err)
	}
	defer root.Close() // it is only read
	var total int64
	seen := map[inode]bool{}
	err = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !d.Type().IsRegular() {
			return vanished(err)
		}
		info, err := d.Info()
		if err != nil {
			return vanished(err)
		}
		key, several := several(info)
		if !several || !seen[key] {
			total += info.Size()
		}
		if several {
			seen[key] = true
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("cannot add up volume %s: %w", name, err)
	}
	return total, nil
}

// vanished is err, unless it says that something has gone since it was listed.
func vanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
