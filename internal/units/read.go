package units

import (
	"context"
	"errors"
	"fmt"

	"github.com/godbus/dbus/v5"
)

// State reads the state of a unit, all of one moment. The error wraps [ErrNotLoaded] if PID 1 does not know it.
func (m *Manager) State(ctx context.Context, name string) (State, error) {
	var s State
	err := m.repeat(ctx, func(l *link) error {
		// GetUnit finds only what is loaded, while a read by path would load an empty unit and make PID 1 announce it to every watch.
		var path dbus.ObjectPath
		if _, err := l.call(ctx, []any{&path}, managerPath, managerIface+".GetUnit", name); err != nil {
			return err
		}
		var err error
		s, _, err = readAll(ctx, l, name)
		return err
	})
	if err == nil && !s.loaded() {
		err = ErrNotLoaded
	}
	if err != nil {
		return State{}, fmt.Errorf("cannot read the state of unit %s: %w", name, err)
	}
	return s, nil
}

// readAll reads everything about a unit in one call. (An empty interface name stands for all interfaces.)
func readAll(ctx context.Context, l *link, name string) (State, dbus.Sequence, error) {
	var props map[string]dbus.Variant
	seq, err := l.call(ctx, []any{&props}, unitPath(name), propsIface+".GetAll", "")
	s := State{Name: name}
	s.merge(props)
	return s, seq, err
}

// ServiceProperty reads one property of a service: of its Service interface, or of its Unit interface if the former has none of that name. A unit
// that is not loaded gets loaded.
func (m *Manager) ServiceProperty(ctx context.Context, unit, property string) (dbus.Variant, error) {
	var v dbus.Variant
	err := m.repeat(ctx, func(l *link) error {
		_, err := l.call(ctx, []any{&v}, unitPath(unit), propsIface+".Get", serviceIface, property)
		if isDBusError(err, "org.freedesktop.DBus.Error.UnknownProperty") {
			_, err = l.call(ctx, []any{&v}, unitPath(unit), propsIface+".Get", unitIface, property)
		}
		return err
	})
	if err != nil {
		return dbus.Variant{}, fmt.Errorf("cannot read property %s of unit %s: %w", property, unit, err)
	}
	return v, nil
}

// List reads the state of all loaded units whose name matches a glob pattern ("lrd-*.service"), by name.
func (m *Manager) List(ctx context.Context, pattern string) (map[string]State, error) {
	var result listing
	err := m.repeat(ctx, func(l *link) error {
		result = m.list(ctx, l, []string{pattern})
		return result.err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list units %s: %w", pattern, err)
	}
	states := make(map[string]State, len(result.units))
	for name, u := range result.units {
		states[name] = u.State
	}
	// It is what watches compare with after a lost connection.
	m.do(func(t *tracker) { t.baseline(result) })
	return states, nil
}

// listing is what a list of units said.
type listing struct {
	seq   dbus.Sequence // of the list itself: what is not in units did not exist then
	units map[string]listedUnit
	err   error
}

type listedUnit struct {
	State
	seq dbus.Sequence // of the reading of this unit
}

// listEntry is an element of ListUnitsByPatterns' reply.
type listEntry struct {
	Name, Description, LoadState, ActiveState, SubState, Followed string
	Path                                                          dbus.ObjectPath
	JobID                                                         uint32
	JobType                                                       string
	JobPath                                                       dbus.ObjectPath
}

// list reads all units that match one of the patterns. Two round trips: the list, then all reads at once.
func (m *Manager) list(ctx context.Context, l *link, patterns []string) listing {
	result := listing{units: make(map[string]listedUnit)}
	if len(patterns) == 0 {
		return result
	}
	var entries []listEntry
	result.seq, result.err = l.call(ctx, []any{&entries}, managerPath, managerIface+".ListUnitsByPatterns", []string{}, patterns)
	if result.err != nil {
		return result
	}
	calls := make([]*dbus.Call, len(entries))
	for i, e := range entries {
		calls[i] = l.begin(ctx, e.Path, propsIface+".GetAll", "")
	}
	for i, e := range entries {
		call := <-calls[i].Done
		if err := replyError(ctx, call.Err); err != nil {
			if errors.Is(err, ErrNotLoaded) || isDBusError(err, "org.freedesktop.DBus.Error.UnknownObject") {
				continue // gone since
			}
			result.err = err
			continue // all calls must be waited for
		}
		s := State{Name: e.Name}
		var props map[string]dbus.Variant
		if err := dbus.Store(call.Body, &props); err != nil {
			result.err = err
			continue
		}
		s.merge(props)
		if s.loaded() {
			result.units[e.Name] = listedUnit{s, call.ResponseSequence}
		}
	}
	return result
}
