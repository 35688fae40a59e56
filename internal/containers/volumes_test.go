package containers

import (
	"bytes"
	"os"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/sys/mountinfo"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func withMount(mt mount.Mount) func(*CreateRequest) {
	return func(r *CreateRequest) { r.HostConfig.Mounts = append(r.HostConfig.Mounts, mt) }
}

// A volume with options is mounted while a container runs, whichever daemon is there, and not before or after.
func TestVolumeIsMountedWhileItIsUsed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts")
	}
	w := newWorld(t, 257)
	v, err := w.volumes.Create(t.Context(), volume.CreateRequest{Name: "ram", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs"}})
	assert.NilError(t, err)
	mounted := func() bool {
		t.Helper()
		is, err := mountinfo.Mounted(v.Mountpoint)
		assert.NilError(t, err)
		return is
	}
	ended := func(id string) {
		t.Helper()
		eventually(t, "its run is put away", func() bool { return w.record(id).Run == nil })
	}
	one, two := w.create(withMount(mount.Mount{Type: mount.TypeVolume, Source: "ram", Target: "/a"})), w.create(withMount(mount.Mount{Type: mount.TypeVolume, Source: "ram", Target: "/b"}))
	assert.Check(t, !mounted())
	for _, id := range []string{one, two} {
		assert.NilError(t, w.m.Start(t.Context(), id))
	}
	assert.Check(t, mounted())
	w.restart(nil)
	assert.Check(t, mounted())
	assert.NilError(t, w.m.Kill(t.Context(), one, "KILL"))
	ended(one)
	assert.Check(t, mounted(), "the other one runs")
	assert.Check(t, is.ErrorIs(w.volumes.Remove(t.Context(), "ram", true, w.m.UsesVolume), errdefs.ErrConflict))
	assert.NilError(t, w.m.Kill(t.Context(), two, "KILL"))
	ended(two)
	assert.Check(t, !mounted())
	assert.Check(t, is.ErrorIs(w.volumes.Remove(t.Context(), "ram", true, w.m.UsesVolume), errdefs.ErrConflict), "both still have it")
}

func TestBindSourceIsCheckedAtCreate(t *testing.T) {
	w := newWorld(t, 257)
	req := CreateRequest{Config: &container.Config{Image: "app"}, HostConfig: &container.HostConfig{}}
	withMount(mount.Mount{Type: mount.TypeBind, Source: "/no/such/dir", Target: "/x"})(&req)
	_, err := w.m.Create(t.Context(), req)
	assert.Check(t, is.Error(err, `invalid mount config for type "bind": bind source path does not exist: /no/such/dir`))
	assert.Check(t, is.ErrorIs(err, errdefs.ErrInvalidArgument))
}

// The volumes of a container that this version of lrd cannot read are in use.
func TestVolumeOfAnUnreadableContainer(t *testing.T) {
	w := newWorld(t, 257)
	id := w.create(withMount(mount.Mount{Type: mount.TypeVolume, Source: "precious", Target: "/data"}))
	w.restart(func() {
		path := w.m.records.path(id)
		data, err := os.ReadFile(path)
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(path, bytes.Replace(data, []byte(`"major":1`), []byte(`"major":9`), 1), 0o600))
	})
	assert.Check(t, w.container(id).foreign)
	assert.Check(t, is.DeepEqual(w.m.UsesVolume("precious"), []string{id}))
	assert.Check(t, is.Len(w.m.UsesVolume("prec"), 0))
}
