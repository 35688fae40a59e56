package containers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/units"
)

// containerGroup is the control group, below that of the unit, that has the
// processes of the container, and a pause freezes it rather than the unit.
//
//	lrd-<id>.service        limits; nobody
//	├── container           the container, and commands executed in it
//	└── .control            what systemd runs around it, as ExecStopPost=
//
// A frozen unit is a trap in systemd 257: it starts the unit's commands in the
// frozen group and waits for each, as PID 1 and for ever, as with vfork(2). That
// takes no more than a process that is killed while its container is paused. And
// its FreezeUnit may say "aborted" when the kernel does freeze. Delegate=yes
// makes what is below the unit ours (https://systemd.io/CGROUP_DELEGATION).
const containerGroup = "container"

// groupPath is the container's control group. A container of a host without a
// unified hierarchy has none.
func groupPath(id string) string {
	return filepath.Join(cgroupRoot, Slice, unitName(id), containerGroup)
}

// freezeTimeout is how long the kernel may take to freeze or thaw. It is a matter
// of milliseconds, unless a process is in a state that cannot be interrupted.
const freezeTimeout = 10 * time.Second

// suspend freezes all processes of a container.
func (m *Manager) suspend(ctx context.Context, id string) error {
	err := setFrozen(ctx, groupPath(id), true)
	if errors.Is(err, fs.ErrNotExist) {
		return m.o.Units.Freeze(ctx, unitName(id))
	}
	return err
}

// resume lets them go on, whoever has frozen them.
func (m *Manager) resume(ctx context.Context, id string) error {
	if err := setFrozen(ctx, groupPath(id), false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	u, err := m.o.Units.State(ctx, unitName(id))
	if err != nil || u.FreezerState == "running" {
		return err
	}
	return m.o.Units.Thaw(ctx, unitName(id))
}

// withPause is a unit's state with what systemd does not know of its freezing.
func withPause(id string, u units.State) units.State {
	if u.ActiveState == "active" && frozen(groupPath(id)) {
		u.FreezerState = "frozen"
	}
	return u
}

// setFrozen freezes or thaws a control group and returns when that is done
// (cgroups(7), "cgroup.freeze"). Errors: fs.ErrNotExist for no such group;
// context.DeadlineExceeded, and then nothing has changed.
func setFrozen(ctx context.Context, group string, freeze bool) error {
	ctx, cancel := context.WithTimeout(ctx, freezeTimeout)
	defer cancel()
	verb, value := "thaw", "0"
	if freeze {
		verb, value = "freeze", "1"
	}
	order := filepath.Join(group, "cgroup.freeze")
	if err := os.WriteFile(order, []byte(value), 0); err != nil {
		return fmt.Errorf("cannot %s the container: %w", verb, err)
	}
	for pause := 100 * time.Microsecond; frozen(group) != freeze; pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-ctx.Done():
			undo := os.WriteFile(order, []byte{'0' + '1' - value[0]}, 0)
			return fmt.Errorf("cannot %s the container: a process of it does not obey: %w", verb, errors.Join(context.Cause(ctx), undo))
		case <-time.After(pause):
		}
	}
	return nil
}

// frozen says whether all processes of a control group are frozen.
func frozen(group string) bool {
	events, err := os.ReadFile(filepath.Join(group, "cgroup.events"))
	return err == nil && bytes.Contains(events, []byte("frozen 1"))
}

// unfreezeToEnd lets a paused container go on that systemd is stopping, so that it can answer its stop signal.
func (m *Manager) unfreezeToEnd(ctx context.Context, c *Container, u units.State) {
	if u.ActiveState != "deactivating" || c.Status().State != container.StatePaused {
		return
	}
	if err := setFrozen(ctx, groupPath(c.id), false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.logger("stop").Warn("Cannot let the paused container go on, to end", "error", err)
	}
}
