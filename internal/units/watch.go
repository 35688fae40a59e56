package units

import "sync"

// Change is what became of a unit.
//
// A service with Restart= that exits passes through ActiveState "failed" (or "inactive") and then through "activating" with SubState "auto-restart", each being a
// Change, a moment apart. From systemd 254 on the SubState of the former says so ("failed-before-auto-restart"); before, it looks like an
// end for good. Every start has an InvocationID of its own, and NRestarts counts.
//
// With Resync set, it is about no unit: everything that was missed during a loss of connection or a daemon-reload has been
// delivered before it.
type Change struct {
	// State is what is known of the unit now, at the latest what PID 1 announced last. LoadState, Description and ControlGroup are not part of
	// announcements: they are as they were last read by List, and empty for a unit that is new since.
	State State
	// Removed says that the unit is not loaded any more; State is its last. If that was missed while there was no connection, State may be
	// one from before the unit's end.
	Removed bool
	Resync  bool
}

// Watch is a subscription to changes of units.
type Watch struct {
	// C delivers the changes in order. It is closed after Close of the Watch or of the Manager.
	C <-chan Change

	m       *Manager
	prefix  string
	pending *queue[Change]
	stop    sync.Once
	stopped chan struct{} // tells pump to end
	ended   chan struct{} // closed when pump has ended
}

// Watch subscribes to changes of all units whose name begins with prefix ("lrd-"). Every announcement that PID 1 makes after Watch has returned is
// delivered. What C's reader has not read yet is kept without bound. Close the Watch when done.
func (m *Manager) Watch(prefix string) *Watch {
	c := make(chan Change)
	w := &Watch{
		C: c, m: m, prefix: prefix,
		pending: newQueue[Change](),
		stopped: make(chan struct{}),
		ended:   make(chan struct{}),
	}
	go w.pump(c)
	m.heard.add(prefix)
	if !m.do(func(t *tracker) { t.add(w) }) {
		w.end()
	}
	return w
}

// Close ends the subscription and closes C; what has not been read is dropped.
func (w *Watch) Close() {
	w.m.do(func(t *tracker) { t.remove(w) })
	w.end()
}

// end stops pump and waits for it.
func (w *Watch) end() {
	w.stop.Do(func() { close(w.stopped) })
	<-w.ended
}

// pump moves changes from the queue to C.
func (w *Watch) pump(c chan<- Change) {
	defer close(w.ended)
	defer close(c)
	for {
		select {
		case <-w.stopped:
			return
		case <-w.pending.ready:
		}
		for _, change := range w.pending.take() {
			select {
			case c <- change:
			case <-w.stopped:
				return
			}
		}
	}
}
