//go:build integration

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// TestTestcontainers does what tests that are written with testcontainers do, with the npm package of that name: the
// script's first lines say what. Its reaper, an image of its own that cannot be had here, is off.
func TestTestcontainers(t *testing.T) {
	t.Parallel()
	l := boot(t)
	dir := os.Getenv("TESTCONTAINERS")
	if dir == "" {
		dir = l.must("lab testcontainers", l.run(exec.Command(suite.lab, "testcontainers"), nil)).stdout
	}
	cmd := exec.Command("node", "testdata/testcontainers.js")
	cmd.Env = []string{
		"DOCKER_HOST=" + l.host, "NODE_PATH=" + filepath.Join(dir, "node_modules"), "TESTCONTAINERS_RYUK_DISABLED=true",
		"HOME=" + l.dotDir, "PATH=" + os.Getenv("PATH"),
	}
	r := l.must("testcontainers", l.run(cmd, nil))
	assert.Assert(t, strings.HasSuffix(r.stdout, "all is well"), "%s", r)
	l.assertClean()
}
