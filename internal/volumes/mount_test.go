package volumes

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
}

func isMounted(t *testing.T, s *Store, name string) bool {
	t.Helper()
	mounted, err := mountinfo.Mounted(s.data(name))
	assert.NilError(t, err)
	return mounted
}

// A volume with options is mounted for as long as somebody has it, whoever the process is then.
func TestOptions(t *testing.T) {
	needRoot(t)
	s := open(t)
	v := create(t, s, volume.CreateRequest{Name: "ram", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=12,nosuid"}})
	t.Cleanup(func() { _ = unix.Unmount(v.Mountpoint, unix.MNT_DETACH) })
	assert.Check(t, is.DeepEqual(v.Options, map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=12,nosuid"}))
	assert.Check(t, !isMounted(t, s, "ram"))
	for _, holder := range []string{"a", "b", "a"} {
		path, err := s.Mount(t.Context(), "ram", holder)
		assert.NilError(t, err)
		assert.Check(t, is.Equal(path, v.Mountpoint))
	}
	var st unix.Statfs_t
	assert.NilError(t, unix.Statfs(v.Mountpoint, &st))
	assert.Check(t, st.Type == unix.TMPFS_MAGIC && st.Blocks*uint64(st.Bsize) == 1<<20 && st.Flags&unix.ST_NOSUID != 0)
	assert.NilError(t, os.WriteFile(v.Mountpoint+"/file", []byte("kept"), 0o600))
	assert.NilError(t, s.Unmount("ram", "a"))
	assert.Check(t, isMounted(t, s, "ram"), "b has it")
	assert.Check(t, is.ErrorIs(s.Remove(t.Context(), "ram", true, nil), errdefs.ErrConflict))

	// The next process is told who has it; what nobody has is unmounted.
	next, err := Open(s.root, s.log)
	assert.NilError(t, err)
	next.Hold("ram", "b")
	assert.NilError(t, next.Release())
	assert.Check(t, isMounted(t, s, "ram"))
	data, err := os.ReadFile(v.Mountpoint + "/file")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(data), "kept"))
	size, err := next.Size(t.Context(), "ram")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(size, int64(-1)))
	assert.NilError(t, next.Unmount("ram", "b"))
	assert.Check(t, !isMounted(t, s, "ram"))

	_, err = s.Mount(t.Context(), "ram", "lost")
	assert.NilError(t, err)
	next, err = Open(s.root, s.log)
	assert.NilError(t, err)
	assert.NilError(t, next.Release())
	assert.Check(t, !isMounted(t, s, "ram"))
	assert.NilError(t, next.Unmount("no-such-volume", "a"))
	assert.NilError(t, next.Remove(t.Context(), "ram", false, nil))
}

// What a volume's options mount is never deleted with it.
func TestRemoveLeavesWhatIsMounted(t *testing.T) {
	needRoot(t)
	s := open(t)
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(dir+"/file", []byte("precious"), 0o600))
	v := create(t, s, volume.CreateRequest{Name: "bound", DriverOpts: map[string]string{"type": "none", "device": dir, "o": "bind"}})
	path, err := s.Mount(t.Context(), "bound", "c")
	assert.NilError(t, err)
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	data, err := os.ReadFile(v.Mountpoint + "/file")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(data), "precious"))
	lost, err := Open(s.root, s.log) // nobody has told it of c
	assert.NilError(t, err)
	assert.NilError(t, lost.Remove(t.Context(), "bound", false, nil))
	_, err = os.ReadFile(dir + "/file")
	assert.NilError(t, err)

	create(t, s, volume.CreateRequest{Name: "wrong", DriverOpts: map[string]string{"type": "none", "device": dir + "/none", "o": "bind,password=secret"}})
	_, err = s.Mount(t.Context(), "wrong", "c")
	assert.Check(t, is.ErrorContains(err, "failed to mount local volume: mount "+dir+"/none"))
	assert.Check(t, is.ErrorContains(err, "no such file or directory"))
	assert.NilError(t, s.Remove(t.Context(), "wrong", false, nil), "who could not mount it does not have it")
}

func TestCopyUpIntoAMountedVolume(t *testing.T) {
	needRoot(t)
	s := open(t)
	rootfs := t.TempDir()
	assert.NilError(t, os.MkdirAll(rootfs+"/data/dir", 0o750))
	assert.NilError(t, os.WriteFile(rootfs+"/data/dir/file", []byte("image's"), 0o600))
	create(t, s, volume.CreateRequest{Name: "ram", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs"}})
	path, err := s.Mount(t.Context(), "ram", "c")
	assert.NilError(t, err)
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	assert.NilError(t, os.Mkdir(filepath.Join(path, mountedPart), 0o700)) // of one that was cut short
	assert.NilError(t, s.CopyUp(t.Context(), "ram", rootfs, "/data"))
	entries, err := os.ReadDir(path)
	assert.NilError(t, err)
	assert.Check(t, is.Len(entries, 1))
	data, err := os.ReadFile(path + "/dir/file")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(data), "image's"))
}

// A container that has the volume, and changes it while it is filled, leads nothing out of it.
func TestCopyUpBesideAContainer(t *testing.T) {
	needRoot(t)
	s := open(t)
	rootfs, outside := t.TempDir(), t.TempDir()
	assert.NilError(t, os.MkdirAll(rootfs+"/data/a", 0o750))
	for i := range 50 {
		assert.NilError(t, os.WriteFile(fmt.Sprintf("%s/data/a/%d", rootfs, i), nil, 0o600))
	}
	assert.NilError(t, os.WriteFile(outside+"/host", []byte("the host's"), 0o600))
	create(t, s, volume.CreateRequest{Name: "ram", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs"}})
	path, err := s.Mount(t.Context(), "ram", "c")
	assert.NilError(t, err)
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })

	// What looks like a copy that is whole is a link.
	assert.NilError(t, os.Symlink(outside, filepath.Join(path, mountedWhole)))
	assert.NilError(t, s.CopyUp(t.Context(), "ram", rootfs, "/data"))
	assert.NilError(t, os.Remove(filepath.Join(path, mountedWhole)))

	// A directory of the copy becomes a link as soon as it is there.
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
			}
			for _, place := range []string{mountedPart, mountedWhole} {
				if os.Rename(filepath.Join(path, place, "a"), filepath.Join(path, place, "b")) == nil {
					_ = os.Symlink(outside, filepath.Join(path, place, "a"))
				}
			}
		}
	}()
	for range 20 {
		_ = s.CopyUp(t.Context(), "ram", rootfs, "/data") // what comes of it is the container's own fault
		entries, err := os.ReadDir(path)
		assert.NilError(t, err)
		for _, e := range entries {
			assert.NilError(t, os.RemoveAll(filepath.Join(path, e.Name())))
		}
	}
	close(done)
	<-ended
	entries, err := os.ReadDir(outside)
	assert.NilError(t, err)
	assert.Check(t, is.Len(entries, 1))
}

func TestSize(t *testing.T) {
	s := open(t)
	v := create(t, s, volume.CreateRequest{Name: "vol"})
	assert.NilError(t, os.WriteFile(v.Mountpoint+"/a", make([]byte, 1000), 0o600))
	assert.NilError(t, os.Link(v.Mountpoint+"/a", v.Mountpoint+"/b"))
	assert.NilError(t, os.Mkdir(v.Mountpoint+"/dir", 0o700))
	assert.NilError(t, os.WriteFile(v.Mountpoint+"/dir/c", make([]byte, 100), 0o600))
	assert.NilError(t, os.Symlink("/usr", v.Mountpoint+"/link"))
	size, err := s.Size(t.Context(), "vol")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(size, int64(1100)))
	_, err = s.Size(t.Context(), "other")
	assert.Check(t, is.ErrorIs(err, errdefs.ErrNotFound))
}

func TestOptionValues(t *testing.T) {
	data, err := resolveAddr("nfs", ":/export", "addr=127.0.0.1,rw")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(data, "addr=127.0.0.1,rw"))
	data, err = resolveAddr("nfs", ":/export", "rw,addr=localhost")
	assert.NilError(t, err)
	assert.Check(t, data == "rw,addr=127.0.0.1" || data == "rw,addr=::1", data)
	data, err = resolveAddr("cifs", "//127.0.0.1/share", "username=u")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(data, "username=u,addr=127.0.0.1"))
}
