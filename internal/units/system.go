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
