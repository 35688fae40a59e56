package containers

import (
	"context"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// TestOOMWatch hears of files that change, of each under the name it was last watched by, and of none that nobody watches any more.
func TestOOMWatch(t *testing.T) {
	w, err := newOOMWatch()
	assert.NilError(t, err)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	change := func(name string) { assert.NilError(t, os.WriteFile(file(name), []byte("oom_kill 1\n"), 0o600)) }
	for _, name := range []string{"a", "b", "c", "end"} {
		change(name)
		assert.NilError(t, w.add(name, file(name)))
	}
	assert.ErrorIs(t, w.add("d", file("d")), fs.ErrNotExist)
	assert.NilError(t, w.add("c", file("b"))) // one file, two names: the later has it
	w.remove("a")
	w.remove("a")
	w.remove("nobody")

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	heard := make(chan string, 100)
	go func() { ended <- w.follow(ctx, func(id string) { heard <- id }) }()
	change("a")
	change("c")
	change("b")
	assert.Equal(t, <-heard, "c")
	change("end")
	for id := range heard {
		if id == "end" {
			break
		}
		assert.Equal(t, id, "c")
	}
	cancel()
	assert.NilError(t, <-ended)
	assert.NilError(t, w.close())
	w.remove("b")
	assert.Check(t, w.add("a", file("a")) == nil, "nothing to hear from is no error")
}

// TestOOMWatchOverflow looks at all when the kernel had more to say than it could keep.
func TestOOMWatchOverflow(t *testing.T) {
	w := &oomWatch{ids: map[int]string{1: "a", 2: "b"}, wds: map[string]int{"a": 1, "b": 2}}
	event := func(wd int32, mask uint32) []byte {
		var b []byte
		for _, v := range []uint32{uint32(wd), mask, 0, 0} {
			b = binary.NativeEndian.AppendUint32(b, v)
		}
		return b
	}
	assert.Check(t, is.DeepEqual(w.heard(event(-1, unix.IN_Q_OVERFLOW)), map[string]bool{"a": true, "b": true}))
	assert.Check(t, is.DeepEqual(w.heard(append(event(2, unix.IN_IGNORED), event(1, unix.IN_MODIFY)...)), map[string]bool{"a": true}))
	assert.Check(t, is.DeepEqual(w.heard(event(3, unix.IN_MODIFY)), map[string]bool{}))
	assert.Check(t, is.DeepEqual(w.heard([]byte{1, 2, 3}), map[string]bool{}))
}
