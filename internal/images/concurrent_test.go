package images

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
)

// Loads that share layers, some of them refused, lists and removals at the same
// time: the good images are whole in the end, and nothing else is there.
func TestEverybodyAtOnce(t *testing.T) {
	s := openStore(t, nil)
	base := simpleImage(t, "base")
	var wg sync.WaitGroup
	for i := range 6 {
		img := simpleImage(t, fmt.Sprint(i), fmt.Sprintf("img%d:1", i))
		img.layers = append([][]byte{base.layers[0]}, img.layers...)
		archive := dockerArchive(t, []testImage{img})
		lie := img
		lie.diffIDs = []digest.Digest{digest.FromBytes(base.layers[0]), digest.FromString("else")}
		bad := dockerArchive(t, []testImage{lie})
		wg.Go(func() {
			assert.Check(t, s.Load(t.Context(), bytes.NewReader(archive), nil))
		})
		wg.Go(func() {
			err := s.Load(t.Context(), bytes.NewReader(bad), nil)
			assert.Check(t, errdefs.IsInvalidArgument(err), "%v", err)
		})
		wg.Go(func() {
			_, err := s.List(t.Context(), ListOptions{SharedSize: true})
			assert.Check(t, err)
		})
	}
	wg.Wait()
	list, err := s.List(t.Context(), ListOptions{})
	assert.NilError(t, err)
	assert.Equal(t, len(list), 6)
	assertClean(t, s)

	for i := range 6 {
		id := fmt.Sprintf("%064x", i)
		img, err := s.Resolve(t.Context(), fmt.Sprintf("img%d:1", i))
		assert.NilError(t, err)
		wg.Go(func() {
			assert.Check(t, s.CreateRootfs(t.Context(), id, img.ID.String()))
			for range 3 {
				_, err := s.MountRootfs(t.Context(), id)
				assert.Check(t, err)
			}
			assert.Check(t, s.RemoveRootfs(t.Context(), id))
			_, err := s.Remove(t.Context(), img.ID.String(), false, nil)
			assert.Check(t, err)
		})
	}
	wg.Wait()
	assertEmpty(t, s)
}
