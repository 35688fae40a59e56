package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"lrd/internal/config"
	"lrd/internal/oci"
)

// prepare makes what a run stands on: root filesystem, network, mounts, bundle.
// How to undo it is added to undo.
func (m *Manager) prepare(ctx context.Context, r *Record, cfg *config.Config, undo *cleanup) (b bundle, limits oci.Limits, run *Run, err error) {
	rootfs, err := m.o.Images.MountRootfs(ctx, r.ID)
	if err != nil {
		return b, limits, nil, fmt.Errorf("cannot mount the root filesystem: %w", err)
	}
	undo.add(func() { _ = m.unmountRootfs(ctx, r) })
	run = &Run{BootID: m.o.BootID}
	in := oci.Input{ID: r.ID, Rootfs: rootfs, Config: r.Config, Host: r.HostConfig, Machine: m.o.Machine}
	if err := m.joinNetwork(ctx, r, run, &in, undo); err != nil {
		return b, limits, nil, err
	}
	if err := m.joinNamespaces(r, &in); err != nil {
		return b, limits, nil, err
	}
	if in.User, err = oci.ResolveUser(rootfs, r.Config.User, r.HostConfig.GroupAdd); err != nil {
		return b, limits, nil, err
	}
	if in.Mounts, err = m.resolveMounts(ctx, r, undo); err != nil {
		return b, limits, nil, err
	}
	if err := m.writeEtc(r, run, cfg, &in); err != nil {
		return b, limits, nil, err
	}
	if in.ProcessLabel, in.MountLabel, err = m.labelsOf(r); err != nil {
		return b, limits, nil, err
	}
	if err := errors.Join(labelMounts(in.Mounts, in.MountLabel), labelFiles(in.MountLabel, in.HostnameFile, in.HostsFile, in.ResolvConf)); err != nil {
		return b, limits, nil, err
	}
	in.DefaultUlimits = defaultUlimits(cfg)
	if r.HostConfig.Init != nil && *r.HostConfig.Init {
		in.InitEnabled = true
		if in.InitBinary, err = findInit(cfg.InitPath); err != nil {
			return b, limits, nil, err
		}
	}
	if in.Host, err = withSeccomp(r.HostConfig, cfg.SeccompProfile); err != nil {
		return b, limits, nil, err
	}
	spec, err := oci.Spec(in)
	if err != nil {
		return b, limits, nil, err
	}
	if limits, err = oci.LimitsOf(r.HostConfig, m.o.Machine); err != nil {
		return b, limits, nil, err
	}
	allow, err := oci.InjectCDI(spec, r.HostConfig.DeviceRequests, cfg.CDIDirs())
	if err != nil {
		return b, limits, nil, err
	}
	limits.Allow(allow...)
	b = m.bundleOf(r)
	b.spec = spec
	b.endedMark = run.endedMark()
	b.held = b.holds()
	undo.add(func() { _ = os.RemoveAll(b.dir) })
	for _, stale := range []string{exitsFile, stoppingFile, heldFile} {
		if err := os.Remove(b.path(stale)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return b, limits, nil, err
		}
	}
	if err := b.write(); err != nil {
		return b, limits, nil, fmt.Errorf("cannot write the bundle: %w", err)
	}
	if err := m.writeHealth(b, r, spec); err != nil {
		return b, limits, nil, fmt.Errorf("cannot write the health check: %w", err)
	}
	return b, limits, run, nil
}

// inits are the names under which distributions ship a static init, in place of Docker's own name for it.
var inits = []string{"tini-static", "catatonit"}

// findInit finds the init of `docker run --init`: what init-path names, or, if that is the default and is not
// there, what distributions have.
func findInit(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil && name == config.Default().InitPath {
		for _, other := range inits {
			if path, err := exec.LookPath(other); err == nil {
				return path, nil
			}
		}
	}
	if err != nil {
		return "", refused(errdefs.ErrFailedPrecondition, "cannot find the init for --init, %s: install tini or catatonit, or name another static one with init-path", name)
	}
	return path, nil
}

// defaultUlimits are the daemon's in the form of a request's.
func defaultUlimits(cfg *config.Config) map[string]*container.Ulimit {
	limits := map[string]*container.Ulimit{}
	for name, l := range cfg.DefaultUlimits {
		limits[name] = &container.Ulimit{Name: name, Soft: l.Soft, Hard: l.Hard}
	}
	return limits
}

// withSeccomp is h with the daemon's seccomp profile, where h names none.
func withSeccomp(h *container.HostConfig, profile string) (*container.HostConfig, error) {
	if profile == "" || profile == "builtin" || h.Privileged {
		return h, nil
	}
	for _, o := range h.SecurityOpt {
		if strings.HasPrefix(o, "seccomp") {
			return h, nil
		}
	}
	if profile != "unconfined" {
		data, err := os.ReadFile(profile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the seccomp profile of seccomp-profile: %w", err)
		}
		profile = string(data)
	}
	with := *h
	with.SecurityOpt = append(append([]string(nil), h.SecurityOpt...), "seccomp="+profile)
	return &with, nil
}
