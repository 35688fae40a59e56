package containers

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lrd/internal/images"
	"lrd/internal/oci"
	"lrd/internal/rootfs"
)

// CommitOptions say what image is made of a container.
type CommitOptions struct {
	// Ref is the image's name, with or without a tag; empty for none.
	Ref string
	// Author and Comment go into its history.
	Author, Comment string
	// Changes are Dockerfile instructions on its configuration.
	Changes []string
	// Config has values that go before the container's own; nil for none.
	Config *container.Config
	// Pause suspends a running container while its files are read.
	Pause bool
}

// Commit makes an image of what a container's files are now, and returns its ID. Errors: ErrNotFound without the
// container, ErrInvalidArgument for a bad name or change.
func (m *Manager) Commit(ctx context.Context, ref string, o CommitOptions) (imageID string, err error) {
	c, err := m.find(ref)
	if err != nil {
		return "", err
	}
	_, release, err := m.holdRootfs(ctx, c)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, release()) }()
	r, _ := c.snapshot()
	thaw, err := m.freezeFor(ctx, c, o.Pause)
	if err != nil {
		return "", err
	}
	defer thaw()
	layer, err := m.layer(ctx, &r)
	if err != nil {
		return "", err
	}
	defer layer.Close() // it is only read
	id, err := m.o.Images.Commit(ctx, images.CommitOptions{
		ContainerID: c.id, Ref: o.Ref, Config: imageConfig(o.Config, r.Config), Changes: o.Changes,
		Author: o.Author, Comment: o.Comment, CreatedBy: strings.Join(r.Config.Cmd, " "),
	}, layer, thaw)
	if err != nil {
		return "", err
	}
	m.publish(c, events.ActionCommit, time.Time{}, map[string]string{"comment": o.Comment, "imageID": id.String(), "imageRef": o.Ref})
	return id.String(), nil
}

// layer is what a container has written, as an image's layer. Its owner closes it.
func (m *Manager) layer(ctx context.Context, r *Record) (io.ReadCloser, error) {
	data, err := m.o.Images.RootfsData(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	upper, ok := data["UpperDir"]
	if !ok { // vfs, whose layers are copies: only the driver knows what is new
		return m.o.Images.RootfsDiff(ctx, r.ID)
	}
	t, err := rootfs.Open(upper)
	if err != nil {
		return nil, err
	}
	source, err := t.AsLayer(rootfs.Layer{Lower: strings.Split(data["LowerDir"], ":"), Stubs: stubs(r)})
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() { // ends with the archive, or when out is closed
		err := source.Write(ctx, in, func() error { return nil })
		in.CloseWithError(err)
		done <- errors.Join(source.Close(), t.Close())
	}()
	return readCloser{out, func() error { return errors.Join(out.Close(), <-done) }}, nil
}

type readCloser struct {
	io.Reader
	close func() error
}

func (r readCloser) Close() error { return r.close() }

// stubs are the files that the runtime makes in a container to mount others on.
func stubs(r *Record) []string {
	files := []string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/dev/console"}
	for _, mt := range r.Mounts {
		if mt.Type == mount.TypeBind {
			files = append(files, mt.Target)
		}
	}
	return files
}

// freezeFor suspends a running container if that is wanted. thaw lets it go on; it may be called more than once. A
// file, <exec-root>/commits/<id>, tells the next daemon if this one is killed before.
func (m *Manager) freezeFor(ctx context.Context, c *Container, wanted bool) (thaw func(), err error) {
	nothing := func() {}
	if !wanted || c.Status().State != container.StateRunning {
		return nothing, nil
	}
	if err := os.MkdirAll(m.commitsDir(), 0o700); err != nil {
		return nil, err
	}
	note := filepath.Join(m.commitsDir(), c.id)
	if err := os.WriteFile(note, nil, 0o600); err != nil {
		return nil, err
	}
	err = m.Pause(ctx, c.id)
	if err != nil {
		_ = os.Remove(note)
		if errdefs.IsConflict(err) {
			return nothing, nil // it has ended, or somebody has paused it
		}
		return nil, err
	}
	done := false
	return func() {
		if done {
			return
		}
		done = true
		m.thawAfterCommit(context.WithoutCancel(ctx), c)
	}, nil
}

func (m *Manager) commitsDir() string { return filepath.Join(m.o.ExecRoot, "commits") }

// thawAfterCommit lets a container go on that was suspended for a commit.
func (m *Manager) thawAfterCommit(ctx context.Context, c *Container) {
	if err := m.Unpause(ctx, c.id); err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
		m.logger(c.id, "commit").Error("Cannot let the container go on; use docker unpause", "error", err)
	}
	_ = os.Remove(filepath.Join(m.commitsDir(), c.id))
}

// thawCommitted lets containers go on that the daemon before has suspended for a commit. It is called by Restore.
func (m *Manager) thawCommitted() {
	entries, err := os.ReadDir(m.commitsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.o.Log.Warn("Cannot find out which containers the daemon before has paused", "error", err)
	}
	for _, e := range entries {
		c := m.get(e.Name())
		if c == nil {
			_ = os.Remove(filepath.Join(m.commitsDir(), e.Name()))
			continue
		}
		m.workers.Go(func() { m.thawAfterCommit(m.ctx, c) })
	}
}

// imageConfig is a container's configuration as an image has it, with what over says instead, as Docker merges them:
// lists of names are joined, everything else is over's if it says anything.
func imageConfig(over, of *container.Config) dockerspec.DockerOCIImageConfig {
	if over == nil {
		over = &container.Config{}
	}
	ports := map[string]struct{}{}
	for _, set := range []*container.Config{of, over} {
		for p := range set.ExposedPorts {
			ports[p.String()] = struct{}{}
		}
	}
	c := dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{
			User: cmp.Or(over.User, of.User), WorkingDir: cmp.Or(over.WorkingDir, of.WorkingDir), StopSignal: cmp.Or(over.StopSignal, of.StopSignal),
			Env: oci.MergeEnv(of.Env, over.Env), Entrypoint: of.Entrypoint, Cmd: of.Cmd,
			Labels: overlay(of.Labels, over.Labels), Volumes: overlay(of.Volumes, over.Volumes), ExposedPorts: ports,
		},
		DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{
			Healthcheck: cmp.Or(over.Healthcheck, of.Healthcheck), OnBuild: slices.Concat(of.OnBuild, over.OnBuild), Shell: of.Shell,
		},
	}
	if len(over.Entrypoint) > 0 {
		c.Entrypoint, c.Cmd = over.Entrypoint, over.Cmd
	} else if len(over.Cmd) > 0 {
		c.Cmd = over.Cmd
	}
	if len(over.Shell) > 0 {
		c.Shell = over.Shell
	}
	for _, m := range []*map[string]struct{}{&c.Volumes, &c.ExposedPorts} {
		if len(*m) == 0 {
			*m = nil
		}
	}
	if len(c.Labels) == 0 {
		c.Labels = nil
	}
	return c
}
