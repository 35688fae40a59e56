package containers

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"

	"lrd/internal/config"
	"lrd/internal/logdrivers"
	"lrd/internal/logopts"
	"lrd/internal/output"
)

// forwardGrace is how long a removal waits for what the log driver has not
// taken yet: as long as Docker waits for one to close.
const forwardGrace = 10 * time.Second

// logging is what a container's log driver makes of its output. It lives as long as the store is open.
type logging struct {
	// mu guards what follows. It is taken last of all. Driver and Dir of the options never change, and are read without it.
	mu        sync.Mutex
	options   logdrivers.Options
	forwarder *logdrivers.Forwarder // nil for drivers that forward nothing, and while the store is not open
	stale     bool                  // the options have changed since it was started

	before atomic.Int64 // bytes in the store when it was opened
}

// logOptions are a container's, for its log driver.
func (m *Manager) logOptions(r *Record) logdrivers.Options {
	config, host := configs(*r)
	argv := commandLine(config)
	return logdrivers.Options{
		Driver: host.LogConfig.Type, Dir: m.dataDir(r.ID), Log: m.logger(r.ID, "log"),
		Info: logopts.Info{
			Config: host.LogConfig.Config, ContainerID: r.ID, ContainerName: "/" + r.Name, ContainerEntrypoint: argv[0], ContainerArgs: argv[1:],
			ContainerImageID: r.ImageID, ContainerImageName: config.Image, ContainerCreated: r.Created,
			ContainerEnv: config.Env, ContainerLabels: config.Labels, DaemonName: "lrd",
		},
	}
}

// mergeLog fills in from the daemon's configuration what a request does not
// say of its log. The daemon's options are for its driver.
func mergeLog(l container.LogConfig, cfg *config.Config) container.LogConfig {
	if l.Type == "" {
		l.Type = cfg.LogDriver
	}
	if l.Type == cfg.LogDriver {
		l.Config = overlay(cfg.LogOpts, l.Config)
	}
	return l
}

// checkLog refuses log drivers and options that there are not, or that do not work here.
func (m *Manager) checkLog(r *Record) error {
	l := r.HostConfig.LogConfig
	if err := logopts.Validate(l.Type, l.Config); err != nil {
		return refused(errdefs.ErrInvalidArgument, "%s", err)
	}
	if err := m.o.LogDrivers.Check(m.logOptions(r)); err != nil {
		return refused(errdefs.ErrInvalidArgument, "failed to initialize logging driver: %s", err)
	}
	return nil
}

// storeOptions say how a container's output is kept.
func storeOptions(l container.LogConfig) (output.Options, error) {
	if l.Type == "" {
		return output.Options{}, nil // there is no Record that could be read
	}
	return logopts.Store(l.Type, l.Config)
}

// pipeSize is how large a container's pipes are to be, in bytes. They hold what
// the container writes while the daemon is away, so the default is the largest that the kernel gives.
func pipeSize(r Record, cfg *config.Config) int {
	opts := r.HostConfig.LogConfig.Config
	if n, err := units.RAMInBytes(opts[logopts.PipeSize]); err == nil && n > 0 {
		return int(n)
	}
	if o, err := storeOptions(r.HostConfig.LogConfig); err == nil && o.MaxBuffer > 0 {
		return int(o.MaxBuffer)
	}
	if n := int(cfg.OutputPipeSize()); n > 0 {
		return n
	}
	return output.DefaultPipeSize()
}

// openOutput opens the store and starts to forward what is in it.
func (c *Container) openOutput() (*output.Log, error) {
	c.logging.mu.Lock()
	defer c.logging.mu.Unlock()
	o, err := storeOptions(container.LogConfig{Type: c.logging.options.Driver, Config: c.logging.options.Info.Config})
	if err != nil {
		return nil, err
	}
	o.Log, o.OnIncident = c.logger("output"), c.outputIncident
	log, err := output.Open(c.m.outputDir(c.id), o)
	if err != nil {
		return nil, err
	}
	stats := log.Stats()
	c.logging.before.Store(stats.Streams[0].Bytes + stats.Streams[1].Bytes)
	c.forwardLocked(log)
	return log, nil
}

// standIn says how the output is kept while there is no daemon. Nothing is forwarded then, and what the log driver has
// not got must be there when there is one again: rotation removes nothing of it.
func (c *Container) standIn() (dir string, o output.Options, err error) {
	c.logging.mu.Lock()
	defer c.logging.mu.Unlock()
	o, err = storeOptions(container.LogConfig{Type: c.logging.options.Driver, Config: c.logging.options.Info.Config})
	if logdrivers.Forwards(c.logging.options.Driver) {
		o.MaxFiles = 0
	}
	return c.m.outputDir(c.id), o, err
}

// forwardLocked starts the forwarder. A log driver that cannot be started does
// not keep a container from running: its output is in the store.
func (c *Container) forwardLocked(log *output.Log) {
	f, err := c.m.o.LogDrivers.Start(log, c.logging.options)
	if err != nil {
		c.logger("log").Error("The container's output is not forwarded", "error", err)
	}
	c.logging.forwarder, c.logging.stale = f, false
}

// renamedLog tells the log driver another name, which holds from the next start of the container on.
func (c *Container) renamedLog(name string) {
	c.logging.mu.Lock()
	defer c.logging.mu.Unlock()
	c.logging.options.Info.ContainerName, c.logging.stale = "/"+name, true
}

// renewLog makes the log driver use the name that the container has now, before a start.
func (c *Container) renewLog(log *output.Log) {
	c.logging.mu.Lock()
	defer c.logging.mu.Unlock()
	if c.logging.stale {
		c.logging.forwarder.Stop()
		c.forwardLocked(log)
	}
}

// closingOutput ends the forwarder: the store is about to be closed, and the next daemon goes on.
func (c *Container) closingOutput() {
	c.logging.mu.Lock()
	defer c.logging.mu.Unlock()
	c.logging.forwarder.Stop()
	c.logging.forwarder = nil
}

// stopForwarding ends all forwarders at the same time: each may try for a moment to deliver what it has.
func (m *Manager) stopForwarding() {
	var stopping sync.WaitGroup
	for _, c := range m.all() {
		stopping.Go(c.closingOutput)
	}
	stopping.Wait()
}

// forwardRest waits, within reason, until the log driver has everything of a
// container that is being removed. A file in the container's own directory goes with it.
func (c *Container) forwardRest(ctx context.Context) {
	c.logging.mu.Lock()
	f, driver := c.logging.forwarder, c.logging.options.Driver
	c.logging.mu.Unlock()
	if driver == logopts.JSONFile {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, forwardGrace)
	defer cancel()
	if err := f.Wait(ctx); err != nil {
		c.logger("remove").Warn("The container is removed before its log driver has taken all of its output", "driver", driver, "waited", forwardGrace)
	}
}

// forwardBehind goes on forwarding the output of a container that does not
// run, if the daemon before had not come to its end.
func (c *Container) forwardBehind() {
	if c.foreign || !logdrivers.Forwards(c.logging.options.Driver) {
		return
	}
	behind, err := logdrivers.Behind(c.logging.options.Dir)
	if err == nil && behind {
		_, err = c.output()
	}
	if err != nil {
		c.logger("restore").Error("The rest of the container's output is not forwarded", "error", err)
	}
}

// details is what `docker logs --details` shows in front of a container's lines.
func (c *Container) details() (string, error) {
	c.logging.mu.Lock()
	defer c.logging.mu.Unlock()
	attrs, err := c.logging.options.Info.AllAttributes()
	return logopts.Details(attrs), err
}
