package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func userRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	assert.NilError(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
	write := func(name, content string) {
		assert.NilError(t, os.WriteFile(filepath.Join(root, name), []byte(content), 0o644))
	}
	write("etc/passwd", "root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n")
	write("etc/group", "root:x:0:\nu:x:1000:\nmore:x:77:u,x\nwheel:x:10:\n")
	return root
}

func TestResolveUser(t *testing.T) {
	root := userRoot(t)
	for _, tc := range []struct {
		spec string
		add  []string
		want User
	}{
		{"", nil, User{0, 0, []uint32{0}, "/root"}},
		{"u", nil, User{1000, 1000, []uint32{1000, 77}, "/home/u"}},
		{"1000", nil, User{1000, 1000, []uint32{1000, 77}, "/home/u"}},
		{"u:wheel", nil, User{1000, 10, []uint32{10}, "/home/u"}},
		{"4000:5000", nil, User{4000, 5000, []uint32{5000}, "/"}},
		{":wheel", nil, User{0, 10, []uint32{10}, "/root"}},
	} {
		got, err := ResolveUser(root, tc.spec, tc.add)
		assert.NilError(t, err, tc.spec)
		assert.Check(t, cmp.DeepEqual(got, tc.want), tc.spec)
	}
	got, err := ResolveUser(root, "u", []string{"wheel", "4444", "77"})
	assert.NilError(t, err)
	assert.Check(t, cmp.Len(got.AdditionalGIDs, 4))
	for want, spec := range map[string]string{
		"unable to find user nobody: no matching entries in passwd file": "nobody",
		"unable to find group none: no matching entries in group file":   "u:none",
	} {
		_, err := ResolveUser(root, spec, nil)
		assert.Check(t, cmp.Error(err, want))
		assert.Check(t, errdefs.IsInvalidArgument(err))
	}
	_, err = ResolveUser(root, "u", []string{"none"})
	assert.Check(t, errdefs.IsInvalidArgument(err), "%v", err)
}

func TestResolveUserStaysInTheRoot(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "passwd")
	assert.NilError(t, os.WriteFile(outside, []byte("evil:x:0:0::/:/bin/sh\n"), 0o644))
	for _, link := range []string{outside, strings.Repeat("../", 40) + outside} {
		root := userRoot(t)
		passwd := filepath.Join(root, "etc/passwd")
		assert.NilError(t, os.Remove(passwd))
		assert.NilError(t, os.Symlink(link, passwd))
		_, err := ResolveUser(root, "evil", nil)
		assert.ErrorContains(t, err, "unable to find user evil")
	}
	// An absolute link means a place in the container.
	root := userRoot(t)
	assert.NilError(t, os.Rename(filepath.Join(root, "etc/passwd"), filepath.Join(root, "users")))
	assert.NilError(t, os.Symlink("/users", filepath.Join(root, "etc/passwd")))
	got, err := ResolveUser(root, "u", nil)
	assert.NilError(t, err)
	assert.Equal(t, got.UID, uint32(1000))
}

func TestResolveUserWithOddFiles(t *testing.T) {
	got, err := ResolveUser(t.TempDir(), "7:8", nil)
	assert.NilError(t, err, "a root without any file")
	assert.Equal(t, got.UID, uint32(7))

	root := userRoot(t)
	passwd := filepath.Join(root, "etc/passwd")
	assert.NilError(t, os.Remove(passwd))
	assert.NilError(t, unix.Mkfifo(passwd, 0o600))
	_, err = ResolveUser(root, "u", nil)
	assert.ErrorContains(t, err, "is not a regular file")

	assert.NilError(t, os.Remove(passwd))
	f, err := os.Create(passwd)
	assert.NilError(t, err)
	assert.NilError(t, f.Truncate(maxUserFile+1))
	assert.NilError(t, f.Close())
	_, err = ResolveUser(root, "u", nil)
	assert.ErrorContains(t, err, "is larger than")
}

func TestProbe(t *testing.T) {
	m, err := Probe()
	assert.NilError(t, err)
	assert.Check(t, m.CPUs > 0, "%q", m.CPUSet)
	assert.Check(t, len(m.Capabilities) > 0)
	d, err := m.Devices("/dev/null")
	assert.NilError(t, err)
	assert.Assert(t, cmp.Len(d, 1))
	assert.Equal(t, d[0].Type, "c")
	assert.Equal(t, d[0].Minor, int64(3))
	all, err := m.Devices("/dev")
	assert.NilError(t, err)
	assert.Check(t, len(all) > 3)
	none, err := m.Devices("/etc/passwd")
	assert.NilError(t, err)
	assert.Check(t, cmp.Len(none, 0))
	_, err = m.Devices("/dev/no-such-device")
	assert.Check(t, os.IsNotExist(err))
}
