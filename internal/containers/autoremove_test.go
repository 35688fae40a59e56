package containers

import (
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
)

// TestAutoRemoveWaitsForReaders: for one that is attached as long as it takes, for one that follows the logs a while.
func TestAutoRemoveWaitsForReaders(t *testing.T) {
	defer func(d time.Duration) { followerGrace = d }(followerGrace)
	reading := func(w *world, id string, attached bool) func() {
		done, err := w.m.Reading(id, attached)
		assert.NilError(t, err)
		return done
	}
	t.Run("served", func(t *testing.T) {
		followerGrace = time.Hour
		w := newWorld(t, 257)
		id := w.started(withAutoRemove)
		attached, follows := reading(w, id, true), reading(w, id, false)
		w.units.exit(id, 0)
		w.becomes(id, container.StateExited)
		attached()
		attached() // may be called again
		w.isPutAway(id)
		assert.Assert(t, w.m.get(id) != nil, "it did not wait for who follows its logs")
		follows()
		w.isGone(id)
	})
	t.Run("not served", func(t *testing.T) {
		followerGrace = time.Millisecond
		w := newWorld(t, 257)
		id := w.started(withAutoRemove)
		attached, follows := reading(w, id, true), reading(w, id, false)
		w.units.exit(id, 0)
		w.isPutAway(id)
		time.Sleep(20 * followerGrace)
		assert.Assert(t, w.m.get(id) != nil, "it did not wait for who is attached")
		attached()
		w.isGone(id)
		follows()
	})
	t.Run("restarted", func(t *testing.T) {
		followerGrace = time.Hour
		w := newWorld(t, 257)
		id := w.started(withAutoRemove)
		reading(w, id, true)
		var done func()
		w.known = func() { done = reading(w, id, true) }
		w.restart(func() { w.units.exit(id, 0) })
		w.isPutAway(id)
		w.restart(nil)
		assert.Assert(t, w.m.get(id) != nil, "its reader is still at it")
		done()
		w.isGone(id)
	})
}
