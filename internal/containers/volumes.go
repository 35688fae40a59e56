package containers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"lrd/internal/volumes"
)

// Volumes keeps named and anonymous volumes; *volumes.Store is one. Holders are containers, by their IDs, while they
// are made and while they run, and copies of files.
type Volumes interface {
	Create(ctx context.Context, r volume.CreateRequest) (volume.Volume, error)
	Mount(ctx context.Context, name, holder string) (path string, err error)
	Unmount(name, holder string) error
	Hold(name, holder string)
	Release() error
	CopyUp(ctx context.Context, name, rootfs, dir string) error
	Remove(ctx context.Context, name string, force bool, users func(name string) []string) error
}

var _ Volumes = (*volumes.Store)(nil)

// takeVolume mounts the volume of a container's mount for a run, and returns what of it is to be mounted.
func (m *Manager) takeVolume(ctx context.Context, r *Record, i int) (path string, err error) {
	mt := r.Mounts[i]
	path, err = m.o.Volumes.Mount(ctx, mt.Volume, r.ID)
	if err != nil {
		return "", err
	}
	if mt.Subpath != "" {
		if path, err = m.pin(r.ID, i, path, mt.Subpath); err != nil {
			return "", err
		}
	}
	m.publishVolume(mt.Volume, events.ActionMount, map[string]string{
		"container": r.ID, "destination": mt.Target, "read/write": strconv.FormatBool(!mt.ReadOnly), "propagation": string(mt.Propagation),
	})
	return path, nil
}

// returnVolumes gives back what takeVolume took, or what was held while the container was made.
func (m *Manager) returnVolumes(r *Record) error {
	errs := []error{m.dropPins(r.ID)}
	seen := map[string]bool{}
	for _, mt := range r.Mounts {
		if mt.Volume != "" && !seen[mt.Volume] {
			seen[mt.Volume] = true
			errs = append(errs, m.o.Volumes.Unmount(mt.Volume, r.ID))
		}
	}
	return errors.Join(errs...)
}

// publishUnmounts tells that the volumes of a run are not mounted for it any more.
func (m *Manager) publishUnmounts(r *Record) {
	for _, mt := range r.Mounts {
		if mt.Volume != "" {
			m.publishVolume(mt.Volume, events.ActionUnmount, map[string]string{"container": r.ID})
		}
	}
}

func (m *Manager) publishVolume(name string, action events.Action, attrs map[string]string) {
	attrs["driver"] = volumes.Driver
	now := time.Now()
	m.o.Events.Publish(events.Message{
		Type: events.VolumeEventType, Action: action, Actor: events.Actor{ID: name, Attributes: attrs}, Scope: "local",
		Time: now.Unix(), TimeNano: now.UnixNano(),
	})
}

// The directory or file of a volume that --mount volume-subpath names is found within the volume, whatever links there
// are by then, and mounted at a place of lrd's own, <exec-root>/mounts/<id>/<n>. That is what the runtime is given, at each
// start that systemd makes too: a path in the volume could lead elsewhere by then.

func (m *Manager) pinsDir(id string) string { return filepath.Join(m.o.ExecRoot, "mounts", id) }

// pin mounts what a volume has at a path.
func (m *Manager) pin(id string, n int, dir, sub string) (string, error) {
	f, err := pathrs.OpenInRoot(dir, sub)
	if errors.Is(err, fs.ErrNotExist) {
		return "", refused(errdefs.ErrInvalidArgument, "cannot access path %s: no such file or directory: the volume has no %s", filepath.Join(dir, sub), sub)
	}
	if err != nil {
		return "", fmt.Errorf("cannot find %s in its volume: %w", sub, err)
	}
	defer f.Close() // O_PATH: there is nothing to lose
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	place := filepath.Join(m.pinsDir(id), strconv.Itoa(n))
	if err := os.MkdirAll(m.pinsDir(id), 0o700); err != nil {
		return "", err
	}
	if info.IsDir() {
		err = os.Mkdir(place, 0o700)
	} else {
		err = os.WriteFile(place, nil, 0o600)
	}
	if err != nil {
		return "", err
	}
	if err := unix.Mount(descriptorPath(f), place, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("cannot mount %s of a volume: %w", sub, err)
	}
	return place, nil
}

// descriptorPath is a path that leads to what f is, and nowhere else.
func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// dropPins unmounts what pin has mounted. Nothing is ever deleted but empty places: below one that is still mounted is
// somebody's volume.
func (m *Manager) dropPins(id string) error {
	entries, err := os.ReadDir(m.pinsDir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		place := filepath.Join(m.pinsDir(id), e.Name())
		if err := unix.Unmount(place, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("cannot unmount a part of a volume: %w", err)
		}
		if err := os.Remove(place); err != nil {
			return err
		}
	}
	return os.Remove(m.pinsDir(id))
}

// holdVolumes tells the volumes who has them since an earlier daemon.
func (m *Manager) holdVolumes(cases []*restoring) {
	for _, k := range cases {
		r, _ := k.c.snapshot()
		if r.Run == nil {
			continue
		}
		for _, mt := range r.Mounts {
			if mt.Volume != "" {
				m.o.Volumes.Hold(mt.Volume, r.ID)
			}
		}
	}
}

// releaseVolumes unmounts the volumes that nobody has, unless there is a container that runs and of which it is not known
// what it has.
func (m *Manager) releaseVolumes() {
	for _, c := range m.all() {
		if c.foreign && c.Status().Running() {
			return
		}
	}
	if err := m.o.Volumes.Release(); err != nil {
		m.o.Log.Warn("Cannot unmount volumes that no container uses", "error", err)
	}
}

// UsesVolume tells which containers mount a volume. One whose Record cannot be read is taken to, if its Record has the
// volume's name anywhere: what it stands on is not to be deleted for a mistake.
func (m *Manager) UsesVolume(volume string) []string {
	var ids []string
	for _, c := range m.all() {
		r, _ := c.snapshot()
		if usesVolume(&r, volume) || c.foreign && m.mentions(c.id, volume) {
			ids = append(ids, c.id)
		}
	}
	return ids
}

func usesVolume(r *Record, volume string) bool {
	for _, mt := range r.Mounts {
		if mt.Volume == volume {
			return true
		}
	}
	return false
}

func (m *Manager) mentions(id, volume string) bool {
	data, err := os.ReadFile(m.records.path(id))
	return err == nil && bytes.Contains(data, []byte(strconv.Quote(volume)))
}
