package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// A socket that somebody listens on is not taken away; what a killed process has left is.
func TestListenOwn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give the socket to root")
	}
	path := filepath.Join(t.TempDir(), "lrd.sock")
	first, err := listenOwn(path, os.Getgid())
	assert.NilError(t, err)
	_, err = listenOwn(path, os.Getgid())
	assert.Check(t, is.ErrorContains(err, "somebody does already"))
	c, err := net.Dial("unix", path)
	assert.NilError(t, err)
	assert.NilError(t, c.Close())
	info, err := os.Stat(path)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(info.Mode().Perm(), os.FileMode(0o660)))

	first.(*net.UnixListener).SetUnlinkOnClose(false) // as after a SIGKILL
	assert.NilError(t, first.Close())
	second, err := listenOwn(path, os.Getgid())
	assert.NilError(t, err)
	assert.NilError(t, second.Close())
}

func TestGroupID(t *testing.T) {
	gid, err := groupID("root")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(gid, 0))
	gid, err = groupID(strconv.Itoa(4711))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(gid, 4711))
	_, err = groupID("no-such-group")
	assert.Check(t, is.ErrorContains(err, "groupadd --system no-such-group"))
}

// Two daemons in one data-root would each take the other's containers for its own.
func TestClaim(t *testing.T) {
	root := filepath.Join(t.TempDir(), "lrd")
	dir, err := claim(root)
	assert.NilError(t, err)
	_, err = claim(root)
	assert.Check(t, is.ErrorContains(err, "another lrd uses it"))
	assert.NilError(t, dir.Close())
	dir, err = claim(root)
	assert.NilError(t, err)
	assert.NilError(t, dir.Close())
}
