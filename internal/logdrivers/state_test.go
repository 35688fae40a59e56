package logdrivers

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"

	"lrd/internal/logopts"
	"lrd/internal/output"
)

// FuzzState: whatever is in a state file, it is read without harm, and what was read can be saved and read again.
func FuzzState(f *testing.F) {
	path := filepath.Join(f.TempDir(), "state")
	sf, _, err := openState(path)
	assert.NilError(f, err)
	for n := range 2 {
		st := state{Version: stateVersion, Driver: "json-file", Position: output.Position{Record: int64(n), Offset: 3}, Ordinal: 7}
		st.Streams[n].held = []byte("begun")
		assert.NilError(f, sf.save(&st))
	}
	assert.NilError(f, sf.close())
	data, err := os.ReadFile(path)
	assert.NilError(f, err)
	f.Add(data)
	f.Add(data[:slotSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "state")
		assert.NilError(t, os.WriteFile(path, data, 0o600))
		sf, st, err := openState(path)
		if err != nil {
			return // of a later version
		}
		st.Ordinal++
		assert.NilError(t, sf.save(&st))
		assert.NilError(t, sf.close())
		again, err := readState(path)
		assert.NilError(t, err)
		assert.DeepEqual(t, again.Position, st.Position)
		assert.Equal(t, again.Ordinal, st.Ordinal)
		for i := range st.Streams {
			assert.Equal(t, string(again.Streams[i].held), string(st.Streams[i].held))
		}
	})
}

// TestStoppedBeforeAsked: a forwarder that is stopped before it has found out how far a killed one had come leaves that to the next.
func TestStoppedBeforeAsked(t *testing.T) {
	c := newContainer(t, logopts.Journald, nil)
	startJournal(t, c.dir)
	c.start()
	c.write("one\n")
	assert.NilError(t, c.f.Wait(t.Context()))
	name := filepath.Join(c.dir, stateName)
	killed, err := os.ReadFile(name)
	assert.NilError(t, err)
	c.f.Stop()
	assert.NilError(t, os.WriteFile(name, killed, 0o600))

	asked := make(chan struct{})
	c.drivers.journal.last = func(ctx context.Context, _, _ string) (int64, bool, error) {
		close(asked)
		<-ctx.Done()
		return 0, false, context.Cause(ctx)
	}
	c.start()
	c.write("two\n")
	<-asked
	c.f.Stop()
	st, err := readState(name)
	assert.NilError(t, err)
	assert.Assert(t, st.Sending)
}
