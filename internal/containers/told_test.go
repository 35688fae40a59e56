package containers

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// killedAt does something, and kills the daemon in the moment in which it tells of action: what the file had then is
// what the next daemon finds. before says whether it had been told already.
func (w *world) killedAt(action events.Action, before bool, file string, do func()) {
	w.t.Helper()
	var kept []byte
	var info os.FileInfo
	told := make(chan struct{})
	w.events.mu.Lock()
	w.events.on = func(m events.Message) {
		if m.Action != action || kept != nil {
			return
		}
		var err error
		kept, err = os.ReadFile(file)
		assert.Check(w.t, err)
		info, err = os.Stat(file)
		assert.Check(w.t, err)
		w.m.cancel() // nothing is put away after this
		close(told)
	}
	w.events.mu.Unlock()
	do()
	<-told
	w.restart(func() {
		w.events.mu.Lock()
		defer w.events.mu.Unlock()
		w.events.on = nil
		assert.NilError(w.t, os.MkdirAll(filepath.Dir(file), 0o700))
		assert.NilError(w.t, os.WriteFile(file, kept, 0o600))
		assert.NilError(w.t, os.Chtimes(file, info.ModTime(), info.ModTime()))
		if before {
			last := len(w.events.all) - 1
			assert.Equal(w.t, w.events.all[last].Action, action)
			w.events.all = w.events.all[:last]
		}
	})
}

// TestToldOnce: a daemon that is killed while it tells what has happened leaves nothing untold, and nothing told twice.
func TestToldOnce(t *testing.T) {
	for name, before := range map[string]bool{"before": true, "after": false} {
		t.Run("start "+name, func(t *testing.T) {
			w := newWorld(t, 257)
			id := w.create()
			w.killedAt(events.ActionStart, before, w.m.records.path(id), func() { assert.NilError(t, w.m.Start(t.Context(), id)) })
			w.becomes(id, container.StateRunning)
			w.heardOf(id, events.ActionCreate, events.ActionStart)
		})
		t.Run("die "+name, func(t *testing.T) {
			w := newWorld(t, 257)
			id := w.started()
			w.killedAt(events.ActionDie, before, w.m.records.path(id), func() { w.units.exit(id, 3) })
			w.isPutAway(id)
			assert.Check(t, is.Equal(w.status(id).ExitCode, 3))
			w.heardOf(id, events.ActionCreate, events.ActionStart, events.ActionDie)
		})
		t.Run("destroy "+name, func(t *testing.T) {
			w := newWorld(t, 257)
			id := w.create(withName("web"))
			w.killedAt(events.ActionDestroy, before, w.m.dataDir(id)+removedSuffix+"/record.json", func() {
				assert.NilError(t, w.m.Remove(t.Context(), id, RemoveOptions{}))
			})
			w.isGone(id)
			w.heardOf(id, events.ActionCreate, events.ActionDestroy)
		})
		t.Run("exec_start "+name, func(t *testing.T) {
			w := newWorld(t, 257)
			id := w.started()
			e := w.exec(id, container.ExecCreateRequest{})
			w.killedAt("exec_start: cmd arg", before, w.m.execDir(e)+"/"+execFile, func() {
				_, err := w.m.ExecStart(t.Context(), e, ExecStartOptions{Detach: true})
				assert.NilError(t, err)
			})
			w.units.exitUnit(execUnit(e), 7)
			w.endedWith(e, 7)
			w.heardOf(id, events.ActionCreate, events.ActionStart, "exec_create: cmd arg", "exec_start: cmd arg", events.ActionExecDie)
		})
		t.Run("exec_die "+name, func(t *testing.T) {
			w := newWorld(t, 257)
			id := w.started()
			e := w.exec(id, container.ExecCreateRequest{})
			_, err := w.m.ExecStart(t.Context(), e, ExecStartOptions{Detach: true})
			assert.NilError(t, err)
			w.killedAt(events.ActionExecDie, before, w.m.execDir(e)+"/"+execFile, func() { w.units.exitUnit(execUnit(e), 7) })
			w.endedWith(e, 7)
			w.heardOf(id, events.ActionCreate, events.ActionStart, "exec_create: cmd arg", "exec_start: cmd arg", events.ActionExecDie)
		})
	}
}
