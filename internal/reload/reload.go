package reload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"lrd/internal/config"
)

// Reloader is a part of the daemon that takes a new configuration over.
type Reloader interface {
	// Prepare does everything that can fail and changes nothing that anybody sees; old is what is in force and new what
	// will be. commit makes it visible: it cannot fail, does not block, and is called at most once. When another
	// Reloader fails, commit is dropped without a call, so Prepare must not leave anything behind that needs to be
	// undone. A nil commit means that there is nothing to do.
	Prepare(ctx context.Context, old, new *config.Config) (commit func(), err error)
}

// Func is a function as a Reloader.
type Func func(ctx context.Context, old, new *config.Config) (commit func(), err error)

// Prepare calls f.
func (f Func) Prepare(ctx context.Context, old, new *config.Config) (func(), error) {
	return f(ctx, old, new)
}

// Report is what a successful reload did.
type Report struct {
	// Changed are the keys that took effect.
	Changed []config.Change `json:"changed"`
	// NeedRestart are the keys whose new values wait for a restart of lrd.
	NeedRestart []config.Change `json:"need_restart"`
}

// DefaultTimeout is how long a reload may take: systemd gives a service 90 seconds to reload by default
// (DefaultTimeoutStartSec=, systemd-system.conf(5)), and ours is to fail with its own words before that.
const DefaultTimeout = 60 * time.Second

// Options is what a Coordinator is made of.
type Options struct {
	// Load reads the configuration anew.
	Load func() (*config.Config, error)
	// Notify sends a message to the service manager, as sd_notify(3) describes; nil: nobody is told. An error of it
	// is logged and changes nothing.
	Notify func(state string) error
	// Status makes of Coordinator.Status the text for STATUS=; nil: it is taken as it is.
	Status func(reload string) string
	// Done is told about each successful reload, after all commits; nil: nobody is.
	Done func(Report)
	// Failed is told why a reload did not take effect; nil: nobody is.
	Failed func(error)
	// Timeout is how long a reload may take; 0 is DefaultTimeout.
	Timeout time.Duration
	Log     *slog.Logger
}

// Coordinator runs the reloads of one daemon. It is safe for concurrent use.
type Coordinator struct {
	o         Options
	reloaders []Reloader
	current   atomic.Pointer[config.Config]
	status    atomic.Pointer[string]

	// turn holds one token: who has it reloads.
	turn chan struct{}
	// running counts the goroutines that reload, for Close. Add happens under mu, while closed is false.
	running sync.WaitGroup

	// mu guards what follows. It is held for moments only, never during a reload.
	mu sync.Mutex
	// next is the reload that has not begun to load yet; callers may still join it. nil: there is none.
	next   *flight
	closed bool
}

// flight is one reload and all who wait for it.
type flight struct {
	done   chan struct{} // closed when report and err are there
	report Report
	err    error
}

// New makes a Coordinator of a daemon that runs with current. Reloaders prepare and commit in their order.
func New(o Options, current *config.Config, reloaders ...Reloader) *Coordinator {
	if o.Notify == nil {
		o.Notify = func(string) error { return nil }
	}
	if o.Status == nil {
		o.Status = func(s string) string { return s }
	}
	if o.Done == nil {
		o.Done = func(Report) {}
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Coordinator{o: o, reloaders: reloaders, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	c.current.Store(current)
	c.setStatus("configuration of " + clock())
	return c
}

// Current is the configuration in force. Take it once per operation and keep it.
func (c *Coordinator) Current() *config.Config { return c.current.Load() }

// Status tells an administrator which configuration is in force, and why the last reload failed if it did. One line.
func (c *Coordinator) Status() string { return *c.status.Load() }

func (c *Coordinator) setStatus(s string) { c.status.Store(&s) }

// Reload loads the configuration and puts it in force, or changes nothing and says why. The load begins after the
// call; callers at the same time may share it. An error for which errdefs.IsInvalidArgument holds is the
// configuration's fault. When ctx ends, Reload returns, but a reload that has begun goes on.
func (c *Coordinator) Reload(ctx context.Context) (Report, error) {
	f, err := c.join(ctx)
	if err != nil {
		return Report{}, err
	}
	select {
	case <-f.done:
		return f.report, f.err
	case <-ctx.Done():
		return Report{}, fmt.Errorf("cannot wait for the reload: %w", context.Cause(ctx))
	}
}

// Close waits until no reload is running, and refuses new ones.
func (c *Coordinator) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.running.Wait()
}

// join gives the flight whose load is still to begin, and starts one where there is none.
func (c *Coordinator) join(ctx context.Context) (*flight, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("cannot reload: lrd is stopping: %w", errdefs.ErrUnavailable)
	}
	if c.next == nil {
		c.next = &flight{done: make(chan struct{})}
		f := c.next
		// The first caller's values (trace, logger) are kept; its end is not everybody's.
		ctx := context.WithoutCancel(ctx)
		c.running.Go(func() { c.fly(ctx, f) })
	}
	return c.next, nil
}

// fly waits for its turn and reloads.
func (c *Coordinator) fly(ctx context.Context, f *flight) {
	defer close(f.done)
	<-c.turn
	defer func() { c.turn <- struct{}{} }()
	c.mu.Lock()
	c.next = nil // from here on the load may have begun: who comes now gets the next one
	c.mu.Unlock()

	ctx, cancel := context.WithTimeoutCause(ctx, c.o.Timeout, errTimeout)
	defer cancel()
	c.notify("RELOADING=1\nMONOTONIC_USEC=" + monotonic())
	f.report, f.err = c.reload(ctx)
	c.tell(f.report, f.err)
	c.notify("READY=1\nSTATUS=" + oneLine(c.o.Status(c.Status())))
}

var errTimeout = errors.New("it took too long")

// reload is the whole of it, without the telling.
func (c *Coordinator) reload(ctx context.Context) (Report, error) {
	old := c.Current()
	loaded, err := c.o.Load()
	if err != nil {
		return Report{}, err
	}
	report := Report{Changed: []config.Change{}, NeedRestart: []config.Change{}} // never null in JSON
	for _, change := range config.Diff(old, loaded) {
		if change.Reloadable {
			report.Changed = append(report.Changed, change)
		} else {
			report.NeedRestart = append(report.NeedRestart, change)
		}
	}
	next := config.Reloaded(old, loaded)
	commits, err := c.prepare(ctx, old, next)
	if err != nil {
		return Report{}, err
	}
	for _, commit := range commits {
		commit()
	}
	c.current.Store(next)
	return report, nil
}

// prepare collects the commits of all Reloaders, or fails with the first that cannot.
func (c *Coordinator) prepare(ctx context.Context, old, next *config.Config) ([]func(), error) {
	var commits []func()
	for _, r := range c.reloaders {
		commit, err := r.Prepare(ctx, old, next)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot apply the configuration: %w", err)
		}
		if commit != nil {
			commits = append(commits, commit)
		}
	}
	return commits, nil
}

// tell writes the outcome to the log and the status.
func (c *Coordinator) tell(r Report, err error) {
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			c.o.Log.Error("cannot reload: "+line, "operation", "reload")
		}
		was, _, _ := strings.Cut(c.Status(), ";")
		c.setStatus(was + "; reload at " + clock() + " failed: " + oneLine(err.Error()))
		c.o.Failed(err)
		return
	}
	for _, change := range r.Changed {
		c.o.Log.Info("configuration changed: "+change.String(), "operation", "reload")
	}
	status := "configuration of " + clock()
	if len(r.NeedRestart) > 0 {
		keys := make([]string, len(r.NeedRestart))
		for i, change := range r.NeedRestart {
			keys[i] = change.Key
			c.o.Log.Warn("configuration waits for a restart of lrd: "+change.String(), "operation", "reload")
		}
		status += "; waiting for a restart: " + strings.Join(keys, ", ")
	}
	c.setStatus(status)
	c.o.Log.Info("configuration reloaded", "operation", "reload", "changed", len(r.Changed), "waiting", len(r.NeedRestart))
	c.o.Done(r)
}

func (c *Coordinator) notify(state string) {
	if err := c.o.Notify(state); err != nil {
		c.o.Log.Warn("cannot notify the service manager", "operation", "reload", "error", err)
	}
}

// oneLine makes text fit into a line of sd_notify's: a second line would be another assignment. systemd takes messages
// of up to 4096 bytes.
func oneLine(s string) string {
	const most = 2000
	s = strings.ReplaceAll(s, "\n", " | ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// clock is the time of day as an administrator reads it in a status.
func clock() string { return time.Now().Format("15:04:05") }

// monotonic is CLOCK_MONOTONIC in microseconds, which systemd wants to tell two reloads apart (sd_notify(3)).
func monotonic() string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return "0" // the clock exists on every Linux
	}
	return fmt.Sprint(ts.Nano() / int64(time.Microsecond))
}
