package images

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"gotest.tools/v3/assert"
)

// Images of another tool's storage are there, can be run and named, and are never changed: what another
// process does there is seen at once.
func TestAdditionalStore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: mounting overlay needs root")
	}
	theirs := t.TempDir() // of another process: the library has a store once, writable or not
	archive := func(img testImage) string {
		path := filepath.Join(t.TempDir(), "archive.tar")
		assert.NilError(t, os.WriteFile(path, dockerArchive(t, []testImage{img}), 0o600))
		return path
	}
	base := simpleImage(t, "theirs", "theirs:1")
	inOtherProcess(t, "load", theirs, archive(base))
	before := treeOf(t, filepath.Join(theirs, "graph"))
	s := openOverlay(t, t.TempDir(), func(o *Options) { o.AdditionalStores = []string{filepath.Join(theirs, "graph"), "/nonexistent"} })
	ours := simpleImage(t, "ours", "ours:1")
	ours.layers = append([][]byte{base.layers[0]}, ours.layers...) // stands on a layer of theirs
	load(t, s, dockerArchive(t, []testImage{ours}))

	list, err := s.List(t.Context(), ListOptions{SharedSize: true})
	assert.NilError(t, err)
	assert.Equal(t, len(list), 2)
	assert.NilError(t, s.CreateRootfs(t.Context(), zeros64, base.id(t).String()))
	path, err := s.MountRootfs(t.Context(), zeros64)
	assert.NilError(t, err)
	content, err := os.ReadFile(filepath.Join(path, "etc/content"))
	assert.NilError(t, err)
	assert.Equal(t, string(content), "theirs")
	assert.NilError(t, os.WriteFile(filepath.Join(path, "etc/content"), []byte("mine"), 0o600))

	_, err = s.Remove(t.Context(), "theirs:1", true, nil)
	assert.Assert(t, errdefs.IsConflict(err), "%v", err)
	assert.ErrorContains(t, err, "additional image store")
	assert.NilError(t, s.RemoveRootfs(t.Context(), zeros64))

	assert.NilError(t, s.Tag(t.Context(), "theirs:1", "mine:1"))
	list, err = s.List(t.Context(), ListOptions{})
	assert.NilError(t, err)
	assert.Equal(t, len(list), 2)
	var buf bytes.Buffer
	assert.NilError(t, s.Save(t.Context(), []string{"mine:1"}, SaveOptions{}, &buf))
	report, err := s.Prune(t.Context(), Filters{"dangling": {"false": true}}, func(string) (string, bool, bool) { return "", false, false })
	assert.NilError(t, err)
	assert.Assert(t, len(report.ImagesDeleted) > 0)
	list, err = s.List(t.Context(), ListOptions{})
	assert.NilError(t, err)
	assert.Equal(t, len(list), 1)
	assert.DeepEqual(t, list[0].RepoTags, []string{"theirs:1"})
	assert.DeepEqual(t, treeOf(t, filepath.Join(theirs, "graph")), before)

	inOtherProcess(t, "load", theirs, archive(simpleImage(t, "new", "new:1")))
	_, err = s.Resolve(t.Context(), "new:1")
	assert.NilError(t, err)
	inOtherProcess(t, "remove", theirs, "new:1")
	_, err = s.Resolve(t.Context(), "new:1")
	assert.Assert(t, errdefs.IsNotFound(err))
}

// treeOf are the files of a tree and when they were changed. Locks are taken by readers too.
func treeOf(t *testing.T, dir string) map[string]time.Time {
	t.Helper()
	tree := map[string]time.Time{}
	assert.NilError(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && filepath.Ext(path) != ".lock" && !info.IsDir() {
			tree[path] = info.ModTime()
		}
		return err
	}))
	return tree
}
