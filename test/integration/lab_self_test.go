//go:build integration

package integration

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// TestLab is the shortest way through everything: if it fails, so does all else.
func TestLab(t *testing.T) {
	t.Parallel()
	l := boot(t, withoutImage())
	assert.Equal(t, l.docker("images", "--quiet"), "")
	l.load(busybox())
	assert.Equal(t, l.docker("run", "--rm", "busybox", "echo", "hello"), "hello")
	assert.Equal(t, l.old().docker("run", "--rm", "busybox", "echo", "hello"), "hello")
	assert.Equal(t, l.tryDocker("run", "--rm", "busybox", "sh", "-c", "exit 7").code, 7)
	l.kill9()
	l.restart()
	assert.Equal(t, checkCount(t, strings.NewReader(l.docker("run", "--rm", "busybox", "seq", "1000")+"\n")), 1000)
	assert.NilError(t, l.reload())
}
