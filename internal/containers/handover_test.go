package containers

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/handover"
	"lrd/internal/output"
)

// standby holds what it is passed, and does nothing with it.
type standby struct {
	files map[string]*os.File
	logs  map[string]handover.Log
}

// stopAndStart is `systemctl stop lrd` and, later, `systemctl start lrd`, with a systemd that empties the store meanwhile.
func (w *world) stopAndStart(meanwhile func(s standby)) {
	w.t.Helper()
	s := standby{map[string]*os.File{}, map[string]handover.Log{}}
	m := w.m
	w.stopRun()
	assert.NilError(w.t, m.HandOver(func(h handover.Holding, leave func(func(string))) error {
		for _, f := range h.Files {
			own, err := duplicate(f.File)
			assert.NilError(w.t, err)
			s.files[f.Name] = own
		}
		for _, l := range h.Logs {
			s.logs[l.ID] = l
			_, err := output.Open(l.Dir, output.Options{})
			assert.Check(w.t, is.ErrorIs(err, output.ErrBusy), "somebody drains until it is passed")
		}
		leave(func(id string) {
			log, err := output.Open(s.logs[id].Dir, s.logs[id].Options)
			assert.Check(w.t, err, "it is not released")
			assert.Check(w.t, log.Close())
		})
		return nil
	}))
	assert.NilError(w.t, w.store.Remove(w.t.Context(), w.store.names()...))
	meanwhile(s)
	for len(w.units.changes) > 0 {
		<-w.units.changes
	}
	for name, f := range s.files {
		assert.NilError(w.t, w.store.Replace(w.t.Context(), name, f))
		assert.NilError(w.t, f.Close())
	}
	w.boot()
}

func TestHandOver(t *testing.T) {
	w := newWorld(t, 252)
	console, plain, input, stopped := w.started(withTTY), w.started(), w.started(withStdin), w.create()
	kept := w.store.names()
	w.stopAndStart(func(s standby) {
		assert.Check(t, is.DeepEqual(slices.Sorted(maps.Keys(s.files)), kept))
		assert.Check(t, is.Len(s.logs, 3))
		assert.NilError(t, w.units.print(console, "seen\n"))
		assert.NilError(t, w.units.print(plain, "heard\n"))
	})
	assert.Check(t, is.DeepEqual(w.store.names(), kept))
	for _, id := range []string{console, plain, input} {
		assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
		assert.Check(t, is.Equal(w.status(id).Reason, ""))
	}
	assert.Check(t, is.Equal(w.status(stopped).State, container.StateCreated))
	assert.NilError(t, w.units.print(console, "again\n"))
	for id, want := range map[string]string{console: "seen\r\nagain\r\n", plain: "heard\n"} {
		eventually(t, want, func() bool { return w.logs(id) == want })
	}
	for _, id := range []string{console, plain, input} {
		w.units.exit(id, 0)
		eventually(t, "it is put away", func() bool { return w.record(id).Run == nil })
	}
	w.isPutAway(console) // and all others
}

// Who ends while lrd is stopped is not deprived of its last words.
func TestHandOverLastWords(t *testing.T) {
	w := newWorld(t, 252)
	console, plain := w.started(withTTY), w.started()
	w.stopAndStart(func(standby) {
		for _, id := range []string{console, plain} {
			assert.NilError(t, w.units.print(id, "bye\n"))
			w.units.exit(id, 3)
		}
	})
	for id, want := range map[string]string{console: "bye\r\n", plain: "bye\n"} {
		eventually(t, "it is put away", func() bool { return w.record(id).Run == nil })
		assert.Check(t, is.Equal(w.logs(id), want))
	}
}

// Whatever becomes of the passing, the daemon leaves; the next one shows what was lost.
func TestHandOverFails(t *testing.T) {
	w := newWorld(t, 252)
	console, plain := w.started(withTTY), w.started()
	m := w.m
	w.stopRun()
	nobody := errors.New("nobody is there")
	err := m.HandOver(func(handover.Holding, func(func(string))) error { return nobody })
	assert.ErrorIs(t, err, nobody)
	log, err := output.Open(m.outputDir(plain), output.Options{})
	assert.NilError(t, err)
	assert.NilError(t, log.Close())
	assert.NilError(t, w.store.Remove(t.Context(), w.store.names()...))
	w.boot()
	assert.Check(t, is.Equal(w.status(plain).Reason, ""))
	assert.Check(t, strings.Contains(w.status(console).Reason, "disconnected"))
}
