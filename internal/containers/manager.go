package containers

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"

	"lrd/internal/config"
	"lrd/internal/fdstore"
	"lrd/internal/health"
	"lrd/internal/images"
	"lrd/internal/logdrivers"
	"lrd/internal/networks"
	"lrd/internal/oci"
	"lrd/internal/units"
)

// Units is what a Manager needs of systemd; *units.Manager is one.
type Units interface {
	Version() int
	Start(ctx context.Context, name string, props []units.Property) error
	Stop(ctx context.Context, name string) error
	ResetFailed(ctx context.Context, name string) error
	Kill(ctx context.Context, name string, who units.Who, sig syscall.Signal) error
	Freeze(ctx context.Context, name string) error
	Thaw(ctx context.Context, name string) error
	State(ctx context.Context, name string) (units.State, error)
	Known(name string) (units.State, bool)
	List(ctx context.Context, pattern string) (map[string]units.State, error)
	ReloadUnits(ctx context.Context) error
	SetProperties(ctx context.Context, name string, props []units.Property) error
	ServiceProperties(ctx context.Context, name string, properties ...string) (map[string]any, error)
}

// Descriptors is where descriptors outlive the daemon; *fdstore.Store is one.
type Descriptors interface {
	PutAll(ctx context.Context, items []fdstore.Item) error
	Replace(ctx context.Context, name string, file *os.File) error
	Remove(ctx context.Context, names ...string) error
}

// Images gives containers their images and root filesystems; *images.Store is one.
type Images interface {
	Driver() string
	Resolve(ctx context.Context, ref string) (images.Image, error)
	CreateRootfs(ctx context.Context, containerID, imageID string, labelOptions ...string) error
	RootfsLabels(containerID string) (process, files string, err error)
	MountRootfs(ctx context.Context, containerID string) (string, error)
	UnmountRootfs(ctx context.Context, containerID string) error
	RemoveRootfs(ctx context.Context, containerID string) error
	RootfsSize(ctx context.Context, containerID string) (rw, virtual int64, err error)
	RootfsData(ctx context.Context, containerID string) (map[string]string, error)
	RootfsChanges(ctx context.Context, containerID string) ([]container.FilesystemChange, error)
	RootfsDiff(ctx context.Context, containerID string) (io.ReadCloser, error)
	Commit(ctx context.Context, o images.CommitOptions, layer io.Reader, spooled func()) (digest.Digest, error)
}

// Networks gives containers their places in networks; *networks.Manager is one.
type Networks interface {
	Network(ref string) (networks.Network, error)
	Attach(ctx context.Context, r networks.Request) (networks.Sandbox, error)
	Detach(ctx context.Context, containerID string) error
	Connect(ctx context.Context, containerID string, j networks.Join) (networks.Sandbox, error)
	Disconnect(ctx context.Context, containerID, network string, force bool) (networks.Sandbox, error)
	Evict(ctx context.Context, ref, network string) error
	Rename(ctx context.Context, containerID, old, name string) (networks.Sandbox, bool)
	Restore(ctx context.Context, sandboxes []networks.Sandbox) error
}

// Events is told what happens; *events.Hub is one.
type Events interface {
	Publish(m events.Message)
	// PublishOnce is for what an earlier daemon may have published and not taken note of.
	PublishOnce(m events.Message)
}

// Options are what a Manager works with and on.
type Options struct {
	DataRoot string // absolute; below it containers/<id>
	ExecRoot string // absolute, gone after a reboot; below it containers/<id>
	BootID   string // /proc/sys/kernel/random/boot_id
	// DropIns are the directories in which the units have their drop-ins until the next boot: one of lrd's own, and the one for systemctl set-property --runtime.
	DropIns [2]string

	Units       Units
	Descriptors Descriptors
	Images      Images
	Networks    Networks
	Volumes     Volumes
	Events      Events
	Machine     oci.Machine
	// LogDrivers carries output on. Nil: New makes one.
	LogDrivers *logdrivers.Drivers

	// SystemStopping says whether the whole system is going down: containers then end without anybody having wished it.
	SystemStopping func() bool
	// Config returns the configuration in force. An operation asks once and keeps the answer.
	Config func() *config.Config
	Log    *slog.Logger
}

// Manager is all containers of this host. See the package comment for who may
// call what when.
type Manager struct {
	o       Options
	records records

	// mu guards the index below. It is held for look-ups only and taken before
	// any container's lock, never while one is held.
	mu    sync.RWMutex
	byID  map[string]*Container
	names map[string]string // name → ID; also of containers that are being made
	execs map[string]*Exec

	holds holds
	ooms  *oomWatch

	// drained has a lock of its own.
	drained drained

	// workers are the goroutines that follow the units, one at most for each container. They end when their queue is empty.
	workers sync.WaitGroup
	// ctx ends with Close; cause context.Canceled.
	ctx    context.Context
	cancel context.CancelFunc
}

// New returns a Manager without any container. Call Restore next, then Run.
func New(o Options) *Manager {
	if o.LogDrivers == nil {
		o.LogDrivers = logdrivers.New()
	}
	ctx, cancel := context.WithCancel(context.Background())
	ooms, err := newOOMWatch()
	if err != nil {
		o.Log.Warn("Processes that are killed as memory ran out are told of at their container's end only", "error", err)
	}
	return &Manager{
		o:       o,
		records: records{filepath.Join(o.DataRoot, "containers"), filepath.Join(o.ExecRoot, "containers")},
		byID:    map[string]*Container{},
		names:   map[string]string{},
		execs:   map[string]*Exec{},
		ooms:    ooms,
		ctx:     ctx,
		cancel:  cancel,
	}
}

// Run follows what systemd says of the containers' units until changes is
// closed or ctx is done. changes must have been subscribed to before Restore
// was called, so that nothing falls between.
func (m *Manager) Run(ctx context.Context, changes <-chan units.Change) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { m.followOOM(ctx) })
	defer watching.Wait()
	defer cancel()
	forget := time.NewTicker(time.Minute)
	defer forget.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-forget.C:
			m.workers.Go(func() { m.forgetExecs(now) })
		case change, ok := <-changes:
			if !ok {
				return
			}
			if change.Resync {
				continue
			}
			if id, ok := unitID(change.State.Name); ok {
				if c := m.get(id); c != nil {
					c.enqueue(change)
				}
			} else if id, ok := health.UnitOf(change.State.Name); ok {
				if c := m.get(id); c != nil {
					c.enqueue(change)
				}
			} else if id, ok := execOf(change.State.Name); ok {
				if e, err := m.findExec(id); err == nil {
					m.execChanged(e)
				}
			}
		}
	}
}

// Close leaves all containers as they are: drains stop between two writes, and
// what they have not taken yet stays in pipes that systemd's store holds.
func (m *Manager) Close() error {
	m.cancel()
	m.workers.Wait()
	m.stopForwarding()
	first := m.ooms.close()
	for _, c := range m.all() {
		if err := c.streams.leave(); err != nil && first == nil {
			first = fmt.Errorf("cannot close the output of container %s: %w", c.id, err)
		}
	}
	for _, e := range m.execsIn(nil) {
		if err := e.streams.leave(); err != nil && first == nil {
			first = fmt.Errorf("cannot close the output of exec %s: %w", e.id, err)
		}
	}
	return first
}

// Counts tells how many containers there are, by state.
func (m *Manager) Counts() Counts {
	var n Counts
	for _, c := range m.all() {
		n.Total++
		switch s := c.Status(); {
		case s.State == "paused":
			n.Paused++
		case s.Running():
			n.Running++
		default:
			n.Stopped++
		}
	}
	return n
}

// UsesImage tells which container was made from an image, a running one if
// there is one, for the refusal to delete it.
func (m *Manager) UsesImage(imageID string) (name string, running, ok bool) {
	for _, c := range m.all() {
		r, s := c.snapshot()
		if r.ImageID != imageID {
			continue
		}
		name, ok = r.Name, true
		if s.Running() {
			return name, true, true
		}
	}
	return name, false, ok
}

func (m *Manager) get(id string) *Container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.byID[id]
}

// all returns the containers, newest first.
func (m *Manager) all() []*Container {
	m.mu.RLock()
	all := make([]*Container, 0, len(m.byID))
	for _, c := range m.byID {
		all = append(all, c)
	}
	m.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Container) int {
		if d := b.created.Compare(a.created); d != 0 {
			return d
		}
		return strings.Compare(a.id, b.id)
	})
	return all
}

// find looks a container up by ID, by name, or by the beginning of exactly one
// ID, in this order, as Docker does.
func (m *Manager) find(ref string) (*Container, error) {
	name := strings.TrimPrefix(ref, "/")
	m.mu.RLock()
	defer m.mu.RUnlock()
	if c, ok := m.byID[ref]; ok {
		return c, nil
	}
	if id, ok := m.names[name]; ok {
		if c, ok := m.byID[id]; ok {
			return c, nil
		}
	}
	var match *Container
	for id, c := range m.byID {
		if ref != "" && strings.HasPrefix(id, ref) {
			if match != nil {
				return nil, refused(errdefs.ErrInvalidArgument, "multiple IDs found with provided prefix: %s", ref)
			}
			match = c
		}
	}
	if match == nil {
		return nil, refused(errdefs.ErrNotFound, "No such container: %s", ref)
	}
	return match, nil
}

// publish tells an event of a container, with Docker's attributes: those given,
// name, image and the labels.
func (m *Manager) publish(c *Container, action events.Action, at time.Time, attrs map[string]string) {
	m.o.Events.Publish(message(c, action, at, attrs))
}

// publishOnce is publish for what is taken note of on disk afterwards: a daemon that is killed in between leaves it to the
// next one, which tells it again. at is its true time, and is the same then.
func (m *Manager) publishOnce(c *Container, action events.Action, at time.Time, attrs map[string]string) {
	m.o.Events.PublishOnce(message(c, action, at, attrs))
}

// message is an event of a container.
func message(c *Container, action events.Action, at time.Time, attrs map[string]string) events.Message {
	r, _ := c.snapshot()
	all := map[string]string{"name": r.Name}
	if r.Config != nil {
		for k, v := range r.Config.Labels {
			all[k] = v
		}
		all["image"] = r.Config.Image
	}
	for k, v := range attrs {
		all[k] = v
	}
	if at.IsZero() {
		at = time.Now()
	}
	return events.Message{
		Type:   events.ContainerEventType,
		Action: action,
		Actor:  events.Actor{ID: c.id, Attributes: all},
		Scope:  "local",
		Time:   at.Unix(), TimeNano: at.UnixNano(),
	}
}

// logger is the log of one container, with the fields that administrators search for.
func (m *Manager) logger(id, operation string) *slog.Logger {
	return m.o.Log.With("container", id, "unit", unitName(id), "operation", operation)
}

// refusal is an error whose whole text is the sentence for the person and whose kind is for the program.
type refusal struct {
	kind     error
	sentence string
}

func (r *refusal) Error() string { return r.sentence }
func (r *refusal) Unwrap() error { return r.kind }

// refused makes an error of a kind of errdefs with a sentence of its own.
func refused(kind error, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}
