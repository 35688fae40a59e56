package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"

	"lrd/internal/oci"
)

// makeMounts decides on the container's mounts, makes the volumes that do not
// exist, and fills those that are empty with what the image has in their place.
// undo removes the anonymous volumes that it made; it is never nil. Volumes are
// held until the caller calls returnVolumes: none of them is removed meanwhile.
func (m *Manager) makeMounts(ctx context.Context, r *Record) (undo func(), err error) {
	undo = func() { _ = m.removeVolumes(context.WithoutCancel(ctx), r) }
	points, err := oci.MountPoints(r.Config, r.HostConfig)
	if err != nil {
		return undo, err
	}
	shared, err := m.mountsFrom(r.HostConfig.VolumesFrom)
	if err != nil {
		return undo, err
	}
	for _, p := range points {
		// An anonymous volume of the image gives way to a mount of another container.
		if i := slices.IndexFunc(shared, func(s Mount) bool { return s.Target == p.Target }); i >= 0 {
			if p.Anonymous() {
				continue
			}
			shared = slices.Delete(shared, i, i+1)
		}
		mt := Mount{Mount: p}
		if p.Type == mount.TypeVolume {
			v, err := m.o.Volumes.Create(ctx, volume.CreateRequest{Name: p.Source, Driver: p.Driver, DriverOpts: p.DriverOptions, Labels: p.Labels})
			if err != nil {
				return undo, err
			}
			mt.Volume, mt.AnonymousVolume, mt.HostPath = v.Name, p.Anonymous(), v.Mountpoint
		} else if p.Type == mount.TypeBind && !p.CreateSource {
			if _, err := checkBind(mt); err != nil {
				return undo, err
			}
		}
		r.Mounts = append(r.Mounts, mt)
	}
	r.Mounts = append(r.Mounts, shared...)
	slices.SortStableFunc(r.Mounts, func(a, b Mount) int { return strings.Compare(a.Target, b.Target) })
	return undo, m.fillVolumes(ctx, r)
}

// mountsFrom is the mounts of other containers (`docker run --volumes-from`).
func (m *Manager) mountsFrom(refs []string) ([]Mount, error) {
	var all []Mount
	for _, raw := range refs {
		ref, mode, _ := strings.Cut(raw, ":")
		if mode != "" && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
			return nil, refused(errdefs.ErrInvalidArgument, "invalid mode for volumes-from: %s", mode)
		}
		other, err := m.findOther(ref)
		if err != nil {
			return nil, err
		}
		r, _ := other.snapshot()
		for _, mt := range r.Mounts {
			if mt.Type == mount.TypeTmpfs || slices.ContainsFunc(all, func(have Mount) bool { return have.Target == mt.Target }) {
				continue
			}
			mt.AnonymousVolume = false // it belongs to the other one
			mt.ReadOnly = mt.ReadOnly || mode == "ro"
			all = append(all, mt)
		}
	}
	return all, nil
}

// findOther is find for a container that a create request refers to. That it is not there is a fault of the request:
// a client that is told "not found" by a create goes and pulls the image.
func (m *Manager) findOther(ref string) (*Container, error) {
	c, err := m.find(ref)
	if errdefs.IsNotFound(err) {
		return nil, refused(errdefs.ErrInvalidArgument, "%v", err)
	}
	return c, err
}

// fillVolumes copies what the image has at a volume's place into an empty volume.
func (m *Manager) fillVolumes(ctx context.Context, r *Record) error {
	var fill []Mount
	for _, mt := range r.Mounts {
		switch {
		case mt.Volume == "":
		case mt.NoCopy:
			m.o.Volumes.Hold(mt.Volume, r.ID)
		default:
			if _, err := m.o.Volumes.Mount(ctx, mt.Volume, r.ID); err != nil {
				return err
			}
			fill = append(fill, mt)
		}
	}
	if len(fill) == 0 {
		return nil
	}
	rootfs, err := m.o.Images.MountRootfs(ctx, r.ID)
	if err != nil {
		return err
	}
	var errs []error
	for _, mt := range fill {
		errs = append(errs, m.o.Volumes.CopyUp(ctx, mt.Volume, rootfs, mt.Target))
	}
	return errors.Join(append(errs, m.o.Images.UnmountRootfs(ctx, r.ID))...)
}

// resolveMounts finds where the container's mounts are on the host now, and takes
// its volumes for a run. How to undo that is added to undo.
func (m *Manager) resolveMounts(ctx context.Context, r *Record, undo *cleanup) ([]oci.Mount, error) {
	undo.add(func() { _ = m.returnVolumes(r) })
	resolved := make([]oci.Mount, 0, len(r.Mounts))
	for i, mt := range r.Mounts {
		switch {
		case mt.Volume != "":
			path, err := m.takeVolume(ctx, r, i)
			if err != nil {
				return nil, err
			}
			mt.HostPath = path
		case mt.Type == mount.TypeBind:
			dir, err := checkBind(mt)
			if err != nil {
				return nil, err
			}
			if !dir {
				// Nothing is mounted below a file, and crun 1.8 cannot make one read-only all the way down.
				mt.RecursiveReadOnly, mt.TopReadOnly = false, true
			}
		}
		resolved = append(resolved, mt.Mount)
	}
	return resolved, nil
}

// checkBind sees to it that a bind's source is there, and says whether it is a directory.
func checkBind(mt Mount) (dir bool, err error) {
	info, err := os.Stat(mt.HostPath)
	switch {
	case err == nil:
		return info.IsDir(), nil
	case !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("cannot mount %s: %w", mt.HostPath, err)
	case !mt.CreateSource:
		return false, refused(errdefs.ErrInvalidArgument, "invalid mount config for type %q: bind source path does not exist: %s", mt.Type, mt.HostPath)
	}
	return true, os.MkdirAll(filepath.Clean(mt.HostPath), 0o755)
}

// removeVolumes removes the anonymous volumes that were made for a container
// and that no other one has come to use.
func (m *Manager) removeVolumes(ctx context.Context, r *Record) error {
	var errs []error
	for _, mt := range r.Mounts {
		if !mt.AnonymousVolume {
			continue
		}
		others := func(name string) []string {
			return slices.DeleteFunc(m.UsesVolume(name), func(id string) bool { return id == r.ID })
		}
		if err := m.o.Volumes.Remove(ctx, mt.Volume, true, others); err != nil && !errdefs.IsConflict(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
