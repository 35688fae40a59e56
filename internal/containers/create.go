package containers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"lrd/internal/config"
	"lrd/internal/health"
	"lrd/internal/images"
	"lrd/internal/oci"
)

// Create makes a container and does not start it. Errors: ErrNotFound without
// the image, ErrConflict when the name is taken, ErrInvalidArgument for what
// could never run here.
func (m *Manager) Create(ctx context.Context, req CreateRequest) (_ container.CreateResponse, err error) {
	var undo cleanup
	defer undo.unless(&err)

	cfg := m.o.Config()
	img, err := m.o.Images.Resolve(ctx, req.Config.Image)
	if err != nil {
		return container.CreateResponse{}, err
	}
	if p := req.Platform; p != nil && (p.OS != "" && p.OS != img.Config.OS || p.Architecture != "" && p.Architecture != img.Config.Architecture) {
		return container.CreateResponse{}, refused(errdefs.ErrNotFound,
			"image %s is for %s/%s, not for the platform that was asked for, %s/%s", req.Config.Image, img.Config.OS, img.Config.Architecture, p.OS, p.Architecture)
	}
	id := newID()
	r, err := m.newRecord(id, req, img, cfg)
	if err != nil {
		return container.CreateResponse{}, err
	}
	release, err := m.reserve(&r)
	if err != nil {
		return container.CreateResponse{}, err
	}
	undo.add(release)

	if err := m.o.Images.CreateRootfs(ctx, id, r.ImageID, oci.LabelOptions(r.HostConfig)...); err != nil {
		return container.CreateResponse{}, fmt.Errorf("cannot make the root filesystem: %w", err)
	}
	undo.add(func() { _ = m.o.Images.RemoveRootfs(context.WithoutCancel(ctx), id) })
	removeVolumes, err := m.makeMounts(ctx, &r)
	undo.add(removeVolumes)
	defer func() { // before they are removed, if it comes to that
		if err := m.returnVolumes(&r); err != nil {
			m.logger(id, "create").Warn("Cannot unmount the volumes of a new container", "error", err)
		}
	}()
	if err != nil {
		return container.CreateResponse{}, err
	}
	c := m.newContainer(r)
	undo.add(func() { _ = removeAll(m.dataDir(id)) })
	if err := c.update(func(*Record, *Status) {}); err != nil {
		return container.CreateResponse{}, err
	}
	m.mu.Lock()
	m.byID[id] = c
	m.mu.Unlock()
	m.publish(c, events.ActionCreate, r.Created, nil)
	return container.CreateResponse{ID: id, Warnings: []string{}}, nil
}

// newRecord is the Record of a request: checked, with the image's configuration
// and the daemon's defaults merged in. It changes nothing.
func (m *Manager) newRecord(id string, req CreateRequest, img images.Image, cfg *config.Config) (Record, error) {
	c, h := *req.Config, *req.HostConfig
	mergeImage(&c, h.NetworkMode, img)
	if len(c.Entrypoint) == 0 && len(c.Cmd) == 0 {
		return Record{}, refused(errdefs.ErrInvalidArgument, "no command specified")
	}
	if err := mergeDefaults(&c, &h, cfg, id); err != nil {
		return Record{}, err
	}
	if err := oci.Validate(&c, &h, m.o.Machine); err != nil {
		return Record{}, err
	}
	if err := health.Validate(c.Healthcheck); err != nil {
		return Record{}, err
	}
	memberships, err := m.checkNetworks(&c, &h, req.NetworkingConfig)
	if err != nil {
		return Record{}, err
	}
	rt, err := resolveRuntime(h.Runtime, cfg)
	if err != nil {
		return Record{}, err
	}
	r := Record{
		ID: id, Name: strings.TrimPrefix(req.Name, "/"), Created: time.Now().UTC(),
		Config: &c, HostConfig: &h, ImageID: img.ID.String(), Runtime: rt, Memberships: memberships,
		Home:   Home{StorageDriver: m.o.Images.Driver()},
		Status: SavedStatus{State: container.StateCreated},
	}
	return r, m.checkLog(&r)
}

// mergeImage fills in from the image what the request leaves open, as Docker does.
func mergeImage(c *container.Config, mode container.NetworkMode, img images.Image) {
	ic := img.Config.Config
	c.Env = oci.MergeEnv(ic.Env, c.Env)
	if len(c.Entrypoint) == 0 {
		// An image's command belongs to its entrypoint; an entrypoint of the request's own starts without it.
		if len(c.Cmd) == 0 {
			c.Cmd = ic.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = ic.Entrypoint
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil // `docker run --entrypoint ""` takes the image's away
	}
	if c.User == "" {
		c.User = ic.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = ic.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = ic.StopSignal
	}
	c.Healthcheck = health.Merge(c.Healthcheck, ic.Healthcheck)
	if c.Shell == nil {
		c.Shell = ic.Shell
	}
	c.Labels = overlay(ic.Labels, c.Labels)
	c.Volumes = overlay(ic.Volumes, c.Volumes)
	if mode.IsContainer() {
		return // the network is another container's, and so are its ports
	}
	ports := network.PortSet{}
	for raw := range ic.ExposedPorts {
		if p, err := network.ParsePort(raw); err == nil {
			ports[p] = struct{}{}
		}
	}
	c.ExposedPorts = overlay(ports, c.ExposedPorts)
}

func overlay[M ~map[K]V, N ~map[K]V, K comparable, V any](base M, over N) N {
	merged := N{}
	maps.Copy(merged, base)
	maps.Copy(merged, over)
	return merged
}

// mergeDefaults fills in from the daemon's configuration what neither the
// request nor the image says. What is filled in stays with the container.
func mergeDefaults(c *container.Config, h *container.HostConfig, cfg *config.Config, id string) error {
	if c.Hostname == "" && !h.NetworkMode.IsHost() && !h.NetworkMode.IsContainer() && !h.UTSMode.IsHost() {
		c.Hostname = id[:12]
	}
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = network.NetworkBridge
	}
	if h.ShmSize == 0 {
		h.ShmSize = cfg.DefaultShmSize
	}
	if h.IpcMode.IsEmpty() {
		h.IpcMode = container.IpcMode(cfg.DefaultIPCMode)
	}
	if h.CgroupnsMode.IsEmpty() {
		h.CgroupnsMode = container.CgroupnsMode(cfg.DefaultCgroupnsMode)
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return refused(errdefs.ErrInvalidArgument, "can't create 'AutoRemove' container with restart policy")
	}
	if h.Init == nil && cfg.Init {
		yes := true
		h.Init = &yes
	}
	if h.Runtime == "" {
		h.Runtime = cfg.DefaultRuntime
	}
	h.LogConfig = mergeLog(h.LogConfig, cfg)
	if cfg.NoNewPrivileges && !slices.ContainsFunc(h.SecurityOpt, func(o string) bool { return strings.HasPrefix(o, "no-new-privileges") }) {
		h.SecurityOpt = append(slices.Clone(h.SecurityOpt), "no-new-privileges")
	}
	return nil
}

// resolveRuntime finds the runtime that a name stands for.
func resolveRuntime(name string, cfg *config.Config) (Runtime, error) {
	rt, ok := cfg.Runtimes[name]
	if !ok {
		return Runtime{}, refused(errdefs.ErrInvalidArgument, "unknown or invalid runtime name: %s; configured are %s",
			name, strings.Join(slices.Sorted(maps.Keys(cfg.Runtimes)), ", "))
	}
	path, err := exec.LookPath(rt.Path)
	if err != nil {
		return Runtime{}, refused(errdefs.ErrFailedPrecondition, "cannot find the runtime %s: %s; install it or set runtimes.%s.path", name, err, name)
	}
	return Runtime{Name: name, Path: path, Args: rt.Args}, nil
}

// nameForm is what Docker allows for a container's name.
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// reserve takes the Record's name for it, choosing one if it has none. release
// gives it back.
func (m *Manager) reserve(r *Record) (release func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := func(name string) bool { _, ok := m.names[name]; return ok }
	if r.Name == "" {
		r.Name = newName(taken)
	}
	if err := m.checkNameLocked(r.Name); err != nil {
		return nil, err
	}
	name, id := r.Name, r.ID
	m.names[name] = id
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.names[name] == id {
			delete(m.names, name)
		}
	}, nil
}

func (m *Manager) checkNameLocked(name string) error {
	if !nameForm.MatchString(name) {
		return refused(errdefs.ErrInvalidArgument, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	if id, ok := m.names[name]; ok {
		return refused(errdefs.ErrConflict,
			"Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, id)
	}
	return nil
}

// newID is a fresh container ID: 64 hexadecimal digits. The first twelve are
// the hostname by default, and a hostname of digits alone confuses programs.
func newID() string {
	for {
		b := make([]byte, 32)
		_, _ = rand.Read(b) // never fails (crypto/rand)
		id := hex.EncodeToString(b)
		if _, err := strconv.ParseInt(id[:12], 10, 64); err != nil {
			return id
		}
	}
}

// Rename gives a container another name. Errors: ErrConflict when it is taken,
// ErrInvalidArgument when it is none.
func (m *Manager) Rename(ctx context.Context, ref, name string) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	// Against another renaming, and removal: both give the name that they saw back.
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	name = strings.TrimPrefix(name, "/")
	r, _ := c.snapshot()
	old := r.Name
	if name == "" {
		return refused(errdefs.ErrInvalidArgument, "Neither old nor new names may be empty")
	}
	if name == old {
		return refused(errdefs.ErrInvalidArgument, "Renaming a container with the same name as its current name")
	}
	m.mu.Lock()
	err = m.checkNameLocked(name)
	if err == nil {
		m.names[name] = c.id
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	remove := name
	if err = c.update(func(r *Record, _ *Status) { r.Name = name }); err == nil {
		c.renamedLog(name)
		remove = old
		m.renameInNetworks(ctx, c, old, name)
	}
	m.mu.Lock()
	delete(m.names, remove)
	m.mu.Unlock()
	if err == nil {
		m.publish(c, events.ActionRename, time.Time{}, map[string]string{"oldName": "/" + old})
	}
	return err
}
