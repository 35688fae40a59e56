package containers

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"

	"lrd/internal/config"
	"lrd/internal/images"
	"lrd/internal/networks"
	"lrd/internal/volumes"
)

// faults makes steps fail: each fake asks it, by name, before it does anything.
type faults struct {
	mu    sync.Mutex
	armed map[string]error
	trace []string // the steps that were taken, in order
}

// arm makes a step fail from now on; nil lets it work again.
func (f *faults) arm(step string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.armed == nil {
		f.armed = map[string]error{}
	}
	f.armed[step] = err
}

func (f *faults) hit(step string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trace = append(f.trace, step)
	return f.armed[step]
}

// fakeImages has one image, and root filesystems that are empty directories.
type fakeImages struct {
	*faults
	dir string

	labels       [2]string // of processes and of files
	labelOptions []string  // of the root filesystem that was made last

	mu   sync.Mutex
	made map[string]bool // root filesystems, and whether they are mounted
	// committed and layer are what Commit was given last.
	committed images.CommitOptions
	layer     string
}

func (i *fakeImages) Driver() string { return "overlay" }

func (i *fakeImages) Resolve(_ context.Context, ref string) (images.Image, error) {
	if ref != "app" {
		return images.Image{}, refused(errdefs.ErrNotFound, "No such image: %s", ref)
	}
	img := images.Image{ID: digest.Digest(imageA)}
	img.Config.OS, img.Config.Architecture = "linux", "amd64"
	img.Config.Config.Cmd = []string{"/bin/app"}
	return img, i.hit("Images.Resolve")
}

func (i *fakeImages) RootfsLabels(string) (process, files string, err error) {
	return i.labels[0], i.labels[1], i.hit("Images.RootfsLabels")
}

func (i *fakeImages) CreateRootfs(_ context.Context, id, _ string, labelOptions ...string) error {
	i.labelOptions = labelOptions
	if err := i.hit("Images.CreateRootfs"); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.made[id] = false
	return os.MkdirAll(filepath.Join(i.dir, id), 0o755)
}

func (i *fakeImages) MountRootfs(_ context.Context, id string) (string, error) {
	if err := i.hit("Images.MountRootfs"); err != nil {
		return "", err
	}
	return filepath.Join(i.dir, id), i.setMounted(id, true)
}

func (i *fakeImages) UnmountRootfs(_ context.Context, id string) error {
	if err := i.hit("Images.UnmountRootfs"); err != nil {
		return err
	}
	return i.setMounted(id, false)
}

func (i *fakeImages) setMounted(id string, mounted bool) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.made[id]; !ok {
		return refused(errdefs.ErrNotFound, "no root filesystem of %s", id)
	}
	i.made[id] = mounted
	return nil
}

func (i *fakeImages) RemoveRootfs(_ context.Context, id string) error {
	if err := i.hit("Images.RemoveRootfs"); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.made, id)
	return os.RemoveAll(filepath.Join(i.dir, id))
}

func (i *fakeImages) RootfsSize(context.Context, string) (rw, virtual int64, err error) {
	return 0, 0, nil
}

func (i *fakeImages) RootfsData(context.Context, string) (map[string]string, error) {
	return nil, nil
}

func (i *fakeImages) RootfsChanges(context.Context, string) ([]container.FilesystemChange, error) {
	return nil, i.hit("Images.RootfsChanges")
}

func (i *fakeImages) RootfsDiff(context.Context, string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("layer")), i.hit("Images.RootfsDiff")
}

func (i *fakeImages) Commit(_ context.Context, o images.CommitOptions, layer io.Reader, spooled func()) (digest.Digest, error) {
	data, err := io.ReadAll(layer)
	if err == nil {
		err = i.hit("Images.Commit")
	}
	spooled()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.committed, i.layer = o, string(data)
	return digest.FromString("committed"), err
}

// mounted are the root filesystems that are mounted, all those that there are.
func (i *fakeImages) rootfs() (mounted, all []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for id, is := range i.made {
		all = append(all, id)
		if is {
			mounted = append(mounted, id)
		}
	}
	return mounted, all
}

// fakeNetworks hands out addresses and knows who has one.
type fakeNetworks struct {
	*faults
	mu       sync.Mutex
	attached map[string]networks.Sandbox
}

// Network knows bridge, and every network that begins with "net".
func (n *fakeNetworks) Network(ref string) (networks.Network, error) {
	if ref == "bridge" || ref == networks.BuiltinID("bridge") {
		return networks.Network{ID: networks.BuiltinID("bridge"), Name: "bridge"}, nil
	}
	if !strings.HasPrefix(ref, "net") {
		return networks.Network{}, refused(errdefs.ErrNotFound, "network %s not found", ref)
	}
	return networks.Network{ID: "id-" + ref, Name: ref}, nil
}

func (n *fakeNetworks) Attach(_ context.Context, r networks.Request) (networks.Sandbox, error) {
	if err := n.hit("Networks.Attach"); err != nil {
		return networks.Sandbox{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s := networks.Sandbox{ContainerID: r.ContainerID, NetNS: "/run/netns/" + r.ContainerID}
	for _, j := range r.Joins {
		s.Endpoints = append(s.Endpoints, n.endpoint(j))
	}
	n.attached[r.ContainerID] = s
	return s, nil
}

func (n *fakeNetworks) endpoint(j networks.Join) networks.Endpoint {
	found, _ := n.Network(j.Network)
	return networks.Endpoint{
		NetworkID: found.ID, Network: found.Name, IP: netip.MustParseAddr("172.30.0.2"), PrefixLen: 16,
		Gateway: netip.MustParseAddr("172.30.0.1"), Bridge: "lrd0", Names: j.Names,
	}
}

func (n *fakeNetworks) Detach(_ context.Context, id string) error {
	if err := n.hit("Networks.Detach"); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.attached, id)
	return nil
}

func (n *fakeNetworks) Connect(_ context.Context, id string, j networks.Join) (networks.Sandbox, error) {
	if err := n.hit("Networks.Connect"); err != nil {
		return networks.Sandbox{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.attached[id]
	s.Endpoints = append(slices.Clone(s.Endpoints), n.endpoint(j))
	n.attached[id] = s
	return s, nil
}

func (n *fakeNetworks) Disconnect(_ context.Context, id, network string, _ bool) (networks.Sandbox, error) {
	if err := n.hit("Networks.Disconnect"); err != nil {
		return networks.Sandbox{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.attached[id]
	s.Endpoints = slices.DeleteFunc(slices.Clone(s.Endpoints), func(e networks.Endpoint) bool { return e.NetworkID == network })
	n.attached[id] = s
	return s, nil
}

func (n *fakeNetworks) Evict(_ context.Context, ref, network string) error {
	return refused(errdefs.ErrNotFound, "endpoint %s not found in %s", ref, network)
}

func (n *fakeNetworks) Rename(_ context.Context, id, _, name string) (networks.Sandbox, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, ok := n.attached[id]
	if !ok {
		return s, false
	}
	s.Endpoints = slices.Clone(s.Endpoints)
	for i := range s.Endpoints {
		s.Endpoints[i].Names = append([]string{name}, s.Endpoints[i].Names[min(1, len(s.Endpoints[i].Names)):]...)
	}
	n.attached[id] = s
	return s, true
}

func (n *fakeNetworks) Restore(_ context.Context, sandboxes []networks.Sandbox) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attached = map[string]networks.Sandbox{}
	for _, s := range sandboxes {
		n.attached[s.ContainerID] = s
	}
	return n.hit("Networks.Restore")
}

func (n *fakeNetworks) names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.attached))
}

// faultyVolumes are the real volumes, with faults.
type faultyVolumes struct {
	*volumes.Store
	*faults
}

func (v faultyVolumes) Mount(ctx context.Context, name, holder string) (string, error) {
	if err := v.hit("Volumes.Mount"); err != nil {
		return "", err
	}
	return v.Store.Mount(ctx, name, holder)
}

// heard are the events that were published.
type heard struct {
	mu  sync.Mutex
	all []events.Message
	on  func(events.Message) // called first; may be nil
}

func (h *heard) Publish(m events.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on != nil {
		h.on(m)
	}
	h.all = append(h.all, m)
}

// PublishOnce is as strict as the real one is with what an earlier daemon has told.
func (h *heard) PublishOnce(m events.Message) {
	h.mu.Lock()
	told := slices.ContainsFunc(h.all, func(other events.Message) bool {
		return m.Action == other.Action && m.TimeNano == other.TimeNano && m.Actor.ID == other.Actor.ID && m.Actor.Attributes["execID"] == other.Actor.Attributes["execID"]
	})
	h.mu.Unlock()
	if !told {
		h.Publish(m)
	}
}

// actions are what has happened to a container.
func (h *heard) actions(id string) []events.Action {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []events.Action
	for _, m := range h.all {
		if m.Actor.ID == id {
			all = append(all, m.Action)
		}
	}
	return all
}

// of are the events of a type.
func (h *heard) of(kind events.Type) []events.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.all), func(m events.Message) bool { return m.Type != kind })
}

// world is everything below a Manager. It outlives Managers, as a machine outlives daemons.
type world struct {
	t    *testing.T
	root string
	*faults
	units    *fakeUnits
	store    *fakeStore
	images   *fakeImages
	networks *fakeNetworks
	volumes  faultyVolumes
	events   *heard
	config   *config.Config

	bootID         string
	systemStopping bool
	known          func() // what Restore is given
	m              *Manager
	stopRun        func() // which may be called again
	leave          func()
}

// newWorld makes a world with a Manager at work in it.
func newWorld(t *testing.T, systemd int) *world {
	t.Helper()
	root := t.TempDir()
	f := &faults{}
	w := &world{
		t: t, root: root, faults: f, bootID: "boot-1",
		units:    newFakeUnits(t, f, filepath.Join(root, "run", "containers"), systemd),
		store:    &fakeStore{faults: f, files: map[string][]*os.File{}},
		images:   &fakeImages{faults: f, dir: filepath.Join(root, "rootfs"), made: map[string]bool{}},
		networks: &fakeNetworks{faults: f, attached: map[string]networks.Sandbox{}},
		events:   &heard{},
	}
	vols, err := volumes.Open(filepath.Join(root, "volumes"), slog.New(slog.DiscardHandler))
	assert.NilError(t, err)
	w.volumes = faultyVolumes{vols, f}
	cfg := *config.Default()
	cfg.DefaultRuntime = "fake"
	cfg.Runtimes = map[string]config.Runtime{"fake": {Path: "/bin/true"}}
	cfg.DefaultStopTimeout = 0
	w.config = &cfg
	for _, dir := range []string{"data/containers", "run/containers"} {
		assert.NilError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	t.Cleanup(func() {
		_ = w.store.Remove(context.Background(), w.store.names()...)
	})
	w.boot()
	t.Cleanup(func() { w.leave() })
	return w
}

// boot makes a Manager with what the one before has left.
func (w *world) boot() {
	w.t.Helper()
	w.newManager()
	assert.NilError(w.t, w.m.Restore(w.t.Context(), w.store.handBack(w.t), w.known))
	w.run()
}

func (w *world) newManager() {
	w.m = New(Options{
		DataRoot: filepath.Join(w.root, "data"), ExecRoot: filepath.Join(w.root, "run"), BootID: w.bootID,
		DropIns: [2]string{filepath.Join(w.root, "system"), filepath.Join(w.root, "system.control")},
		Units:   w.units, Descriptors: w.store, Images: w.images, Networks: w.networks, Volumes: w.volumes, Events: w.events,
		SystemStopping: func() bool { return w.systemStopping },
		Config:         func() *config.Config { return w.config },
		Log:            slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	w.leave = sync.OnceFunc(func() { assert.Check(w.t, w.m.Close()) })
}

// run follows the units until the Manager leaves.
func (w *world) run() {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.m.Run(ctx, w.units.changes)
	}()
	m := w.m
	w.stopRun = func() { stop(); <-done }
	w.leave = sync.OnceFunc(func() {
		w.stopRun()
		assert.Check(w.t, m.Close())
	})
}

// restart is a restart of the daemon; meanwhile is what happens while it is away.
func (w *world) restart(meanwhile func()) {
	w.t.Helper()
	w.leave()
	if meanwhile != nil {
		meanwhile()
	}
	for len(w.units.changes) > 0 {
		<-w.units.changes // nobody was there to hear it
	}
	w.boot()
}

// reboot is a power cut: what is in memory is gone.
func (w *world) reboot() {
	w.t.Helper()
	w.leave()
	w.units.mu.Lock()
	for _, one := range w.units.loaded {
		one.hangUp()
	}
	clear(w.units.loaded)
	w.units.mu.Unlock()
	assert.NilError(w.t, w.store.Remove(context.Background(), w.store.names()...))
	assert.NilError(w.t, os.RemoveAll(filepath.Join(w.root, "run", "containers")))
	assert.NilError(w.t, os.MkdirAll(filepath.Join(w.root, "run", "containers"), 0o755))
	w.bootID += "+"
	w.restart(nil)
}
