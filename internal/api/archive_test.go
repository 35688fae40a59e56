package api

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/containers"
)

func TestClientCopies(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	run(t, c, "web", container.Config{Cmd: []string{"sleep"}}, nil)

	stat, err := c.ContainerStatPath(t.Context(), "web", client.ContainerStatPathOptions{Path: "/hello"})
	assert.NilError(t, err)
	assert.Check(t, is.Equal(stat.Stat.Name, "hello"))
	assert.Check(t, is.Equal(stat.Stat.Size, int64(5)))

	from, err := c.CopyFromContainer(t.Context(), "web", client.CopyFromContainerOptions{SourcePath: "/hello"})
	assert.NilError(t, err)
	content, err := io.ReadAll(from.Content)
	assert.NilError(t, err)
	assert.NilError(t, from.Content.Close())
	assert.Check(t, is.Equal(string(content), "hello"))
	assert.Check(t, is.Equal(from.Stat.Name, "hello"))

	_, err = c.CopyToContainer(t.Context(), "web", client.CopyToContainerOptions{DestinationPath: "/to", Content: strings.NewReader("tar"), CopyUIDGID: true})
	assert.NilError(t, err)
	assert.Check(t, is.Equal(w.containers.extracted, extracted{"/to", "tar", containers.ExtractOptions{NoOverwriteDirNonDir: true, CopyUIDGID: true}}))

	export, err := c.ContainerExport(t.Context(), "web", client.ContainerExportOptions{})
	assert.NilError(t, err)
	content, err = io.ReadAll(export)
	assert.NilError(t, err)
	assert.NilError(t, export.Close())
	assert.Check(t, is.Equal(string(content), "hello"))

	_, err = c.ContainerStatPath(t.Context(), "other", client.ContainerStatPathOptions{Path: "/hello"})
	assert.Check(t, is.ErrorIs(err, errdefs.ErrNotFound))
}

// An archive that breaks off has no end: neither an old nor a new client takes the part for the whole.
func TestArchiveThatBreaksOff(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	run(t, c, "web", container.Config{Cmd: []string{"sleep"}}, nil)
	from, err := c.CopyFromContainer(t.Context(), "web", client.CopyFromContainerOptions{SourcePath: "/broken"})
	if err == nil { // the head may or may not have left before
		_, err = io.ReadAll(from.Content)
		assert.NilError(t, from.Content.Close())
	}
	assert.Check(t, is.ErrorContains(err, "EOF"))
}

func TestArchiveNeedsAPath(t *testing.T) {
	w := newWorld(t).serve(t)
	run(t, w.client(t), "web", container.Config{Cmd: []string{"sleep"}}, nil)
	for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodPut} {
		r := w.do(method, "/containers/web/archive", "")
		assert.Check(t, is.Equal(r.Code, http.StatusBadRequest), method)
	}
}
