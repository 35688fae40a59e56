package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
)

// CreateRootfs makes a writable layer for a container on top of an image. The
// layer carries the container's ID. labelOptions are what its SELinux labels are made of, on a host that has SELinux; without any it
// has none. Errors: errdefs.ErrNotFound without the image,
// errdefs.ErrAlreadyExists when the container has one.
func (s *Store) CreateRootfs(ctx context.Context, containerID, imageID string, labelOptions ...string) error {
	hex, ok := fullID(imageID)
	if !ok {
		return newError(errdefs.ErrInvalidArgument, "cannot make root filesystem of %s: %q is no image ID", containerID, imageID)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	defer s.rootfs.Lock(containerID)()
	if len(labelOptions) == 0 {
		labelOptions = []string{"disable"}
	}
	_, err := s.storage.CreateContainer(containerID, nil, hex, containerID, "", &storage.ContainerOptions{LabelOpts: labelOptions})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, storage.ErrImageUnknown):
		return errNoImage(imageID)
	case errors.Is(err, storage.ErrDuplicateID):
		return newError(errdefs.ErrAlreadyExists, "cannot make root filesystem: container %s has one", containerID)
	}
	return fmt.Errorf("cannot make root filesystem of %s: %w", containerID, err)
}

// RootfsLabels are the SELinux labels that CreateRootfs has made, of the container's processes and of its files.
// Empty on a host without SELinux.
func (s *Store) RootfsLabels(containerID string) (process, files string, err error) {
	c, err := s.storage.Container(containerID)
	if err != nil {
		return "", "", fmt.Errorf("cannot find the labels of %s: %w", containerID, err)
	}
	return c.ProcessLabel(), c.MountLabel(), nil
}

// MountRootfs mounts a container's root filesystem, if it is not mounted yet,
// and returns where. However often it is called, one [Store.UnmountRootfs]
// undoes it. Errors: errdefs.ErrNotFound when there is no such root filesystem.
func (s *Store) MountRootfs(ctx context.Context, containerID string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	defer s.rootfs.Lock(containerID)()
	layer, err := s.rootfsLayer(containerID)
	if err != nil {
		return "", err
	}
	if layer.MountCount > 0 {
		mounted, err := s.isMounted(layer.MountPoint)
		if err != nil {
			return "", fmt.Errorf("cannot tell whether the root filesystem of %s is mounted: %w", containerID, err)
		}
		if mounted {
			return layer.MountPoint, nil
		}
		// Somebody has unmounted it by hand. Counting on from there
		// would need two unmounts in the end.
		if _, err := s.storage.Unmount(containerID, true); err != nil {
			return "", fmt.Errorf("cannot reset the mount of the root filesystem of %s: %w", containerID, err)
		}
	}
	path, err := s.storage.Mount(containerID, "")
	if err != nil {
		return "", fmt.Errorf("cannot mount root filesystem of %s: %w", containerID, err)
	}
	return path, nil
}

// UnmountRootfs unmounts a container's root filesystem. One that is not
// mounted, or does not exist, is no error: the caller has what it wants.
func (s *Store) UnmountRootfs(ctx context.Context, containerID string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer s.rootfs.Lock(containerID)()
	return s.unmountLocked(containerID)
}

// unmountLocked is UnmountRootfs with the container's lock held.
func (s *Store) unmountLocked(containerID string) error {
	_, err := s.storage.Unmount(containerID, true)
	if err == nil || errors.Is(err, storage.ErrLayerUnknown) || errors.Is(err, storage.ErrLayerNotMounted) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("cannot unmount root filesystem of %s: %w", containerID, err)
}

// RemoveRootfs unmounts and deletes a container's root filesystem. What is
// already gone is no error. An image that was removed by force while this root
// filesystem stood on it goes with it.
func (s *Store) RemoveRootfs(ctx context.Context, containerID string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer s.rootfs.Lock(containerID)()
	if err := s.unmountLocked(containerID); err != nil {
		return err
	}
	imageID := ""
	if c, err := s.storage.Container(containerID); err == nil {
		imageID = c.ImageID
	}
	err := s.storage.DeleteContainer(containerID)
	if errors.Is(err, storage.ErrNotAContainer) || errors.Is(err, storage.ErrContainerUnknown) {
		// A crash while making it may have left the layer alone.
		err = s.storage.DeleteLayer(containerID)
		if errors.Is(err, storage.ErrLayerUnknown) || errors.Is(err, storage.ErrNotALayer) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("cannot remove root filesystem of %s: %w", containerID, err)
	}
	s.dropRemovedImage(imageID)
	return nil
}

// dropRemovedImage deletes an image that was removed earlier and that no root
// filesystem needs any more.
func (s *Store) dropRemovedImage(id string) {
	if id == "" || !s.readMark(id).Removed {
		return
	}
	_, err := s.storage.DeleteImage(id, true)
	if err == nil || errors.Is(err, storage.ErrImageUsedByContainer) || errors.Is(err, storage.ErrNotAnImage) {
		return
	}
	// The container is gone all the same; the image's space is not back.
	s.log.Warn("cannot delete an image that was removed earlier", "image", id, "error", err)
}

// RootfsSize is what a container has written (rw) and that together with its
// image (virtual), in bytes. It walks the writable layer without holding a
// lock: a running container's answer is as of now, roughly.
func (s *Store) RootfsSize(ctx context.Context, containerID string) (rw, virtual int64, err error) {
	layer, err := s.rootfsLayer(containerID)
	if err != nil {
		return 0, 0, err
	}
	sizes, err := s.layerSizes(layer.Parent)
	if err != nil {
		return 0, 0, err
	}
	for _, size := range sizes {
		virtual += size
	}
	if rw, err = s.writtenBytes(ctx, layer); err != nil {
		return 0, 0, fmt.Errorf("cannot add up the root filesystem of %s: %w", containerID, err)
	}
	return rw, virtual + rw, nil
}

// writtenBytes adds up the files of a writable layer.
func (s *Store) writtenBytes(ctx context.Context, layer *storage.Layer) (int64, error) {
	driver, err := s.storage.GraphDriver()
	if err != nil {
		return 0, err
	}
	data, err := driver.Metadata(layer.ID)
	if err != nil {
		return 0, err
	}
	upper, ok := data["UpperDir"]
	if !ok { // vfs: a layer is a copy of the whole tree
		return s.storage.DiffSize(layer.Parent, layer.ID)
	}
	return treeSize(ctx, upper)
}

// treeSize adds up the regular files below dir, a file with several names once.
// A container may be changing the tree: what vanishes under the walk counts
// nothing, and a directory that becomes a link leads nowhere.
func treeSize(ctx context.Context, dir string) (int64, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close() // it is only read
	type inode struct{ dev, ino uint64 }
	seen := map[inode]bool{}
	var total int64
	err = fs.WalkDir(root.FS(), ".", func(_ string, d fs.DirEntry, err error) error {
		if changedMeanwhile(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if changedMeanwhile(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			key := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // Dev is 32 bits wide on some architectures
			if seen[key] {
				return nil
			}
			seen[key] = true
		}
		total += info.Size()
		return nil
	})
	return total, err
}

// changedMeanwhile says whether an error of os.Root is of a name that has become another one's: that leads nowhere, to no directory,
// through a link, or, which is the one error that is not the system's, out of the tree.
func changedMeanwhile(err error) bool {
	var errno syscall.Errno
	if err == nil {
		return false
	}
	return !errors.As(err, &errno) || errno == syscall.ENOENT || errno == syscall.ENOTDIR || errno == syscall.ELOOP
}

// RootfsImage is the ID of the image that a container's root filesystem stands
// on.
func (s *Store) RootfsImage(ctx context.Context, containerID string) (digest.Digest, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	c, err := s.storage.Container(containerID)
	if err != nil {
		return "", errNoRootfs(containerID)
	}
	return digest.NewDigestFromEncoded(digest.SHA256, c.ImageID), nil
}

// RootfsData is what the storage driver tells about a container's root
// filesystem (with overlay: LowerDir, UpperDir, WorkDir, MergedDir), for
// `docker inspect`.
func (s *Store) RootfsData(ctx context.Context, containerID string) (map[string]string, error) {
	layer, err := s.rootfsLayer(containerID)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s.layerData(layer.ID)
}

// layerData is what the storage driver tells about a layer.
func (s *Store) layerData(id string) (map[string]string, error) {
	driver, err := s.storage.GraphDriver()
	if err != nil {
		return nil, fmt.Errorf("cannot reach the storage driver: %w", err)
	}
	data, err := driver.Metadata(id)
	if err != nil {
		return nil, fmt.Errorf("cannot read the storage driver's data on layer %s: %w", id, err)
	}
	return data, nil
}

// rootfsLayer is the layer of a container's root filesystem.
func (s *Store) rootfsLayer(containerID string) (*storage.Layer, error) {
	c, err := s.storage.Container(containerID)
	if err != nil || c.ID != containerID {
		return nil, errNoRootfs(containerID)
	}
	layer, err := s.storage.Layer(c.LayerID)
	if err != nil {
		return nil, fmt.Errorf("cannot find the layer of container %s: %w", containerID, err)
	}
	return layer, nil
}

func errNoRootfs(containerID string) error {
	return newError(errdefs.ErrNotFound, "container %s has no root filesystem in this storage", containerID)
}

// isMounted asks the kernel. With vfs a root filesystem is a plain directory,
// and there is nothing to mount.
func (s *Store) isMounted(path string) (bool, error) {
	if s.Driver() == "vfs" {
		_, err := os.Stat(path)
		return err == nil, nil
	}
	mounted, err := mountinfo.Mounted(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return mounted, err
}
