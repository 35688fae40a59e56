package api

import (
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestClientCommits(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	run(t, c, "web", container.Config{Cmd: []string{"sleep"}}, nil)
	done, err := c.ContainerCommit(t.Context(), "web", client.ContainerCommitOptions{
		Reference: "example.com:5000/a/b:c", Comment: "why", Author: "who", Changes: []string{"USER x"}, NoPause: true,
		Config: &container.Config{Cmd: []string{"top"}},
	})
	assert.NilError(t, err)
	assert.Equal(t, done.ID, "sha256:0123")
	o := w.containers.committed
	assert.Check(t, is.Equal(o.Ref, "example.com:5000/a/b:c"))
	assert.Check(t, is.Equal(o.Comment+" "+o.Author, "why who"))
	assert.Check(t, is.DeepEqual(o.Changes, []string{"USER x"}))
	assert.Check(t, is.DeepEqual(o.Config.Cmd, []string{"top"}))
	assert.Check(t, !o.Pause)

	// Some clients leave the tag in the name.
	for query, ref := range map[string]string{"": "", "&repo=a": "a:latest", "&repo=a:b": "a:b", "&repo=a&tag=b": "a:b", "&repo=a:b&tag=c": "a:c"} {
		rec := w.do("POST", "/commit?container=web"+query, "")
		assert.Check(t, is.Equal(rec.Code, 201), query)
		assert.Check(t, is.Equal(w.containers.committed.Ref, ref), query)
		assert.Check(t, w.containers.committed.Pause, query)
	}
}
