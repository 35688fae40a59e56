package images

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// openOverlay opens a store with the driver that lrd runs with. Its mounts are
// undone when the test ends. change may follow.
func openOverlay(t *testing.T, dir string, change ...func(*Options)) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: mounting overlay needs root")
	}
	s := openStoreIn(t, dir, func(o *Options) {
		o.Driver = "overlay"
		for _, c := range change {
			c(o)
		}
	})
	t.Cleanup(func() {
		containers, err := s.storage.Containers()
		assert.NilError(t, err)
		for _, c := range containers {
			_, _ = s.storage.Unmount(c.ID, true)
		}
	})
	return s
}

func TestRootfsLife(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			s := openOverlay(t, t.TempDir())
			if driver == "vfs" {
				s = openStore(t, nil)
			}
			img := simpleImage(t, "hello", "a:1")
			load(t, s, dockerArchive(t, []testImage{img}))
			ctx, id := t.Context(), "c0ffee"+zeros64[6:]
			assert.NilError(t, s.CreateRootfs(ctx, id, img.id(t).String()))
			err := s.CreateRootfs(ctx, id, img.id(t).String())
			assert.Assert(t, errdefs.IsAlreadyExists(err), "%v", err)

			path, err := s.MountRootfs(ctx, id)
			assert.NilError(t, err)
			for range 3 {
				again, err := s.MountRootfs(ctx, id)
				assert.NilError(t, err)
				assert.Equal(t, again, path)
			}
			content, err := os.ReadFile(filepath.Join(path, "etc/content"))
			assert.NilError(t, err)
			assert.Equal(t, string(content), "hello")
			assert.NilError(t, os.WriteFile(filepath.Join(path, "new"), make([]byte, 1000), 0o600))

			rw, virtual, err := s.RootfsSize(ctx, id)
			assert.NilError(t, err)
			assert.Assert(t, rw >= 1000 && rw < 10000, "%d", rw)
			assert.Equal(t, virtual, rw+int64(len(img.layers[0])))
			image, err := s.RootfsImage(ctx, id)
			assert.NilError(t, err)
			assert.Equal(t, image, img.id(t))

			assert.NilError(t, s.UnmountRootfs(ctx, id)) // one undoes four
			if driver == "overlay" {
				mounted, err := mountinfo.Mounted(path)
				assert.NilError(t, err)
				assert.Assert(t, !mounted)
			}
			assert.NilError(t, s.UnmountRootfs(ctx, id))
			path, err = s.MountRootfs(ctx, id)
			assert.NilError(t, err)
			_, err = os.Stat(filepath.Join(path, "new"))
			assert.NilError(t, err)

			assert.NilError(t, s.RemoveRootfs(ctx, id))
			assert.NilError(t, s.RemoveRootfs(ctx, id))
			assert.NilError(t, s.UnmountRootfs(ctx, id))
			_, err = s.MountRootfs(ctx, id)
			assert.Assert(t, errdefs.IsNotFound(err), "%v", err)
			assertClean(t, s)
		})
	}
}

func TestCreateRootfsWithoutImage(t *testing.T) {
	s := openStore(t, nil)
	err := s.CreateRootfs(t.Context(), zeros64, "sha256:"+zeros64)
	assert.ErrorContains(t, err, "No such image: sha256:"+zeros64)
	assert.Assert(t, errdefs.IsNotFound(err))
	assert.Assert(t, errdefs.IsInvalidArgument(s.CreateRootfs(t.Context(), zeros64, "a:1")))
	assertEmpty(t, s)
}

// openMounted opens a storage with overlay and mounts one root filesystem there, that of zeros64.
func openMounted(t *testing.T) (s *Store, path string) {
	t.Helper()
	s = openOverlay(t, t.TempDir())
	img := simpleImage(t, "hello", "a:1")
	load(t, s, dockerArchive(t, []testImage{img}))
	assert.NilError(t, s.CreateRootfs(t.Context(), zeros64, img.id(t).String()))
	path, err := s.MountRootfs(t.Context(), zeros64)
	assert.NilError(t, err)
	return s, path
}

// reopen opens the same storage as another process would: with nothing in
// memory. A change of RunRoot is what a reboot looks like.
func reopen(t *testing.T, s *Store, runRoot string) *Store {
	t.Helper()
	s.storage.Free()
	return openStoreIn(t, filepath.Dir(s.opts.GraphRoot), func(o *Options) {
		o.Driver, o.RunRoot, o.UserAgent = s.opts.Driver, runRoot, s.opts.UserAgent
	})
}

func TestRootfsOutlivesTheProcess(t *testing.T) {
	s, path := openMounted(t)
	assert.NilError(t, s.Close()) // "layer is in use" is no error

	s = reopen(t, s, s.opts.RunRoot)
	mounted, err := mountinfo.Mounted(path)
	assert.NilError(t, err)
	assert.Assert(t, mounted)
	again, err := s.MountRootfs(t.Context(), zeros64)
	assert.NilError(t, err)
	assert.Equal(t, again, path)
	assert.NilError(t, s.UnmountRootfs(t.Context(), zeros64))
	mounted, err = mountinfo.Mounted(path)
	assert.NilError(t, err)
	assert.Assert(t, !mounted)
}

func TestRootfsAfterReboot(t *testing.T) {
	s, path := openMounted(t)
	assert.NilError(t, unix.Unmount(path, 0)) // the machine goes down

	s = reopen(t, s, filepath.Join(filepath.Dir(s.opts.GraphRoot), "run-of-next-boot"))
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	again, err := s.MountRootfs(t.Context(), zeros64)
	assert.NilError(t, err)
	assert.Equal(t, again, path)
	content, err := os.ReadFile(filepath.Join(path, "etc/content"))
	assert.NilError(t, err)
	assert.Equal(t, string(content), "hello")
	assert.NilError(t, s.RemoveRootfs(t.Context(), zeros64))
}

// Somebody unmounts it by hand: the next mount mounts, and one unmount is
// enough still.
func TestRootfsUnmountedByHand(t *testing.T) {
	s, path := openMounted(t)
	assert.NilError(t, unix.Unmount(path, 0))
	_, err := s.MountRootfs(t.Context(), zeros64)
	assert.NilError(t, err)
	_, err = os.Stat(filepath.Join(path, "etc/content"))
	assert.NilError(t, err)
	assert.NilError(t, s.UnmountRootfs(t.Context(), zeros64))
	mounted, err := mountinfo.Mounted(path)
	assert.NilError(t, err)
	assert.Assert(t, !mounted)
}

// An image that is removed by force under a stopped container is gone for
// everybody but that container, and its layers go with it.
func TestRemoveByForceUnderARootfs(t *testing.T) {
	s := openOverlay(t, t.TempDir())
	img := simpleImage(t, "hello", "a:1")
	archive := dockerArchive(t, []testImage{img})
	load(t, s, archive)
	ctx := t.Context()
	assert.NilError(t, s.CreateRootfs(ctx, zeros64, img.id(t).String()))
	stopped := func(string) (string, bool, bool) { return "web", false, true }
	got, err := s.Remove(ctx, "a:1", true, stopped)
	assert.NilError(t, err)
	assert.Equal(t, len(got), 2)

	_, err = s.Resolve(ctx, img.id(t).String())
	assert.Assert(t, errdefs.IsNotFound(err))
	list, err := s.List(ctx, ListOptions{})
	assert.NilError(t, err)
	assert.Equal(t, len(list), 0)
	path, err := s.MountRootfs(ctx, zeros64)
	assert.NilError(t, err)
	_, err = os.Stat(filepath.Join(path, "etc/content"))
	assert.NilError(t, err)

	load(t, s, archive) // comes back as an ordinary image
	_, err = s.Resolve(ctx, "a:1")
	assert.NilError(t, err)
	_, err = s.Remove(ctx, "a:1", true, stopped)
	assert.NilError(t, err)
	assert.NilError(t, s.RemoveRootfs(ctx, zeros64))
	assertEmpty(t, s)
}
