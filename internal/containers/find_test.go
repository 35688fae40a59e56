package containers

import (
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestFind(t *testing.T) {
	record := func(id, name string) Record {
		return Record{ID: id, Name: name, Config: &container.Config{}, HostConfig: &container.HostConfig{}}
	}
	abc1, abc2, def := longID("abc1"), longID("abc2"), longID("def")
	m, _ := shownManager(t,
		record(abc1, "web"), record(abc2, "abc1"), // a name that is the beginning of another one's ID
		record(def, abc2), // a name that is another one's ID
	)
	for ref, want := range map[string]string{
		abc1: abc1, abc2: abc2, def: def,
		"web": abc1, "/web": abc1,
		"abc1": abc2, "abc10": abc1, "abc2": abc2,
		"d": def, "def": def, def[:63]: def,
	} {
		c, err := m.find(ref)
		assert.NilError(t, err, ref)
		assert.Check(t, is.Equal(c.id, want), ref)
	}
	for _, ref := range []string{"", "/", "we", "abd", "WEB", abc1 + "0", "web/", "ABC1"} {
		_, err := m.find(ref)
		assert.Check(t, errdefs.IsNotFound(err), ref)
		assert.Check(t, is.Error(err, "No such container: "+ref))
	}
	for _, ref := range []string{"a", "ab", "abc"} {
		_, err := m.find(ref)
		assert.Check(t, errdefs.IsInvalidArgument(err), ref)
		assert.Check(t, is.ErrorContains(err, "multiple IDs found with provided prefix: "+ref))
	}
}

// A name that is being made into a container belongs to nobody yet, and to nobody else.
func TestFindDuringCreate(t *testing.T) {
	w := newWorld(t, 252)
	release, err := w.m.reserve(&Record{ID: longID("a"), Name: "soon"})
	assert.NilError(t, err)
	_, err = w.m.find("soon")
	assert.Check(t, errdefs.IsNotFound(err))
	_, err = w.m.Create(t.Context(), CreateRequest{Name: "soon", Config: &container.Config{Image: "app"}, HostConfig: &container.HostConfig{}})
	assert.Check(t, errdefs.IsConflict(err))
	release()
	w.create(withName("soon"))
	release() // of somebody who is late
	_, err = w.m.find("soon")
	assert.NilError(t, err)
}

// A creation that fails leaves nothing behind, wherever it fails.
func TestCreateUnwinds(t *testing.T) {
	for _, tc := range []struct {
		name string
		arm  func(w *world, r *CreateRequest)
		is   func(error) bool
	}{
		{"image", func(_ *world, r *CreateRequest) { r.Config.Image = "nope" }, errdefs.IsNotFound},
		{"runtime", func(_ *world, r *CreateRequest) { r.HostConfig.Runtime = "nope" }, errdefs.IsInvalidArgument},
		{"policy", func(_ *world, r *CreateRequest) {
			r.HostConfig.AutoRemove, r.HostConfig.RestartPolicy.Name = true, "always"
		}, errdefs.IsInvalidArgument},
		{"log driver", func(_ *world, r *CreateRequest) { r.HostConfig.LogConfig.Type = "gelf" }, errdefs.IsInvalidArgument},
		{"network", func(_ *world, r *CreateRequest) { r.HostConfig.NetworkMode = "mine" }, errdefs.IsInvalidArgument},
		{"network of nobody", func(_ *world, r *CreateRequest) { r.HostConfig.NetworkMode = "container:nobody" }, errdefs.IsInvalidArgument},
		{"name", func(_ *world, r *CreateRequest) { r.Name = "taken" }, errdefs.IsConflict},
		{"bad name", func(_ *world, r *CreateRequest) { r.Name = "a b" }, errdefs.IsInvalidArgument},
		{"root filesystem", func(w *world, _ *CreateRequest) { w.arm("Images.CreateRootfs", errFault) }, nil},
		{"volumes from nobody", func(_ *world, r *CreateRequest) { r.HostConfig.VolumesFrom = []string{"nobody"} }, errdefs.IsInvalidArgument},
		{"copy into a volume", func(w *world, _ *CreateRequest) { w.arm("Images.MountRootfs", errFault) }, nil},
		{"disk", func(w *world, _ *CreateRequest) {
			assert.NilError(w.t, os.RemoveAll(w.m.records.dir))
			assert.NilError(w.t, os.WriteFile(w.m.records.dir, nil, 0o600))
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, 252)
			w.create(withName("taken"))
			_, before := w.images.rootfs()
			req := CreateRequest{Name: "new", Config: &container.Config{Image: "app"}, HostConfig: &container.HostConfig{}}
			withVolume(&req)
			tc.arm(w, &req)
			_, err := w.m.Create(t.Context(), req)
			assert.Assert(t, err != nil)
			assert.Check(t, tc.is == nil || tc.is(err), "%v", err)
			_, after := w.images.rootfs()
			assert.Check(t, is.DeepEqual(after, before))
			assert.Check(t, is.Len(w.m.names, 1))
			assert.Check(t, is.Len(w.m.byID, 1))
			left, err := os.ReadDir(w.root + "/volumes")
			assert.NilError(t, err)
			assert.Check(t, is.Len(left, 0), "volumes")
		})
	}
}

// What cannot be removed is shown as dead, and can be removed once the reason is gone.
func TestRemoveThatFails(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create(withName("web"))
	w.arm("Images.RemoveRootfs", errFault)
	err := w.m.Remove(t.Context(), id, RemoveOptions{})
	assert.ErrorContains(t, err, "cannot remove container web")
	assert.Check(t, is.Equal(w.status(id).State, container.StateDead))
	assert.Check(t, errdefs.IsConflict(w.m.Start(t.Context(), id)))
	w.restart(nil)
	assert.Check(t, is.Equal(w.status(id).State, container.StateDead))
	assert.Check(t, is.Equal(w.status(id).Error, errFault.Error()))
	w.arm("Images.RemoveRootfs", nil)
	assert.NilError(t, w.m.Remove(t.Context(), "web", RemoveOptions{}))
	w.isGone(id)
}

// A container with a Record that cannot be read can be stopped, and then removed with all that it had.
func TestRemoveUnreadable(t *testing.T) {
	w := newWorld(t, 252)
	id := w.started(withName("web"))
	w.restart(func() {
		assert.NilError(t, os.WriteFile(w.m.records.path(id), []byte("{}"), 0o600))
		assert.NilError(t, os.Remove(w.m.records.copyPath(id)))
		assert.NilError(t, os.MkdirAll(w.m.pinsDir(id)+"/0", 0o700))
		assert.NilError(t, os.MkdirAll(w.m.dropIn(id), 0o700))
	})
	assert.Check(t, is.Contains(w.status(id).Reason, w.m.records.path(id)))
	err := w.m.Remove(t.Context(), id, RemoveOptions{Force: true})
	assert.Check(t, errdefs.IsFailedPrecondition(err), "%v", err)
	assert.Check(t, w.status(id).Running())
	assert.NilError(t, w.m.Stop(t.Context(), id, StopOptions{}))
	w.becomes(id, container.StateDead)
	w.restart(nil)
	assert.Check(t, is.Equal(w.status(id).State, container.StateDead))
	assert.NilError(t, w.m.Remove(t.Context(), id, RemoveOptions{Force: true}))
	w.isGone(id)
	w.leftNothing(id)
	for _, dir := range []string{w.m.pinsDir(id), w.m.dropIn(id)} {
		_, err := os.Lstat(dir)
		assert.Check(t, is.ErrorIs(err, os.ErrNotExist))
	}
}

// TestRecordMended: a container that runs is taken back whole though its Record is spoiled, and the Record is mended.
func TestRecordMended(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started(withName("web"), withVolume)
	idle := w.create(withName("idle"))
	assert.NilError(t, w.m.Rename(t.Context(), id, "shop"))
	before := w.record(id)
	w.restart(func() {
		for _, id := range []string{id, idle} {
			assert.NilError(t, os.Truncate(w.m.records.path(id), 100))
		}
	})
	assert.Check(t, is.Equal(w.status(id).Reason, ""))
	assert.Check(t, is.Equal(w.record(id).Run.Sandbox.NetNS, before.Run.Sandbox.NetNS)) // its ports go on
	assert.Check(t, is.DeepEqual(w.record(id).Mounts, before.Mounts))
	assert.Check(t, is.Equal(w.record(id).Name, "shop"))
	_, err := os.Stat(w.m.records.path(id) + ".damaged")
	assert.NilError(t, err)
	w.restart(nil)
	assert.Check(t, is.Equal(w.status(id).Reason, ""))
	w.units.exit(id, 3)
	w.isPutAway(id)
	assert.Check(t, is.Equal(w.status(id).ExitCode, 3))

	assert.Check(t, is.Contains(w.status(idle).Reason, "or remove the container"))
	for _, id := range []string{id, idle} {
		assert.NilError(t, w.m.Remove(t.Context(), id, RemoveOptions{Force: true}))
		w.isGone(id)
	}
}
