package units

import (
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

// tracker knows the last state of every watched unit and turns signals and listings into changes. It belongs to Manager.run alone.
//
// Signals and replies of one connection are in one order, and each carries its number in it (Sequence): that is how a listing that was asked for
// in the background is merged with signals that came before and after its replies.
type tracker struct {
	watches   []*Watch
	units     map[string]*tracked
	reloading bool // between the two Reloading signals of a daemon-reload
	behind    bool // announcements were missed, and resync has not come yet
}

type tracked struct {
	state State
	// seq is the number of the last signal about it on this connection; 0 if there was none.
	seq dbus.Sequence
	// told is what was last delivered; PID 1 announces a unit more often than anything in State changes. While haveTold is false, nothing was, and told is what
	// List read, if it did.
	told     State
	haveTold bool
}

func newTracker() *tracker { return &tracker{units: make(map[string]*tracked)} }

func (t *tracker) add(w *Watch) { t.watches = append(t.watches, w) }

func (t *tracker) remove(w *Watch) {
	t.watches = slices.DeleteFunc(t.watches, func(other *Watch) bool { return other == w })
	for name := range t.units {
		if !t.watched(name) {
			delete(t.units, name)
		}
	}
}

// closeAll ends all watches.
func (t *tracker) closeAll() {
	for _, w := range t.watches {
		w.end()
	}
	t.watches = nil
}

// connected begins a new connection, with numbers of its own; missed says that something may have happened since the one before.
func (t *tracker) connected(missed bool) {
	t.reloading, t.behind = false, missed
	for _, u := range t.units {
		u.seq = 0
	}
}

func (t *tracker) watched(name string) bool {
	return slices.ContainsFunc(t.watches, func(w *Watch) bool { return strings.HasPrefix(name, w.prefix) })
}

// patterns returns glob patterns for everything that is watched.
func (t *tracker) patterns() []string {
	var patterns []string
	for _, w := range t.watches {
		patterns = append(patterns, globEscape(w.prefix)+"*")
	}
	slices.Sort(patterns)
	return slices.Compact(patterns)
}

// globEscape makes a text match only itself in a pattern of fnmatch(3).
func globEscape(s string) string {
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(s)
}

// signal takes a signal in. It returns true if units have to be listed anew.
func (t *tracker) signal(sig *dbus.Signal) (resync bool) {
	switch sig.Name {
	case propsIface + ".PropertiesChanged":
		t.propertiesChanged(sig)
	case managerIface + ".UnitRemoved":
		t.unitRemoved(sig)
	case managerIface + ".Reloading":
		var active bool
		if dbus.Store(sig.Body, &active) != nil {
			return false
		}
		t.reloading, t.behind = active, true
		return !active
	}
	return false
}

func (t *tracker) propertiesChanged(sig *dbus.Signal) {
	name, ok := unitName(sig.Path)
	if !ok || !t.watched(name) || len(sig.Body) < 2 {
		return
	}
	iface, _ := sig.Body[0].(string)
	props, _ := sig.Body[1].(map[string]dbus.Variant)
	if iface != serviceIface && iface != unitIface {
		return
	}
	u := t.units[name]
	if u == nil {
		u = &tracked{state: State{Name: name}}
		t.units[name] = u
	}
	u.seq = sig.Sequence
	u.state.merge(props)
	// The service's properties come first and the unit's second, always both: with the second one the state is whole.
	if iface == unitIface {
		t.tell(u)
	}
}

func (t *tracker) unitRemoved(sig *dbus.Signal) {
	var name string
	var path dbus.ObjectPath
	// During a daemon-reload every unit is removed and made anew; the listing that follows knows which are really gone.
	if t.reloading || dbus.Store(sig.Body, &name, &path) != nil {
		return
	}
	if u := t.units[name]; u != nil {
		t.gone(u)
	}
}

// tell delivers a unit's state if it is news.
func (t *tracker) tell(u *tracked) {
	if u.haveTold && u.told == u.state || u.notStarted() {
		return
	}
	u.told, u.haveTold = u.state, true
	t.deliver(Change{State: u.state})
}

// notStarted reports whether the unit's state is one from before its start, which must not be taken for one after its end:
//
//   - a name that somebody merely mentioned (systemctl status of a unit that is gone) is announced as an inactive unit that never ran;
//   - the first announcement of a run has its InvocationID, and of most services its main process too, but still the ActiveState "inactive" of before.
func (u *tracked) notStarted() bool {
	s := &u.state
	if s.InvocationID == "" {
		return true
	}
	if s.ActiveState != "inactive" {
		return false
	}
	newRun := s.InvocationID != u.told.InvocationID
	return s.MainPID != 0 || newRun && (s.ExecMainExit.IsZero() || s.ExecMainExit.Equal(u.told.ExecMainExit))
}

// known is what was last delivered of a unit; false if it is not certain that nothing has happened since that was announced.
func (t *tracker) known(name string) (State, bool) {
	u := t.units[name]
	if u == nil || !u.haveTold || t.reloading || t.behind {
		return State{}, false
	}
	return u.told, true
}

// froze takes over what Freeze or Thaw achieved, if PID 1 has not announced it.
func (t *tracker) froze(name, state string) {
	if u := t.units[name]; u != nil && u.state.ActiveState != "inactive" && u.state.ActiveState != "failed" {
		u.state.FreezerState = state
		t.tell(u)
	}
}

// gone delivers the removal of a unit.
func (t *tracker) gone(u *tracked) {
	delete(t.units, u.state.Name)
	if u.state.InvocationID != "" {
		t.deliver(Change{State: u.state, Removed: true})
	}
}

func (t *tracker) deliver(c Change) {
	for _, w := range t.watches {
		if strings.HasPrefix(c.State.Name, w.prefix) {
			w.pending.put(c)
		}
	}
}

// baseline takes over what List read: of units that are new to the tracker everything, of known ones what signals do not tell.
// Nothing is delivered: the signals about the others are still to come.
func (t *tracker) baseline(l listing) {
	for name, read := range l.units {
		if !t.watched(name) {
			continue
		}
		if u := t.units[name]; u != nil {
			u.fill(read.State)
			continue
		}
		t.units[name] = &tracked{state: read.State, told: read.State}
	}
}

// resync compares a listing of everything that is watched with what is known, and delivers the differences and the Resync.
func (t *tracker) resync(l listing) {
	t.behind = false
	for name, read := range l.units {
		u := t.units[name]
		switch {
		case !t.watched(name):
		case u == nil:
			u = &tracked{state: read.State}
			t.units[name] = u
			t.tell(u)
		case u.seq > read.seq: // a signal came after it was read
			u.fill(read.State)
		case u.haveTold || u.state != read.State:
			// Also if only half of an announcement came, and the state is thus known but not told.
			u.state = read.State
			t.tell(u)
		}
	}
	for name, u := range t.units {
		if _, ok := l.units[name]; !ok && u.seq < l.seq {
			t.gone(u)
		}
	}
	for _, w := range t.watches {
		w.pending.put(Change{Resync: true})
	}
}

// fill takes over what signals do not tell.
func (u *tracked) fill(read State) {
	u.state.LoadState, u.state.Description, u.state.ControlGroup = read.LoadState, read.Description, read.ControlGroup
	if u.haveTold {
		u.told.LoadState, u.told.Description, u.told.ControlGroup = read.LoadState, read.Description, read.ControlGroup
	}
}
