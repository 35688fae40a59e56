package sessions

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"

	"lrd/internal/output"
)

// TestStandIn: a session passes from a process to one that stands in for it, and back. What the client types is passed
// on meanwhile; that it has ended its input, and is gone, is for the last process to find.
func TestStandIn(t *testing.T) {
	server, client := pair(t)
	nc, err := net.FileConn(server)
	assert.NilError(t, err)
	conn, err := NewConn(nc, []byte("early "))
	assert.NilError(t, err)
	dir, store, c := t.TempDir(), &fakeStore{}, newContainer()
	streams := Streams{Output: c, Stdout: true, Stdin: c, StdinOnce: true, Done: c.done}
	passed := &fakeStore{}
	first := New(Options{Dir: dir, Descriptors: store, Frozen: func(name string, f *os.File) {
		assert.Check(t, passed.Put(t.Context(), name, f))
		assert.Check(t, f.Close())
	}})
	d := Description{Kind: "attach", Follows: streams.Follow("the container", nil)}
	assert.DeepEqual(t, d.Follows, &Follows{Log: "the container", Raw: true, Stdin: true, Stdout: true, StdinOnce: true})
	assert.NilError(t, first.Freeze(t.Context()))
	end, err := first.Serve(t.Context(), conn, d, []byte("HEAD\n"), streams)
	assert.NilError(t, err)
	assert.Equal(t, end, EndFrozen)
	assert.DeepEqual(t, passed.Names(), store.Names())
	id, _ := os.ReadDir(dir)
	assert.Equal(t, len(id), 1)
	still := func(when string) {
		t.Helper()
		assert.Equal(t, len(passed.Names()), 1, when)
		_, err := os.Stat(filepath.Join(dir, id[0].Name()))
		assert.NilError(t, err, when)
	}

	inputEnded := func() bool { _, ended := c.input(); return ended }

	knowsNothing := New(Options{Dir: dir, Descriptors: passed})
	knowsNothing.Restore(passed, func(context.Context, Description, Cursor) (Streams, func(), error) { return Streams{}, nil, ErrNotNow })
	assert.Equal(t, knowsNothing.Count(), 0)
	still("nobody can go on with it")

	standIn := New(Options{Dir: dir, Descriptors: passed})
	standIn.Restore(passed, func(_ context.Context, d Description, _ Cursor) (Streams, func(), error) {
		s := d.Follows.Streams()
		s.Output, s.Stdin, s.StandIn = c, c, true
		return s, func() { t.Error("it is over") }, nil
	})
	_, err = io.WriteString(client, "late")
	assert.NilError(t, err)
	c.says(output.Stdout, "output")
	got := make([]byte, len("HEAD\noutput"))
	_, err = io.ReadFull(client, got)
	assert.NilError(t, err)
	assert.Equal(t, string(got), "HEAD\noutput")
	eventually(t, "input is passed on", func() bool { text, _ := c.input(); return text == "early late" })
	assert.NilError(t, client.CloseWrite())
	assert.NilError(t, client.Close())
	eventually(t, "it stops with the client", func() bool { return standIn.Count() == 0 })
	still("the client is gone")
	assert.Assert(t, !inputEnded())

	last := New(Options{Dir: dir, Descriptors: passed})
	last.Restore(passed, func(context.Context, Description, Cursor) (Streams, func(), error) {
		return streams, func() {}, nil
	})
	eventually(t, "the input ends", inputEnded)
	eventually(t, "it is put away", func() bool { return last.Count() == 0 })
	assert.Equal(t, len(passed.Names()), 0)

	// What the first one's store has of it, it forgets.
	again := New(Options{Dir: dir, Descriptors: store})
	again.Restore(store, nil)
	assert.Equal(t, len(store.Names()), 0)
	for _, m := range []*Manager{knowsNothing, standIn, last, again} {
		assert.NilError(t, m.Freeze(t.Context()))
	}
}
