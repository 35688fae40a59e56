package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"lrd/internal/reload"
)

// statusEvery is how often STATUS= is brought up to date. It is for people who
// look at systemctl status; a container more or less may take as long to show.
const statusEvery = 5 * time.Second

// notify tells systemd (sd_notify(3)).
func (d *daemon) notify(states ...string) error {
	if _, err := systemd.SdNotify(false, strings.Join(states, "\n")); err != nil {
		return fmt.Errorf("cannot notify systemd: %w", err)
	}
	return nil
}

// status is what an administrator reads in systemctl status.
func (d *daemon) status(ctx context.Context) string {
	n := d.ctrs.Counts()
	stored := "?"
	if count, err := d.countStored(ctx); err == nil {
		stored = fmt.Sprint(count)
	}
	return fmt.Sprintf("%d containers (%d running, %d paused), %s descriptors stored, %s", n.Total, n.Running, n.Paused, stored, d.reload.Status())
}

// keepStatus keeps STATUS= true until ctx is done.
func (d *daemon) keepStatus(ctx context.Context) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s := d.status(ctx); s != last && ctx.Err() == nil {
			last = s
			if err := d.notify("STATUS=" + s); err != nil {
				d.log.Warn("Cannot tell systemd the status", "error", err)
			}
		}
	}
}

// watchdog tells systemd that the daemon is alive, as long as it is: it must be
// able to answer a request and to ask systemd something. A daemon that cannot is
// killed and started again, which its containers do not notice.
func (d *daemon) watchdog(ctx context.Context) {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := d.alive(ctx, interval/3); err != nil {
			d.log.Error("The daemon is not well; systemd will restart it unless it recovers", "error", err)
			continue
		}
		_ = d.notify(systemd.SdNotifyWatchdog)
	}
}

// alive goes the way of a request: the container index and its locks, and systemd.
func (d *daemon) alive(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		d.ctrs.Counts()
		_, err := d.countStored(ctx)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("cannot get through the containers in %s: %w", timeout, context.Cause(ctx))
	}
}

// extended asks systemd for more time while do, which may take long, is under way.
func (d *daemon) extended(do func() error) error {
	const step = 20 * time.Second
	done := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			_ = d.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", step.Microseconds()), systemd.SdNotifyWatchdog)
			select {
			case <-done:
				return
			case <-time.After(step / 4):
			}
		}
	})
	err := do()
	close(done)
	asking.Wait()
	return err
}

// reloadOnSignal reloads the configuration at each SIGHUP, until ctx is done. What comes of it is in the log and the
// status, which the Coordinator sees to.
func (d *daemon) reloadOnSignal(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			_, _ = d.reload.Reload(ctx)
		}
	}
}

// reloaded tells the world about a reload that took effect: Docker's event, with the keys that changed.
func (d *daemon) reloaded(r reload.Report) {
	d.metrics.Reloaded(nil)
	attrs := map[string]string{}
	for _, c := range r.Changed {
		attrs[c.Key] = c.New
	}
	var waiting []string
	for _, c := range r.NeedRestart {
		waiting = append(waiting, c.Key)
	}
	if len(waiting) > 0 {
		attrs["need-restart"] = strings.Join(waiting, ",")
	}
	host, _ := os.Hostname()
	attrs["name"] = host
	d.events.Publish(events.Message{Type: events.DaemonEventType, Action: events.ActionReload, Actor: events.Actor{ID: host, Attributes: attrs}})
	if err := d.net.Reapply(context.Background()); err != nil {
		d.log.Error("Cannot put the network's rules back", "error", err)
	}
}

// components are what lrd works with, for `docker version`. It runs a program.
func (d *daemon) components() []system.ComponentVersion {
	var list []system.ComponentVersion
	component := func(name, version string) {
		list = append(list, system.ComponentVersion{Name: name, Version: version})
	}
	component("systemd", fmt.Sprint(d.units.Version()))
	cfg := d.reload.Current()
	if rt, ok := cfg.Runtimes[cfg.DefaultRuntime]; ok {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if out, err := exec.CommandContext(ctx, rt.Path, "--version").Output(); err == nil {
			first, _, _ := strings.Cut(string(out), "\n")
			component(cfg.DefaultRuntime, first[strings.LastIndex(first, " ")+1:])
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		component("kernel", unix.ByteSliceToString(u.Release[:]))
	}
	return list
}
