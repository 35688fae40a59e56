package containers

import (
	"testing"

	"go.uber.org/goleak"
)

// Every goroutine of this package has an owner that ends it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
