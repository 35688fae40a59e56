package containers

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/oci"
)

func TestCommitPauses(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started()
	got, err := w.m.Commit(t.Context(), id, CommitOptions{Ref: "made:1", Comment: "why", Pause: true})
	assert.NilError(t, err)
	assert.Check(t, is.Contains(got, "sha256:"))
	assert.Check(t, is.Equal(w.images.layer, "layer"))
	assert.Check(t, is.Equal(w.images.committed.Ref, "made:1"))
	w.heardOf(id, events.ActionCreate, events.ActionStart, events.ActionPause, events.ActionUnPause, events.ActionCommit)
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
	entries, err := os.ReadDir(w.m.commitsDir())
	assert.NilError(t, err)
	assert.Check(t, is.Len(entries, 0))

	// One that fails lets the container go on too.
	w.arm("Images.Commit", errors.New("no space"))
	_, err = w.m.Commit(t.Context(), id, CommitOptions{Pause: true})
	assert.Check(t, is.ErrorContains(err, "no space"))
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
	// And one that somebody has paused stays so.
	w.arm("Images.Commit", nil)
	assert.NilError(t, w.m.Pause(t.Context(), id))
	_, err = w.m.Commit(t.Context(), id, CommitOptions{Pause: true})
	assert.NilError(t, err)
	assert.Check(t, is.Equal(w.status(id).State, container.StatePaused))
}

// A daemon that is killed while it reads a container's files leaves it frozen; the next one lets it go on.
func TestCommitThatWasCut(t *testing.T) {
	w := newWorld(t, 257)
	id, other := w.started(), w.started()
	c, err := w.m.find(id)
	assert.NilError(t, err)
	_, err = w.m.freezeFor(t.Context(), c, true)
	assert.NilError(t, err)
	assert.NilError(t, w.m.Pause(t.Context(), other))
	w.restart(nil)
	w.becomes(id, container.StateRunning)
	assert.Check(t, is.Equal(w.status(other).State, container.StatePaused))
}

// What holds a container's files keeps them mounted over its end, and unmounts them then.
func TestHoldRootfs(t *testing.T) {
	w := newWorld(t, 257)
	id := w.create()
	c, err := w.m.find(id)
	assert.NilError(t, err)
	_, first, err := w.m.holdRootfs(t.Context(), c)
	assert.NilError(t, err)
	_, second, err := w.m.holdRootfs(t.Context(), c)
	assert.NilError(t, err)
	mounted := func() bool { m, _ := w.images.rootfs(); return len(m) == 1 }
	assert.NilError(t, w.m.Start(t.Context(), id))
	assert.NilError(t, first())
	assert.Check(t, mounted())
	assert.NilError(t, w.m.Kill(t.Context(), id, "KILL"))
	w.becomes(id, container.StateExited)
	assert.Check(t, mounted(), "still held")
	assert.NilError(t, second())
	assert.Check(t, !mounted())

	_, _, err = w.m.holdRootfs(t.Context(), c) // never released: the daemon is killed
	assert.NilError(t, err)
	w.restart(nil)
	eventually(t, "unmounted, and not noted any more", func() bool {
		_, err := os.Lstat(filepath.Join(w.m.holdsDir(), id))
		return !mounted() && errors.Is(err, os.ErrNotExist)
	})
}

func TestImageConfig(t *testing.T) {
	of := &container.Config{
		User: "www", Env: []string{"A=1", "B=2"}, Entrypoint: []string{"/entry"}, Cmd: []string{"run"}, WorkingDir: "/w",
		Labels: map[string]string{"a": "1"}, Volumes: map[string]struct{}{"/v": {}}, ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}},
	}
	c := imageConfig(nil, of)
	assert.Check(t, is.DeepEqual(c.Entrypoint, []string{"/entry"}))
	assert.Check(t, is.DeepEqual(c.Cmd, []string{"run"}))
	assert.Check(t, is.DeepEqual(c.ExposedPorts, map[string]struct{}{"80/tcp": {}}))
	c = imageConfig(&container.Config{Cmd: []string{"other"}, Env: []string{"B=3"}, Labels: map[string]string{"b": "2"}, User: "root"}, of)
	assert.Check(t, is.DeepEqual(c.Entrypoint, []string{"/entry"}))
	assert.Check(t, is.DeepEqual(c.Cmd, []string{"other"}))
	assert.Check(t, is.DeepEqual(c.Env, []string{"A=1", "B=3"}))
	assert.Check(t, is.DeepEqual(c.Labels, map[string]string{"a": "1", "b": "2"}))
	assert.Check(t, is.Equal(c.User, "root"))
	c = imageConfig(&container.Config{Entrypoint: []string{"/new"}}, of)
	assert.Check(t, is.Len(c.Cmd, 0), "a command belongs to its entrypoint")
}

func TestWithoutPlaces(t *testing.T) {
	r := &Record{Mounts: []Mount{{Mount: oci.Mount{Type: mount.TypeVolume, Target: "/new/deep/data"}}, {Mount: oci.Mount{Type: mount.TypeBind, Target: "/etc/app.conf"}}}}
	mod, add, del := container.ChangeModify, container.ChangeAdd, container.ChangeDelete
	got := withoutPlaces([]container.FilesystemChange{
		{Path: "/dev", Kind: add},
		{Path: "/etc", Kind: mod},
		{Path: "/etc/app.conf", Kind: add},
		{Path: "/etc/hosts", Kind: add},
		{Path: "/etc/hostname", Kind: mod},
		{Path: "/new", Kind: add},
		{Path: "/new/deep", Kind: add},
		{Path: "/new/deep/data", Kind: add},
		{Path: "/proc", Kind: add},
		{Path: "/root", Kind: mod},
		{Path: "/root/gone", Kind: del},
		{Path: "/root/mine", Kind: add},
		{Path: "/var", Kind: mod},
	}, r)
	assert.Check(t, is.DeepEqual(got, []container.FilesystemChange{
		{Path: "/etc", Kind: mod},
		{Path: "/etc/hostname", Kind: mod},
		{Path: "/root", Kind: mod},
		{Path: "/root/gone", Kind: del},
		{Path: "/root/mine", Kind: add},
		{Path: "/var", Kind: mod},
	}))
	got = withoutPlaces([]container.FilesystemChange{{Path: "/etc", Kind: mod}, {Path: "/etc/hosts", Kind: add}}, r)
	assert.Check(t, is.Len(got, 0), "%v", got)
}

func TestPrune(t *testing.T) {
	w := newWorld(t, 257)
	running, plain := w.started(), w.create()
	keep := w.create(func(r *CreateRequest) { r.Config.Labels = map[string]string{"keep": "yes"} })
	report, err := w.m.Prune(t.Context(), Filters{"label!": {"keep": true}, "until": {"0s": true}})
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(report.ContainersDeleted, []string{plain}))
	report, err = w.m.Prune(t.Context(), Filters{"until": {"1h": true}})
	assert.NilError(t, err)
	assert.Check(t, is.Len(report.ContainersDeleted, 0))
	report, err = w.m.Prune(t.Context(), Filters{"label": {"keep=yes": true}})
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(report.ContainersDeleted, []string{keep}))
	assert.Check(t, is.Equal(w.status(running).State, container.StateRunning))
	for _, f := range []Filters{{"until": {"yesterday": true}}, {"name": {"x": true}}, {"until": {"1h": true, "2h": true}}} {
		_, err = w.m.Prune(t.Context(), f)
		assert.Check(t, is.ErrorIs(err, errdefs.ErrInvalidArgument), "%v", f)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Time{
		"24h": now.Add(-24 * time.Hour), "2026-01-01": time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		"2026-01-01T10:00:00": time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC), "1700000000.5": time.Unix(1700000000, 5e8),
	} {
		got, err := untilTime(value, now)
		assert.NilError(t, err)
		assert.Check(t, got.Equal(want), "%s: %s", value, got)
	}
}
