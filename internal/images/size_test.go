package images

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// TestTreeSizeStaysInside: a container that swaps a directory for a link while it is measured has nothing else measured.
func TestTreeSizeStaysInside(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	const large = 1 << 40
	assert.NilError(t, os.WriteFile(filepath.Join(outside, "file"), nil, 0o600))
	assert.NilError(t, os.Truncate(filepath.Join(outside, "file"), large))
	place, other := filepath.Join(dir, "a", "b"), filepath.Join(dir, "link")
	assert.NilError(t, os.MkdirAll(place, 0o700))
	assert.NilError(t, os.WriteFile(filepath.Join(place, "file"), make([]byte, 10), 0o600))
	assert.NilError(t, os.Symlink(outside, other))
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, place, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 2000 {
		total, err := treeSize(t.Context(), dir)
		assert.NilError(t, err)
		assert.Assert(t, total < large, "%d", total)
	}
	close(stop)
	assert.NilError(t, <-done)
	_, err := treeSize(t.Context(), filepath.Join(dir, "nothing"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}
