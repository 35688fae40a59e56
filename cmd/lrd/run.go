package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"lrd/internal/api"
	"lrd/internal/config"
	"lrd/internal/containers"
	"lrd/internal/events"
	"lrd/internal/fdstore"
	"lrd/internal/images"
	"lrd/internal/logdrivers"
	"lrd/internal/metrics"
	"lrd/internal/networks"
	"lrd/internal/oci"
	"lrd/internal/reload"
	"lrd/internal/sessions"
	"lrd/internal/units"
	"lrd/internal/volumes"
)

// requestGrace is how long a stop waits for requests that are being answered.
// Streams are frozen or ended at once; what is left are changes, such as a start. A stop of
// a container with a long grace period is cut short: it is on record, and goes on.
const requestGrace = 5 * time.Second

// apiSocket is FileDescriptorName= of lrd.socket.
const apiSocket = "api"

// daemon is everybody who lives as long as the daemon does.
type daemon struct {
	log    *slog.Logger
	unit   string // our own
	set    *fdstore.Set
	units  *units.Manager
	store  *fdstore.Store
	events *events.Hub
	images *images.Store
	vols   *volumes.Store
	net    *networks.Manager
	ctrs   *containers.Manager
	reload *reload.Coordinator
	api    *api.Server

	sessions *sessions.Manager
	drivers  *logdrivers.Drivers
	metrics  *metrics.Metrics

	// extra are sockets that are there if an administrator wants them, by name.
	extra map[string][]net.Listener

	frozen frozen

	// handing says that this is a stop at which lrd-standby takes over; leave finds out.
	handing bool
	// closers end what was begun, last one first.
	closers []func() error
	work    sync.WaitGroup
}

// errStoppedEarly is of a start that somebody has stopped, which is no failure. The next start finds everything as it was.
var errStoppedEarly = errors.New("stopped before the start was through")

// serve runs the daemon until ctx ends. It is the one place that introduces
// everybody, in the order in which they can live: each needs those before it.
func serve(ctx context.Context, src config.Sources, cfg *config.Config, log *slog.Logger, level *slog.LevelVar) (err error) {
	d := &daemon{log: log, unit: ownUnit()}
	defer func() { err = errors.Join(err, d.close()) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	// First of all: descriptors of an earlier daemon must neither leak into a child nor be taken for something else.
	if d.set, err = fdstore.Receive(); err != nil {
		return fmt.Errorf("cannot receive descriptors from systemd: %w", err)
	}
	// A SIGHUP that comes before there is a configuration to reload waits; without this it would end the process.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	watch, err := d.open(ctx, cfg)
	if ctx.Err() != nil {
		return errors.Join(errStoppedEarly, err)
	}
	if err != nil {
		return err
	}
	// Not before: what is started by hand, or beside another lrd, has been refused, and leaves the path of the socket alone.
	listeners, err := d.listen(cfg)
	if err != nil {
		return err
	}
	// From here on a stop waits until the start is through: what lrd-standby gives back is passed to it again by leave.
	starting := context.WithoutCancel(ctx)
	// Before anybody opens a container's output: two processes must not drain it.
	d.takeBack(starting)
	d.coordinate(src, cfg, level)

	begin := time.Now()
	d.makeAPI()
	d.makeMetrics()
	// Clients of the daemon before take their places when the containers are known and nobody has looked yet at what
	// became of them: who waits for an exit, or reads the output of a container that removes itself at its end,
	// must be there before the exit is told.
	resume := func() { d.sessions.Restore(d.set, d.api.Resume) }
	if err := d.ctrs.Restore(starting, d.set, resume); err != nil {
		return fmt.Errorf("cannot restore the containers: %w", err)
	}
	d.dropUnknown(starting)
	n := d.ctrs.Counts()
	log.Info("Restored the containers", "containers", n.Total, "running", n.Running, "streams", d.sessions.Count(), "took", time.Since(begin).Round(time.Millisecond))
	d.metrics.Restored(n.Total, time.Since(begin))

	watching, stopWatching := context.WithCancel(context.Background())
	d.work.Go(func() { d.ctrs.Run(watching, watch.C) })
	d.closers = append(d.closers, func() error { stopWatching(); watch.Close(); d.work.Wait(); return nil })
	if !cfg.LiveRestore && n.Running+n.Paused > 0 {
		log.Info("Shutting down the containers that a crash of lrd has left, as live-restore is off", "timeout", cfg.ShutdownTimeout)
		if err := d.extended(func() error { return d.ctrs.ShutdownLeft(context.Background(), cfg.ShutdownTimeout) }); err != nil {
			log.Error("Cannot shut all containers down", "error", err)
		}
	}

	// The API answers only now: what it shows is what is. Clients have been waiting in the socket's backlog.
	d.serveAPI(listeners)
	d.serveMetrics()
	d.serveDebug()
	d.work.Go(func() { d.reloadOnSignal(ctx, hup) })
	d.work.Go(func() { d.watchdog(ctx) })

	if err := d.notify(systemd.SdNotifyReady, "STATUS="+d.status(ctx)); err != nil {
		// Nobody has asked for a stop, which all that was begun waits for.
		stop()
		leaving, cancel := context.WithTimeout(context.Background(), requestGrace)
		defer cancel()
		return errors.Join(err, d.api.Shutdown(leaving))
	}
	d.work.Go(func() { d.keepStatus(ctx) })
	d.work.Go(func() { d.keepThrifty(ctx) })
	// After READY=1: the containers' slice is ordered after this unit, so that a start before would wait for ourselves.
	d.work.Go(func() { d.ctrs.Autostart(ctx) })

	<-ctx.Done()
	return d.leave()
}

// open brings up everything below the API. The Watch that it returns began
// before the containers are restored, so that nothing falls between.
func (d *daemon) open(ctx context.Context, cfg *config.Config) (watch *units.Watch, err error) {
	if d.units, err = units.Connect(ctx, d.log); err != nil {
		return nil, fmt.Errorf("cannot reach systemd; lrd runs as a service of it (systemctl start lrd): %w", err)
	}
	d.closers = append(d.closers, d.units.Close)
	if d.store, err = fdstore.Open(d.countStored); err != nil {
		return nil, fmt.Errorf("cannot use systemd's descriptor store; lrd runs as a service of it (systemctl start lrd): %w", err)
	}
	d.closers = append(d.closers, d.store.Close)
	root, err := claim(cfg.DataRoot)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, root.Close)
	for _, dir := range []string{filepath.Join(cfg.DataRoot, "containers"), filepath.Join(cfg.ExecRoot, "containers"), filepath.Join(cfg.DataRoot, "tmp")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, err
		}
	}
	if d.events, err = events.Open(filepath.Join(cfg.DataRoot, "events"), events.Options{Log: d.log}); err != nil {
		return nil, err
	}
	d.closers = append(d.closers, d.events.Close)
	if d.images, err = images.Open(ctx, imageOptions(cfg, d.log)); err != nil {
		return nil, fmt.Errorf("cannot open the image store: %w", err)
	}
	d.closers = append(d.closers, d.images.Close)
	if d.vols, err = volumes.Open(filepath.Join(cfg.DataRoot, "volumes"), d.log); err != nil {
		return nil, fmt.Errorf("cannot open the volumes: %w", err)
	}
	if d.net, err = networks.Open(ctx, networkOptions(cfg, d.log)); err != nil {
		return nil, fmt.Errorf("cannot set up the networks: %w", err)
	}
	machine, err := oci.Probe()
	if err != nil {
		return nil, fmt.Errorf("cannot find out about this machine: %w", err)
	}
	if machine.AppArmorProfile, err = oci.LoadAppArmor("lrd-default", d.log); err != nil {
		return nil, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	d.drivers = logdrivers.New()
	d.ctrs = containers.New(containers.Options{
		DataRoot: cfg.DataRoot, ExecRoot: cfg.ExecRoot, BootID: strings.TrimSpace(string(boot)),
		DropIns: [2]string{"/run/systemd/system", "/run/systemd/system.control"},
		Units:   d.units, Descriptors: d.store, Images: d.images, Networks: d.net, Volumes: d.vols, Events: d.events,
		Machine: machine, LogDrivers: d.drivers, SystemStopping: d.systemStopping,
		Config: func() *config.Config { return d.reload.Current() },
		Log:    d.log,
	})
	d.closers = append(d.closers, d.closeContainers)
	watch = d.units.Watch(containers.UnitPrefix)
	return watch, nil
}

// claim takes the data-root for this process, for as long as what it returns is open: two daemons in one would each
// take the other's containers for its own.
func claim(dataRoot string) (*os.File, error) {
	if err := os.MkdirAll(dataRoot, 0o711); err != nil {
		return nil, fmt.Errorf("cannot make data-root: %w", err)
	}
	dir, err := os.Open(dataRoot)
	if err != nil {
		return nil, fmt.Errorf("cannot open data-root: %w", err)
	}
	// The lock goes with the process, however it ends.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errors.New("another lrd uses it (systemctl status lrd): stop that one, or give this one a data-root and an exec-root of its own")
		}
		return nil, errors.Join(fmt.Errorf("cannot use data-root %s: %w", dataRoot, err), dir.Close())
	}
	return dir, nil
}

func networkOptions(cfg *config.Config, log *slog.Logger) networks.Options {
	var pools []networks.Pool
	for _, p := range cfg.AddressPools {
		pools = append(pools, networks.Pool(p))
	}
	return networks.Options{
		Bip: cfg.Bip, FixedCIDR: cfg.FixedCIDR, MTU: cfg.MTU, Pools: pools,
		DataDir: filepath.Join(cfg.DataRoot, "networks"), RunDir: filepath.Join(cfg.ExecRoot, "netns"),
		NamesDir: filepath.Join(cfg.ExecRoot, "dns"), NamesSocket: filepath.Join(cfg.ExecRoot, "dns.sock"), Log: log,
	}
}

func imageOptions(cfg *config.Config, log *slog.Logger) images.Options {
	return images.Options{
		GraphRoot: filepath.Join(cfg.DataRoot, "storage"), RunRoot: filepath.Join(cfg.ExecRoot, "storage"), TempDir: filepath.Join(cfg.DataRoot, "tmp"),
		Driver: cfg.StorageDriver, MaxLoadBytes: cfg.MaxLoadSize, MaxDownloads: cfg.MaxConcurrentDownloads, MaxDownloadAttempts: cfg.MaxDownloadAttempts, MaxUploads: cfg.MaxConcurrentUploads,
		AdditionalStores: cfg.AdditionalImageStores,
		Registries:       images.Registries{Mirrors: cfg.RegistryMirrors, Insecure: cfg.InsecureRegistries},
		UserAgent:        "lrd/" + version, Log: log,
	}
}

// coordinate sets up the reload of the configuration, and who takes part in it.
func (d *daemon) coordinate(src config.Sources, cfg *config.Config, level *slog.LevelVar) {
	d.reload = reload.New(reload.Options{
		Load:   func() (*config.Config, error) { return config.Load(src) },
		Notify: func(state string) error { return d.notify(state) },
		Status: func(string) string { return d.status(context.Background()) },
		Done:   d.reloaded,
		Failed: func(err error) { d.metrics.Reloaded(err) },
		Log:    d.log,
	}, cfg, d.reloaders(level)...)
	d.closers = append(d.closers, func() error { d.reload.Close(); return nil })
}

// makeAPI makes the API and the streams that it has; nobody is answered yet.
func (d *daemon) makeAPI() {
	d.sessions = sessions.New(sessions.Options{
		Dir: d.sessionsDir(), Descriptors: d.store, Frozen: d.frozen.add,
		Max: func() int { return d.reload.Current().MaxSessions },
		Log: d.log,
	})
	d.closers = append(d.closers, func() error {
		// leave has done this already, unless the start failed: then too the next one goes on.
		ctx, cancel := context.WithTimeout(context.Background(), requestGrace)
		defer cancel()
		return d.sessions.Freeze(ctx)
	})
	revision, at := commit()
	d.api = api.New(api.Options{
		Containers: d.ctrs, Images: api.FromImages(d.images, d.ctrs), Volumes: api.FromVolumes(d.vols, d.ctrs), Networks: api.FromNetworks(d.net, d.ctrs),
		Events: d.events, Sessions: d.sessions, Warnings: d.net.Warnings,
		Config: d.reload.Current, Reload: d.reload.Handler(),
		// The runtime is asked for its version when a client wants to know, not on the way to READY=1.
		Build: api.Build{Version: version, GitCommit: revision, Time: at, Components: sync.OnceValue(d.components)}, Log: d.log,
	})
}

// sessionsDir is where clients' streams are kept, on a tmpfs.
func (d *daemon) sessionsDir() string { return filepath.Join(d.reload.Current().ExecRoot, "sessions") }

// serveAPI begins to answer.
func (d *daemon) serveAPI(listeners []net.Listener) {
	for _, l := range listeners {
		d.work.Go(func() {
			if err := d.api.Serve(l); err != nil {
				d.log.Error("Cannot serve the API", "error", err)
			}
		})
	}
}

// leave is the way down. Records and descriptors were saved when they changed,
// so that there is nothing to save: requests are brought to an end, and, without
// live-restore, the containers too.
func (d *daemon) leave() error {
	cfg := d.reload.Current()
	_ = d.notify(systemd.SdNotifyStopping, "STATUS=Stopping")
	ctx, cancel := context.WithTimeout(context.Background(), requestGrace)
	defer cancel()
	// First, so that a stream finds itself frozen and not ended when the API takes its leave.
	halt := d.sessions.End
	if cfg.LiveRestore {
		halt = d.sessions.Freeze
	}
	if err := halt(ctx); err != nil {
		d.log.Error("Some clients may lose their streams", "error", err)
	}
	if err := d.api.Shutdown(ctx); err != nil {
		d.log.Warn("Some requests were cut short", "error", err)
	}
	if cfg.LiveRestore {
		d.handing = d.handsOver(context.Background())
		return nil
	}
	d.log.Info("Shutting the containers down, as live-restore is off", "timeout", cfg.ShutdownTimeout)
	return d.extended(func() error { return d.ctrs.Shutdown(context.Background(), cfg.ShutdownTimeout) })
}

// close ends what was begun, last one first.
func (d *daemon) close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	if d.set != nil {
		errs = append(errs, d.set.Close())
	}
	return errors.Join(errs...)
}

// dropUnknown removes from systemd's store what nobody has taken: descriptors
// of a version of lrd that had other names for them.
func (d *daemon) dropUnknown(ctx context.Context) {
	names := d.set.Names()
	if len(names) == 0 {
		return
	}
	d.log.Warn("Removing descriptors from systemd's store that this version of lrd does not know", "descriptors", names)
	if err := errors.Join(d.store.Remove(ctx, names...), d.set.Close()); err != nil {
		d.log.Error("Cannot remove them", "error", err)
	}
}

// countStored is how many descriptors systemd holds for us.
func (d *daemon) countStored(ctx context.Context) (uint32, error) {
	v, err := d.units.ServiceProperty(ctx, d.unit, "NFileDescriptorStore")
	if err != nil {
		return 0, err
	}
	n, ok := v.Value().(uint32)
	if !ok {
		return 0, fmt.Errorf("NFileDescriptorStore of %s is a %T", d.unit, v.Value())
	}
	return n, nil
}

// systemStopping says whether the machine is going down.
func (d *daemon) systemStopping() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state, err := d.units.SystemState(ctx)
	return err == nil && state == "stopping" || errdefs.IsUnavailable(err)
}

// ownUnit is the unit that this process is the main process of.
func ownUnit() string {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err == nil {
		for line := range strings.Lines(string(data)) {
			name := filepath.Base(strings.TrimSpace(line))
			if strings.HasSuffix(name, ".service") {
				return name
			}
		}
	}
	return "lrd.service"
}
