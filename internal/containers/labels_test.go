package containers

import (
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/oci"
)

// TestLabels: the labels that the root filesystem was made with are in the spec of each run, and a container that asks for none
// has none.
func TestLabels(t *testing.T) {
	w := newWorld(t, 252)
	w.images.labels = [2]string{"u:r:t:s0:c1,c2", "u:r:f:s0:c1,c2"}
	specOf := func(opts ...string) (process, files string) {
		t.Helper()
		id := w.create(func(r *CreateRequest) { r.HostConfig.SecurityOpt = opts })
		r := w.record(id)
		var undo cleanup
		b, _, _, err := w.m.prepare(t.Context(), &r, w.m.o.Config(), &undo)
		assert.NilError(t, err)
		err = errFault
		undo.unless(&err)
		return b.spec.Process.SelinuxLabel, b.spec.Linux.MountLabel
	}
	process, files := specOf("label=type:web_t", "label=level:s0:c1,c2")
	assert.Check(t, is.DeepEqual([2]string{process, files}, w.images.labels))
	assert.Check(t, is.DeepEqual(w.images.labelOptions, []string{"type:web_t", "level:s0:c1,c2"}))
	for _, opts := range [][]string{nil, {"label=disable"}, {"label=type:web_t", "label=disable"}} {
		process, files = specOf(opts...)
		assert.Check(t, is.Equal(process+files, ""))
		assert.Check(t, is.Len(w.images.labelOptions, 0))
	}
	assert.Check(t, is.Len(oci.LabelOptions(&container.HostConfig{Privileged: true, SecurityOpt: []string{"label=type:web_t"}}), 0))
}

func TestWantsLabel(t *testing.T) {
	for _, tc := range []struct {
		mount         oci.Mount
		asked, shared bool
	}{
		{oci.Mount{Type: mount.TypeBind}, false, true},
		{oci.Mount{Type: mount.TypeBind, Mode: "rshared,ro"}, false, true},
		{oci.Mount{Type: mount.TypeBind, Mode: "ro,z"}, true, true},
		{oci.Mount{Type: mount.TypeBind, Mode: "Z"}, true, false},
		{oci.Mount{Type: mount.TypeVolume}, true, true},
		{oci.Mount{Type: mount.TypeVolume, Mode: "Z"}, true, false},
		{oci.Mount{Type: mount.TypeTmpfs}, false, true},
	} {
		asked, shared := wantsLabel(tc.mount)
		assert.Check(t, is.DeepEqual([]bool{asked, shared}, []bool{tc.asked, tc.shared}), "%+v", tc.mount)
	}
}
