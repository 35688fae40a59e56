package containers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/renameio/v2"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"lrd/internal/oci"
)

// Update changes limits and the restart policy of a container, in its unit at
// once if it runs. What u does not say stays. Errors: ErrInvalidArgument for
// limits that make no sense together, ErrConflict for a restart policy with AutoRemove.
func (m *Manager) Update(ctx context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error) {
	c, err := m.find(ref)
	if err != nil {
		return container.UpdateResponse{}, err
	}
	ctx = context.WithoutCancel(ctx)
	if err := c.lock(ctx); err != nil {
		return container.UpdateResponse{}, err
	}
	defer c.unlock()
	if err := m.updateContainer(ctx, c, &u); err != nil {
		return container.UpdateResponse{}, err
	}
	m.publish(c, events.ActionUpdate, time.Time{}, nil)
	return container.UpdateResponse{Warnings: []string{}}, nil
}

// updateContainer is Update with c.op held.
func (m *Manager) updateContainer(ctx context.Context, c *Container, u *container.UpdateConfig) (err error) {
	old, s := c.snapshot()
	if c.foreign {
		return refused(errdefs.ErrFailedPrecondition, "cannot update container %s: %s", old.Name, s.Reason)
	}
	if err := requireState(old, s, "update", container.StateCreated, container.StateRunning, container.StatePaused, container.StateRestarting, container.StateExited); err != nil {
		return err
	}
	host := *old.HostConfig
	if host.Resources, err = oci.UpdateResources(m.liveResources(ctx, c, old), &u.Resources, m.o.Machine); err != nil {
		return err
	}
	if p := u.RestartPolicy; p.Name != "" {
		if err := container.ValidateRestartPolicy(p); err != nil {
			return refused(errdefs.ErrInvalidArgument, "%s", err)
		}
		if host.AutoRemove && !p.IsNone() {
			return refused(errdefs.ErrConflict, "Restart policy cannot be updated because AutoRemove is enabled for the container %s", c.id)
		}
		host.RestartPolicy = p
	}
	// On record first: a start that follows must not bring back what was.
	if err := c.update(func(r *Record, _ *Status) { r.HostConfig = &host }); err != nil {
		return err
	}
	if !s.Running() {
		return nil
	}
	if err := m.updateUnit(ctx, c, old.HostConfig, &host); err != nil {
		c.note(func(r *Record, _ *Status) { r.HostConfig = old.HostConfig })
		return fmt.Errorf("cannot update container %s: %w", old.Name, err)
	}
	return nil
}

// updateUnit gives the unit of a container that runs what has changed.
func (m *Manager) updateUnit(ctx context.Context, c *Container, old, host *container.HostConfig) error {
	limits, err := oci.LimitsOf(host, m.o.Machine)
	if err != nil {
		return err
	}
	// Devices do not change, and those of a node that is gone since could not be set again.
	limits.DevicePolicy, limits.DeviceAllow = "", nil
	if err := m.o.Units.SetProperties(ctx, unitName(c.id), limitProperties(limits)); err != nil {
		return err
	}
	if old.RestartPolicy == host.RestartPolicy {
		return nil
	}
	r, _ := c.snapshot()
	b := m.bundleOf(&r)
	if err := b.writePolicy(); err != nil {
		return err
	}
	path := filepath.Join(m.dropIn(c.id), "50-restart.conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := renameio.WriteFile(path, []byte(restartDropIn(b, m.o.Units.Version())), 0o644); err != nil {
		return err
	}
	return m.o.Units.ReloadUnits(ctx)
}

// restartDropIn is restartProperties as a drop-in: of a unit that is there,
// systemd takes another restart policy in no other way.
func restartDropIn(b bundle, systemd int) string {
	var s strings.Builder
	p := b.policy
	fmt.Fprintln(&s, "# The restart policy of a container that docker update has changed. Written by lrd.")
	if !restarts(p) {
		return s.String() + "[Service]\nRestart=no\nRemainAfterExit=yes\n"
	}
	if n := p.MaximumRetryCount; n > 0 {
		fmt.Fprintf(&s, "[Unit]\nStartLimitIntervalSec=infinity\nStartLimitBurst=%d\n", n+1)
	} else {
		fmt.Fprintf(&s, "[Unit]\nStartLimitIntervalSec=0\n")
	}
	fmt.Fprintf(&s, "[Service]\nRemainAfterExit=no\nExecCondition=\nExecCondition=/bin/sh %s\nRestartForceExitStatus=\n", unitWord(b.path(againScript)))
	if p.IsOnFailure() {
		fmt.Fprintf(&s, "Restart=on-failure\nRestartForceExitStatus=SIGHUP SIGINT SIGPIPE SIGTERM\n")
	} else {
		fmt.Fprintf(&s, "Restart=always\n")
	}
	if systemd >= 254 {
		fmt.Fprintf(&s, "RestartSec=100ms\nRestartSteps=9\nRestartMaxDelaySec=1min\n")
	} else {
		fmt.Fprintf(&s, "RestartSec=1s\n")
	}
	return s.String()
}

// unitWord makes s one word of a command in a unit file (systemd.service(5), "Command lines").
func unitWord(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`).Replace(s) + `"`
}

// dropIn is where lrd puts drop-ins of a container's unit.
func (m *Manager) dropIn(id string) string { return filepath.Join(m.o.DropIns[0], unitName(id)+".d") }

// removeDropIns removes what would change the unit of the next run, as if it were part of the container.
func (m *Manager) removeDropIns(id string) error {
	var errs []error
	for _, dir := range m.o.DropIns {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, unitName(id)+".d")))
	}
	return errors.Join(errs...)
}

// liveResources are those of the Record, or, where somebody has changed the
// unit of a container that runs with systemctl set-property, the unit's.
func (m *Manager) liveResources(ctx context.Context, c *Container, r Record) container.Resources {
	var resources container.Resources
	if r.HostConfig != nil {
		resources = r.HostConfig.Resources
	}
	if r.Run == nil || !c.Status().Running() || c.foreign {
		return resources
	}
	now, err := m.o.Units.ServiceProperties(ctx, unitName(c.id), limitNames...)
	if err != nil {
		if !errdefs.IsNotFound(err) {
			c.logger("inspect").Debug("Cannot read the limits of the container's unit", "error", err)
		}
		return resources
	}
	return oci.Observed(resources, limitsOf(now))
}

// limitNames are the properties that limitsOf understands.
var limitNames = []string{"MemoryMax", "MemoryLow", "MemorySwapMax", "CPUQuotaPerSecUSec", "CPUWeight", "IOWeight", "TasksMax", "AllowedCPUs", "AllowedMemoryNodes"}

// limitsOf is limitProperties the other way round.
func limitsOf(now map[string]any) oci.Limits {
	number := func(name string) *uint64 {
		if v, ok := now[name].(uint64); ok {
			return &v
		}
		return nil
	}
	set := func(name string) (numbers []int) {
		mask, _ := now[name].([]byte)
		for i := range 8 * len(mask) {
			if mask[i/8]&(1<<(i%8)) != 0 {
				numbers = append(numbers, i)
			}
		}
		return numbers
	}
	return oci.Limits{
		MemoryMax: number("MemoryMax"), MemoryLow: number("MemoryLow"), MemorySwapMax: number("MemorySwapMax"),
		CPUQuotaPerSecUSec: number("CPUQuotaPerSecUSec"), CPUWeight: number("CPUWeight"), IOWeight: number("IOWeight"), TasksMax: number("TasksMax"),
		AllowedCPUs: set("AllowedCPUs"), AllowedMemoryNodes: set("AllowedMemoryNodes"),
	}
}
