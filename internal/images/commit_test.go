package images

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestCommit(t *testing.T) {
	s := openOverlay(t, t.TempDir())
	ctx, id := t.Context(), "c0ffee"+zeros64[6:]
	img := simpleImage(t, "hello", "a:1")
	load(t, s, dockerArchive(t, []testImage{img}))
	assert.NilError(t, s.CreateRootfs(ctx, id, img.id(t).String()))
	path, err := s.MountRootfs(ctx, id)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(path, "new"), []byte("new"), 0o600))
	assert.NilError(t, os.Remove(filepath.Join(path, "etc/content")))

	changes, err := s.RootfsChanges(ctx, id)
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(changes, []container.FilesystemChange{
		{Path: "/etc", Kind: container.ChangeModify}, {Path: "/etc/content", Kind: container.ChangeDelete}, {Path: "/new", Kind: container.ChangeAdd},
	}))

	layer := tarball(t, file{name: "etc/.wh.content"}, file{name: "new", body: "new"})
	spooled := 0
	o := CommitOptions{
		ContainerID: id, Ref: "made:1", Author: "somebody", Comment: "why", CreatedBy: "sh",
		Config: dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Env: []string{"A=1"}}}, Changes: []string{"CMD /new", "ENV B=2"},
	}
	made, err := s.Commit(ctx, o, bytes.NewReader(layer), func() { spooled++ })
	assert.NilError(t, err)
	assert.Check(t, is.Equal(spooled, 1))
	got, err := s.Resolve(ctx, "made:1")
	assert.NilError(t, err)
	assert.Check(t, is.Equal(got.ID, made))
	assert.Check(t, is.Equal(got.Config.Author, "somebody"))
	assert.Check(t, is.DeepEqual(got.Config.Config.Env, []string{"A=1", "B=2"}))
	assert.Check(t, is.DeepEqual(got.Config.Config.Cmd, []string{"/bin/sh", "-c", "/new"}))
	base, err := s.Resolve(ctx, "a:1")
	assert.NilError(t, err)
	assert.Check(t, is.Len(got.Config.RootFS.DiffIDs, len(base.Config.RootFS.DiffIDs)+1))
	assert.Check(t, is.Equal(got.Config.History[len(got.Config.History)-1].Comment, "why"))

	other := "beef" + zeros64[4:]
	assert.NilError(t, s.CreateRootfs(ctx, other, made.String()))
	path, err = s.MountRootfs(ctx, other)
	assert.NilError(t, err)
	content, err := os.ReadFile(filepath.Join(path, "new"))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(string(content), "new"))
	_, err = os.Lstat(filepath.Join(path, "etc/content"))
	assert.Check(t, is.ErrorIs(err, os.ErrNotExist))

	// A container that has changed nothing: another configuration, no other layer.
	o.Ref = "same"
	_, err = s.Commit(ctx, o, bytes.NewReader(make([]byte, 1024)), func() {})
	assert.NilError(t, err)
	got, err = s.Resolve(ctx, "same")
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got.Config.RootFS.DiffIDs, base.Config.RootFS.DiffIDs))

	// What goes wrong leaves nothing.
	before, err := s.storage.Layers()
	assert.NilError(t, err)
	broken := errors.New("the container's disk is on fire")
	_, err = s.Commit(ctx, o, io.MultiReader(bytes.NewReader(layer[:512]), errReader{broken}), func() {})
	assert.Check(t, err != nil)
	_, err = s.Commit(ctx, CommitOptions{ContainerID: id, Ref: "Not A Name"}, bytes.NewReader(layer), func() {})
	assert.Check(t, is.ErrorIs(err, errdefs.ErrInvalidArgument))
	_, err = s.Commit(ctx, CommitOptions{ContainerID: id, Changes: []string{"RUN x"}}, bytes.NewReader(layer), func() {})
	assert.Check(t, is.ErrorIs(err, errdefs.ErrInvalidArgument))
	after, err := s.storage.Layers()
	assert.NilError(t, err)
	assert.Check(t, is.Len(after, len(before)))
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }
