package containers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"

	"lrd/internal/images"
	"lrd/internal/oci"
	"lrd/internal/rootfs"
)

// ExtractOptions say how an archive is unpacked in a container.
type ExtractOptions struct {
	// NoOverwriteDirNonDir refuses to replace a directory by what is none, and the other way round.
	NoOverwriteDirNonDir bool
	// CopyUIDGID gives what is unpacked to the container's user, if it has one that is not root by default; otherwise
	// the archive's members say whose they are.
	CopyUIDGID bool
}

// Archive is an archive on its way out of a container. Its owner closes it.
type Archive struct {
	// Stat tells of what it is made from.
	Stat container.PathStat
	// Write writes the archive. One that is not whole has no end marker, and an error tells why.
	Write func(ctx context.Context, w io.Writer) error
	// Close gives back what the archive is read from.
	Close func() error
}

// archiveOf is the archive of a source.
func archiveOf(c *Container, source *rootfs.Source, stat container.PathStat, release func() error) *Archive {
	whole := func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.gone { // its files went under the copy
			return refused(errdefs.ErrAborted, "container %s was removed meanwhile", c.id)
		}
		return nil
	}
	return &Archive{
		Stat:  stat,
		Write: func(ctx context.Context, w io.Writer) error { return source.Write(ctx, w, whole) },
		Close: func() error { return errors.Join(source.Close(), release()) },
	}
}

// ArchiveStat tells what a path of a container is. Errors: ErrNotFound without the container or the path.
func (m *Manager) ArchiveStat(ctx context.Context, ref, path string) (_ container.PathStat, err error) {
	c, err := m.find(ref)
	if err != nil {
		return container.PathStat{}, err
	}
	t, release, err := m.files(ctx, c)
	if err != nil {
		return container.PathStat{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	stat, err := t.Stat(path)
	return stat, pathError(err, ref, path)
}

// Archive makes an archive of a path of a container, as the container sees it now. Errors: ErrNotFound without the
// container or the path.
func (m *Manager) Archive(ctx context.Context, ref, path string) (*Archive, error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	t, release, err := m.files(ctx, c)
	if err != nil {
		return nil, err
	}
	source, stat, err := t.Find(path)
	if err != nil {
		return nil, errors.Join(pathError(err, ref, path), release())
	}
	m.publish(c, events.ActionArchivePath, time.Time{}, nil)
	return archiveOf(c, source, stat, release), nil
}

// Extract unpacks an archive, compressed or not, into a directory of a container. Errors: ErrNotFound without
// the container or the directory, ErrInvalidArgument for what rootfs.Tree.Extract refuses.
func (m *Manager) Extract(ctx context.Context, ref, path string, r io.Reader, o ExtractOptions) (err error) {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	record, _ := c.snapshot()
	t, release, err := m.files(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if _, err := t.Stat(path); err != nil {
		return pathError(err, ref, path)
	}
	x := rootfs.ExtractOptions{KeepKind: o.NoOverwriteDirNonDir, Mounted: func(path string) bool { return inMount(&record, path) }}
	if o.CopyUIDGID {
		if x.Owner, err = m.ownerOf(ctx, &record); err != nil {
			return err
		}
	}
	plain, err := images.Uncompressed(r)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	defer plain.Close() // it is only read
	if err := t.Extract(ctx, plain, path, x); err != nil {
		return err
	}
	m.publish(c, events.ActionExtractToDir, time.Time{}, nil)
	return nil
}

// Export makes an archive of a container's own files, without what is mounted in it. Errors: ErrNotFound without
// the container.
func (m *Manager) Export(ctx context.Context, ref string) (*Archive, error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	dir, release, err := m.holdRootfs(ctx, c)
	if err != nil {
		return nil, err
	}
	t, err := rootfs.Open(dir)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	source, err := t.All()
	if err != nil {
		return nil, errors.Join(err, t.Close(), release())
	}
	m.publish(c, events.ActionExport, time.Time{}, nil)
	return archiveOf(c, source, container.PathStat{}, func() error { return errors.Join(t.Close(), release()) }), nil
}

// pathError is Docker's sentence for a path that is not there.
func pathError(err error, ref, path string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return refused(errdefs.ErrNotFound, "Could not find the file %s in container %s", path, ref)
	}
	return err
}

// inMount says whether a path, without links, is in one of the container's mounts.
func inMount(r *Record, path string) bool {
	return slices.ContainsFunc(r.Mounts, func(mt Mount) bool {
		return path == mt.Target || strings.HasPrefix(path, mt.Target+"/")
	})
}

// ownerOf is the container's user; nil if it has none.
func (m *Manager) ownerOf(ctx context.Context, r *Record) (*rootfs.Owner, error) {
	if r.Config == nil || r.Config.User == "" {
		return nil, nil
	}
	dir, err := m.o.Images.MountRootfs(ctx, r.ID) // held by the caller's tree
	if err != nil {
		return nil, err
	}
	u, err := oci.ResolveUser(dir, r.Config.User, nil)
	if err != nil {
		return nil, err
	}
	return &rootfs.Owner{UID: int(u.UID), GID: int(u.GID)}, nil
}

// files is the container's tree: what its process sees, or what it would see. release closes it.
func (m *Manager) files(ctx context.Context, c *Container) (_ *rootfs.Tree, release func() error, err error) {
	dir, drop, err := m.holdRootfs(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	r, s := c.snapshot()
	t, dropVolumes, err := m.openTree(ctx, c, &r, s, dir)
	if err != nil {
		return nil, nil, errors.Join(err, drop())
	}
	return t, func() error { return errors.Join(t.Close(), dropVolumes(), drop()) }, nil
}

func (m *Manager) openTree(ctx context.Context, c *Container, r *Record, s Status, dir string) (*rootfs.Tree, func() error, error) {
	nothing := func() error { return nil }
	if s.Pid > 0 {
		t, err := rootfs.OpenProcess(s.Pid, unitName(c.id))
		if err == nil || !errdefs.IsUnavailable(err) {
			return t, nothing, err
		}
		// It has just ended, and nobody has noted it: then there is what it would see.
	}
	p := treeMounts{m: m, r: r, holder: "copy-" + newID()[:12]}
	t, err := p.assemble(ctx, dir)
	if err != nil {
		return nil, nothing, errors.Join(err, p.release())
	}
	return t, p.release, nil
}

// treeMounts are what a container that does not run would have mounted, as far as it is there: a copy is not what the
// start of a container is to fail for. Volumes are held until release.
type treeMounts struct {
	m      *Manager
	r      *Record
	holder string
	mounts []rootfs.Mount
	held   []string
}

func (p *treeMounts) assemble(ctx context.Context, dir string) (*rootfs.Tree, error) {
	taken := func(target string) bool {
		return slices.ContainsFunc(p.r.Mounts, func(mt Mount) bool { return mt.Target == target })
	}
	for _, f := range []string{"hostname", "hosts", "resolv.conf"} { // there since the first start
		if path := filepath.Join(p.m.dataDir(p.r.ID), f); exists(path) && !taken("/etc/"+f) {
			p.mounts = append(p.mounts, rootfs.Mount{Source: path, Target: "/etc/" + f, ReadOnly: p.r.HostConfig.ReadonlyRootfs})
		}
	}
	for _, mt := range p.r.Mounts {
		source := mt.HostPath
		switch {
		case mt.Type == mount.TypeTmpfs:
			continue // it begins empty at each start
		case mt.Volume != "":
			path, err := p.m.o.Volumes.Mount(ctx, mt.Volume, p.holder)
			if err != nil {
				return nil, fmt.Errorf("cannot reach volume %s: %w", mt.Volume, err)
			}
			p.held = append(p.held, mt.Volume)
			source = path
		case !exists(source):
			continue
		}
		p.mounts = append(p.mounts, rootfs.Mount{Source: source, Part: mt.Subpath, Target: mt.Target, ReadOnly: mt.ReadOnly})
	}
	return rootfs.Assemble(dir, p.r.HostConfig.ReadonlyRootfs, p.mounts)
}

func (p *treeMounts) release() error {
	var errs []error
	for _, name := range p.held {
		errs = append(errs, p.m.o.Volumes.Unmount(name, p.holder))
	}
	return errors.Join(errs...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
