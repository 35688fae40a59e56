package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"lrd/internal/config"
	"lrd/internal/oci"
	"lrd/internal/output"
	"lrd/internal/units"
)

// consoleTimeout bounds the wait for a console that the runtime has sent already.
const consoleTimeout = 10 * time.Second

// Start runs a container. Errors: ErrNotModified when it runs already,
// ErrConflict when it is paused or being removed, ErrInvalidArgument when its
// command cannot be run.
//
// A start that has begun is carried through or undone even if the caller goes
// away.
func (m *Manager) Start(ctx context.Context, ref string) error {
	c, err := m.find(ref)
	if err != nil {
		return err
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	return m.start(context.WithoutCancel(ctx), c)
}

// start is Start with c.op held.
func (m *Manager) start(ctx context.Context, c *Container) error {
	c.mu.Lock()
	r, s, gone := c.record, c.status, c.gone
	c.mu.Unlock()
	switch {
	case gone: // while we waited
		return refused(errdefs.ErrNotFound, "No such container: %s", c.id)
	case s.State == container.StatePaused:
		return refused(errdefs.ErrConflict, "cannot start a paused container, try unpause instead")
	case s.Running():
		return ErrNotModified
	case s.Reason != "":
		return refused(errdefs.ErrFailedPrecondition, "cannot start container %s: %s", r.Name, s.Reason)
	}
	if err := requireState(r, s, "start", container.StateCreated, container.StateExited); err != nil {
		return err
	}
	err := m.launch(ctx, c)
	if err == nil {
		return nil
	}
	m.logger(c.id, "start").Error("Cannot start the container", "error", err)
	c.mu.Lock()
	c.queue = nil // what was said of the unit that failed
	c.mu.Unlock()
	c.note(func(_ *Record, s *Status) {
		s.Error = err.Error()
		s.ExitCode = startExitCode(err)
	})
	if r.HostConfig.AutoRemove {
		if rmErr := m.remove(ctx, c, RemoveOptions{Volumes: true}); rmErr != nil {
			m.logger(c.id, "remove").Error("Cannot remove the container that could not be started", "error", rmErr)
		}
	}
	return err
}

// launch sets up a run and starts it, and undoes what it did if that fails. The
// order matters: everything that a run needs to outlive the daemon is in place
// (descriptors in the store, the Record on disk) before anything runs.
func (m *Manager) launch(ctx context.Context, c *Container) (err error) {
	var undo cleanup
	defer undo.unless(&err)
	r, _ := c.snapshot()
	cfg := m.o.Config()
	if r.Run != nil {
		// The end of the run before is still being put away, or could not be.
		if err := m.putAway(ctx, c); err != nil {
			return fmt.Errorf("cannot put the run before away: %w", err)
		}
	}
	// Undone last: until then a crash leaves a Record that says what there is to put away.
	undo.add(func() { c.note(func(r *Record, _ *Status) { r.Run = nil }) })

	b, limits, run, err := m.prepare(ctx, &r, cfg, &undo)
	if err != nil {
		return err
	}
	e, err := makeEnds(c.pipe, b.tty, b.stdin, pipeSize(r, cfg))
	if err != nil {
		return err
	}
	undo.add(e.close)
	undo.add(func() { _ = m.disconnect(ctx, c) })
	if err := m.o.Descriptors.PutAll(ctx, e.items(c.id)); err != nil {
		return fmt.Errorf("cannot keep the container's descriptors over a restart of lrd: %w", err)
	}
	for what := range e {
		run.Descriptors = append(run.Descriptors, what)
	}
	stopSignal, err := m.stopSignal(r, "")
	if err != nil {
		return err
	}
	err = c.update(func(r *Record, s *Status) {
		r.Run, r.LastBoot = run, run.BootID
		s.RestartCount, s.ManuallyStopped, s.Error, s.OOMKilled = 0, false, "", false
		if c.runEnded == nil { // else somebody has attached already, and waits for its end
			c.runEnded = make(chan struct{})
		}
		c.queue = nil // what was said of an earlier unit of this name
		c.stopping = false
	})
	if err != nil {
		return err
	}
	undo.add(func() { m.endRun(c) })
	out, err := c.output()
	if err != nil {
		return err
	}
	if err := out.BeginRun(); err != nil {
		return err
	}
	if b.tty {
		// The console's reader must be there before the runtime sends it. Pipes are
		// read only after the start, so that what the runtime itself writes into
		// them when it fails does not end up as the container's output.
		if err := m.connect(c, e); err != nil {
			return err
		}
	}
	props := unitProperties(r, b, stopSignal, stopTimeout(r, StopOptions{}, cfg), limits, m.o.Units.Version())
	if err := m.startUnit(ctx, c, b, props); err != nil {
		return err
	}
	// From here on there is a container: what fails now must not take it back.
	undo = nil
	m.started(ctx, c, e)
	return nil
}

// started takes note of a unit that has just been started, and connects its output.
func (m *Manager) started(ctx context.Context, c *Container, e ends) {
	log := m.logger(c.id, "start")
	if err := m.connect(c, e); err != nil {
		log.Error("Cannot read the container's output", "error", err)
		c.note(func(_ *Record, s *Status) { s.Reason = "its output is not collected: " + err.Error() })
	}
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	if err := awaitConsole(ctx, c); err != nil {
		log.Error("The container runs without a console", "error", err)
	}
	u, err := m.settledState(ctx, unitName(c.id))
	if err != nil {
		// It may have come and gone already; the announcements and its list of exits tell.
		log.Debug("The unit is gone already", "error", err)
		u = units.State{Name: unitName(c.id), ActiveState: "inactive", SubState: "dead"}
	}
	m.observe(ctx, c, u, err != nil)
}

// settleTimeout bounds the wait for systemd to be done with the commands around a run that is over already, and
// settlePoll is how often it is asked meanwhile. They take some 10 ms.
const (
	settleTimeout = 5 * time.Second
	settlePoll    = 2 * time.Millisecond
)

// settledState is the state of a unit that has been started. A container that was over at once is waited for, so
// that whoever asks after the start gets its exit code and not that it has never run.
func (m *Manager) settledState(ctx context.Context, name string) (units.State, error) {
	for deadline := time.Now().Add(settleTimeout); ; {
		u, err := m.o.Units.State(ctx, name)
		if err != nil || settled(u) || time.Now().After(deadline) {
			return u, err
		}
		time.Sleep(settlePoll)
	}
}

// prepare makes what a run stands on: root filesystem, network, mounts, bundle.
// How to undo it is added to undo.
func (m *Manager) prepare(ctx context.Context, r *Record, cfg *config.Config, undo *cleanup) (b bundle, limits oci.Limits, run *Run, err error) {
	rootfs, err := m.o.Images.MountRootfs(ctx, r.ID)
	if err != nil {
		return b, limits, nil, fmt.Errorf("cannot mount the root filesystem: %w", err)
	}
	undo.add(func() { _ = m.o.Images.UnmountRootfs(ctx, r.ID) })
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
	if in.Mounts, err = m.resolveMounts(ctx, r, rootfs); err != nil {
		return b, limits, nil, err
	}
	if err := m.writeEtc(r, run, cfg, &in); err != nil {
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
	b = bundle{
		id: r.ID, name: r.Name, dir: m.runDir(r.ID), root: m.runtimeDir(), runtime: r.Runtime,
		tty: r.Config.Tty, stdin: r.Config.OpenStdin && !r.Config.Tty, spec: spec,
		restarts: restarts(r.HostConfig.RestartPolicy),
	}
	undo.add(func() { _ = os.RemoveAll(b.dir) })
	for _, stale := range []string{exitsFile, stoppingFile} {
		if err := os.Remove(b.path(stale)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return b, limits, nil, err
		}
	}
	if err := b.write(); err != nil {
		return b, limits, nil, fmt.Errorf("cannot write the bundle: %w", err)
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

// startUnit starts the unit. When that fails, the error is what the runtime had to say.
func (m *Manager) startUnit(ctx context.Context, c *Container, b bundle, props []units.Property) error {
	name := unitName(c.id)
	err := m.startOnce(ctx, name, b, props)
	if errdefs.IsAlreadyExists(err) {
		// The unit of an earlier run that has not been put away.
		if err := errors.Join(m.o.Units.Stop(ctx, name), m.o.Units.ResetFailed(ctx, name)); err != nil {
			return fmt.Errorf("cannot put the unit of the earlier run away: %w", err)
		}
		err = m.startOnce(ctx, name, b, props)
	}
	if err == nil {
		return nil
	}
	var job *units.JobError
	isJob := errors.As(err, &job)
	if notes, _ := readExits(b.path(exitsFile)); isJob && job.Lost() && len(notes) > 0 {
		return nil // it ran, and is gone: its list of exits tells the rest
	}
	said := runtimeError(b.path(runtimeLog))
	if u, stateErr := m.o.Units.State(ctx, name); isJob && stateErr == nil && ended(u) && said == "" {
		// The container ran, and was over before systemd had looked: that is an
		// exit, though systemd calls the start failed.
		return nil
	}
	if stopErr := errors.Join(m.o.Units.Stop(ctx, name), m.o.Units.ResetFailed(ctx, name)); stopErr != nil {
		m.logger(c.id, "start").Warn("Cannot put the failed unit away", "error", stopErr)
	}
	if isJob && said != "" {
		return startError("create the container", said, commandOf(c))
	}
	return fmt.Errorf("cannot start the unit: %w", err)
}

// startOnce starts the unit, again if systemd executed itself anew at the very
// moment and so never heard of it: the unit is not there, and the runtime has
// not made the container's process.
func (m *Manager) startOnce(ctx context.Context, name string, b bundle, props []units.Property) error {
	for {
		if err := os.Remove(b.path(pidFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err := m.o.Units.Start(ctx, name, props)
		var job *units.JobError
		if !errors.As(err, &job) || !job.Lost() {
			return err
		}
		if _, statErr := os.Stat(b.path(pidFile)); !errors.Is(statErr, fs.ErrNotExist) {
			return err
		}
		m.o.Log.Info("Starting the unit again, as systemd has not heard of it", "unit", name, "error", err)
	}
}

// beginRun prepares the output for a run that systemd has started by itself.
func (m *Manager) beginRun(c *Container) {
	c.mu.Lock()
	if c.runEnded == nil {
		c.runEnded = make(chan struct{})
	}
	c.mu.Unlock()
	out, err := c.output()
	if err == nil {
		err = out.BeginRun()
	}
	if err != nil && !errors.Is(err, output.ErrClosed) {
		m.logger(c.id, "start").Error("Cannot begin a run in the output store", "error", err)
	}
}
