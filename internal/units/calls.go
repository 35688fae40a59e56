package units

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// Who says which processes of a unit a signal is for.
type Who string

const (
	KillMain Who = "main" // the main process
	KillAll  Who = "all"  // every process in the unit's control group and below
)

// Start makes a transient unit and starts it (StartTransientUnit with mode "fail"); it returns when the job has ended: for Type=forking and Type=notify that is when the
// service is up. The error wraps a *[JobError] if the job ended otherwise than "done"; the unit may still be loaded then, and its State says why. A unit of that name that is still
// loaded, be it dead or failed, is an error of kind errdefs.ErrAlreadyExists: see ResetFailed. If ctx ends, the job goes on.
func (m *Manager) Start(ctx context.Context, name string, props []Property) error {
	err := checkProperties(props)
	if err == nil {
		err = m.runJob(ctx, name, goalStart, managerIface+".StartTransientUnit", name, "fail", props, []systemd.PropertyCollection{})
	}
	if err != nil {
		return fmt.Errorf("cannot start unit %s: %w", name, err)
	}
	return nil
}

// Stop stops a unit and returns when that is done; a unit that is not loaded is stopped already. The error wraps a *[JobError] if the job ended otherwise than "done". If ctx
// ends, the job goes on.
func (m *Manager) Stop(ctx context.Context, name string) error {
	err := m.runJob(ctx, name, goalStop, managerIface+".StopUnit", name, "replace")
	if err != nil && !errors.Is(err, ErrNotLoaded) {
		return fmt.Errorf("cannot stop unit %s: %w", name, err)
	}
	return nil
}

// ResetFailed makes PID 1 forget that a unit failed; a transient one is thereby unloaded (a moment later). A unit that is not loaded, or not failed, is fine.
func (m *Manager) ResetFailed(ctx context.Context, name string) error {
	err := m.repeat(ctx, func(l *link) error {
		// By way of GetUnit: ResetFailedUnit would load a unit that is not there.
		var path dbus.ObjectPath
		if _, err := l.call(ctx, []any{&path}, managerPath, managerIface+".GetUnit", name); err != nil {
			return err
		}
		_, err := l.call(ctx, nil, managerPath, managerIface+".ResetFailedUnit", name)
		return err
	})
	if err != nil && !errors.Is(err, ErrNotLoaded) {
		return fmt.Errorf("cannot reset failed unit %s: %w", name, err)
	}
	return nil
}

// Kill sends a signal to processes of a unit. It is an error of kind errdefs.ErrFailedPrecondition if KillMain finds no main process, and one that wraps
// [ErrNotLoaded] if there is no such unit. It is not repeated when the connection is lost: see the package comment.
func (m *Manager) Kill(ctx context.Context, name string, who Who, sig syscall.Signal) error {
	l, err := m.current(ctx)
	if err == nil {
		_, err = l.call(ctx, nil, managerPath, managerIface+".KillUnit", name, string(who), int32(sig))
	}
	if err != nil {
		return fmt.Errorf("cannot send signal %d to unit %s: %w", int(sig), name, err)
	}
	return nil
}

// freezeTimeout is how long the kernel may take to freeze or thaw the processes of a unit; it is a matter of milliseconds, unless one of them is in a
// state that cannot be interrupted.
const freezeTimeout = 10 * time.Second

// freezeAgain is how long a unit that is said to be frozen may take to look so, before it is asked for again.
const freezeAgain = 64 * time.Millisecond

// Freeze suspends all processes of a unit and returns when they are. Errors: [ErrNotLoaded]; errdefs.ErrFailedPrecondition if it is not active;
// errdefs.ErrConflict if a job of it is pending; errdefs.ErrNotImplemented without cgroup v2's freezer; context.DeadlineExceeded if it takes more than
// ten seconds.
func (m *Manager) Freeze(ctx context.Context, name string) error {
	return m.freezer(ctx, "freeze", "FreezeUnit", "frozen", name)
}

// Thaw is the opposite of Freeze; a unit that is not frozen is fine.
func (m *Manager) Thaw(ctx context.Context, name string) error {
	return m.freezer(ctx, "thaw", "ThawUnit", "running", name)
}

// freezer calls a method, waits until the unit's freezer is in the wanted state, and tells the watches. Systemd 252 needs that: it does not announce
// the change, and it may answer too early. Any event of the control group that it handles between its order to the kernel and the kernel's having obeyed
// counts as the end of the operation; FreezerState may then stay "running" for good, with everything frozen, until it is asked again. That was seen
// with units that are frozen right after their start, about once in fifteen times.
func (m *Manager) freezer(ctx context.Context, verb, method, wanted, name string) error {
	ctx, cancel := context.WithTimeout(ctx, freezeTimeout)
	defer cancel()
	var s State
	// late says what is known when the time is over, whatever was being asked just then.
	late := func(err error) error {
		if s.FreezerState == "" || ctx.Err() == nil {
			return err
		}
		return fmt.Errorf("cannot %s unit %s: it is %s: %w", verb, name, s.FreezerState, context.Cause(ctx))
	}
	for pause := time.Millisecond; ; pause = min(2*pause, freezeAgain) {
		if pause == time.Millisecond || pause == freezeAgain {
			if err := m.simple(ctx, verb, name, method, name); err != nil {
				return late(err)
			}
		}
		now, err := m.State(ctx, name)
		if err != nil {
			return late(fmt.Errorf("cannot %s unit %s: %w", verb, name, err))
		}
		s = now
		// "frozen-by-parent" (since 256): its slice is frozen, and nothing about that can be changed here.
		if s.FreezerState == wanted || s.FreezerState == "frozen-by-parent" {
			m.do(func(t *tracker) { t.froze(name, s.FreezerState) })
			return nil
		}
		if err := sleep(ctx, pause); err != nil {
			return late(fmt.Errorf("cannot %s unit %s: %w", verb, name, err))
		}
	}
}

// SetProperties changes properties of a loaded unit until the next boot (systemctl set-property --runtime).
func (m *Manager) SetProperties(ctx context.Context, name string, props []Property) error {
	if err := checkProperties(props); err != nil {
		return fmt.Errorf("cannot change properties of unit %s: %w", name, err)
	}
	return m.simple(ctx, "change properties of", name, "SetUnitProperties", name, true, props)
}

// ReloadUnits makes PID 1 read all unit files again, drop-ins too (systemctl daemon-reload), and returns when it has.
func (m *Manager) ReloadUnits(ctx context.Context) error {
	err := m.repeat(ctx, func(l *link) error {
		_, err := l.call(ctx, nil, managerPath, managerIface+".Reload")
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot make systemd reload its units: %w", err)
	}
	return nil
}

// simple calls a method of PID 1 that may be repeated and returns nothing.
func (m *Manager) simple(ctx context.Context, verb, unit, method string, args ...any) error {
	err := m.repeat(ctx, func(l *link) error {
		_, err := l.call(ctx, nil, managerPath, managerIface+"."+method, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot %s unit %s: %w", verb, unit, err)
	}
	return nil
}

// repeat calls f with the connection, and again with the next one for as long as it ends under f.
func (m *Manager) repeat(ctx context.Context, f func(*link) error) error {
	for {
		l, err := m.current(ctx)
		if err != nil {
			return err
		}
		if err := f(l); !replyLost(err) {
			return err
		}
	}
}

func replyLost(err error) bool { return errors.Is(err, errLost) }
