package images

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"go.podman.io/storage/pkg/reexec"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// TestMain lets the storage run this binary again to unpack a layer in a root
// of its own, and looks for goroutines left behind.
func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Setenv("HOME", "/nonexistent") // nothing of it may be looked for
	// Nothing here is to survive a loss of power, and files in memory need no fsync.
	if mem := "/dev/shm"; os.Getenv("TMPDIR") == "" && unix.Access(mem, unix.W_OK) == nil {
		os.Setenv("TMPDIR", mem)
	}
	// A program with the race detector sleeps for a second before it exits, and each layer is unpacked by one.
	os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	if os.Getenv(workerEnv) != "" {
		if err := work(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The compressor of a push that is cut off in the middle of a layer leaves one goroutine behind, which waits for nothing.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/klauspost/pgzip.(*Writer).Write.func1"))
}
