package images

import (
	"os"
	"testing"

	"go.podman.io/storage/pkg/reexec"
	"go.uber.org/goleak"
)

// TestMain lets the storage run this binary again to unpack a layer in a root
// of its own, and looks for goroutines left behind.
func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Setenv("HOME", "/nonexistent") // nothing of it may be looked for
	goleak.VerifyTestMain(m)
}
