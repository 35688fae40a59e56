package logdrivers

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be the daemon that is killed (kill_test.go).
func TestMain(m *testing.M) {
	if driver := os.Getenv("LRD_LOGDRIVERS_TEST_DRIVER"); driver != "" {
		os.Exit(child(driver, os.Getenv("LRD_LOGDRIVERS_TEST_DIR")))
	}
	goleak.VerifyTestMain(m)
}
