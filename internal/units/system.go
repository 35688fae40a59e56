package units

import (
	"context"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// SystemState is the state of the whole system: "running", "degraded",
// "stopping", … (systemctl(1), is-system-running).
func (m *Manager) SystemState(ctx context.Context) (string, error) {
	var v dbus.Variant
	err := m.repeat(ctx, func(l *link) error {
		_, err := l.call(ctx, []any{&v}, managerPath, "org.freedesktop.DBus.Properties.Get", managerIface, "SystemState")
		return err
	})
	if err != nil {
		return "", fmt.Errorf("cannot read the state of the system: %w", err)
	}
	state, ok := v.Value().(string)
	if !ok {
		return "", fmt.Errorf("cannot read the state of the system: it is a %s", v.Signature())
	}
	return state, nil
}

// JobType is what PID 1 is doing with a unit, or is about to: "start", "stop",
// "restart", "reload", …; empty if there is no job for it. A restart is a
// "restart" until the unit has stopped.
func (m *Manager) JobType(ctx context.Context, unit string) (string, error) {
	var kind dbus.Variant
	err := m.repeat(ctx, func(l *link) error {
		job, err := unitJob(ctx, l, unit)
		if err != nil || job == "" {
			return err
		}
		_, err = l.call(ctx, []any{&kind}, job, propsIface+".Get", "org.freedesktop.systemd1.Job", "JobType")
		return err
	})
	if err != nil {
		return "", fmt.Errorf("cannot read the job of unit %s: %w", unit, err)
	}
	text, _ := kind.Value().(string)
	return text, nil
}
