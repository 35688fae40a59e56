package thread

import (
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

func TestAlone(t *testing.T) {
	failed := errors.New("failed")
	seen := map[int]bool{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			var tid int
			err := Alone(func() error { tid = unix.Gettid(); return failed })
			assert.Check(t, errors.Is(err, failed))
			assert.Check(t, tid != os.Getpid(), "the first thread never ends")
			mu.Lock()
			defer mu.Unlock()
			seen[tid] = true
		})
	}
	all.Wait()
	assert.Check(t, !seen[os.Getpid()])
}

// TestNamespacesEndWithTheThread: whatever is done to it, no other goroutine ever runs on such a thread.
func TestNamespacesEndWithTheThread(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: needs root, to make namespaces")
	}
	name := func() string {
		n, err := os.Readlink("/proc/thread-self/ns/uts")
		assert.Check(t, err)
		return n
	}
	var before string
	assert.NilError(t, Alone(func() error { before = name(); return nil }))
	for range 20 {
		assert.NilError(t, Alone(func() error { return unix.Unshare(unix.CLONE_NEWUTS) }))
		assert.Equal(t, name(), before)
	}
}
