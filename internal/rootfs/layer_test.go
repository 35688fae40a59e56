package rootfs

import (
	"bytes"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// The upper directory of a real overlay, as the layer that it stands for.
func TestLayer(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil { // an overlay may not be the upper of another
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	for _, d := range []string{"lower/kept/sub", "lower/replaced/old", "upper", "work", "merged"} {
		assert.NilError(t, os.MkdirAll(dir+"/"+d, 0o755))
	}
	write(t, dir+"/lower/gone", "x")
	write(t, dir+"/lower/kept/file", "old")
	if err := unix.Mount("overlay", dir+"/merged", "overlay", 0, "lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir+"/merged", unix.MNT_DETACH)
	m := dir + "/merged/"
	assert.NilError(t, os.Remove(m+"gone"))
	write(t, m+"kept/file", "new")
	assert.NilError(t, os.RemoveAll(m+"replaced"))
	assert.NilError(t, os.Mkdir(m+"replaced", 0o755))
	assert.NilError(t, os.MkdirAll(m+"fresh/dir", 0o755))
	assert.NilError(t, os.Mkdir(m+"etc", 0o755))
	write(t, m+"etc/hosts", "")
	write(t, m+"etc/hostname", "changed by the container")

	tr, err := Open(dir + "/upper")
	assert.NilError(t, err)
	defer tr.Close()
	layer := func() ([]byte, error) {
		s, err := tr.AsLayer(Layer{Lower: []string{dir + "/lower"}, Stubs: []string{"/etc/hosts", "/etc/hostname"}})
		assert.NilError(t, err)
		defer s.Close()
		var buf bytes.Buffer
		err = s.Write(t.Context(), &buf, func() error { return nil })
		return buf.Bytes(), err
	}
	got, err := layer()
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(members(t, got), []string{
		"etc/", "etc/hostname = changed by the container", "fresh/", "fresh/dir/", ".wh.gone", "kept/", "kept/file = new", "replaced/", "replaced/.wh..wh..opq",
	}))
	assert.NilError(t, unix.Setxattr(dir+"/upper/fresh", "trusted.overlay.redirect", []byte("/kept"), 0))
	_, err = layer()
	assert.Check(t, is.ErrorIs(err, errdefs.ErrFailedPrecondition))
}
