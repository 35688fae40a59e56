package images

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/copy"
	imagestorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
)

// outRequest is one image on its way out.
type outRequest struct {
	img      Image
	dest     types.ImageReference
	sys      *types.SystemContext
	parallel int // layers at the same time
	// twins: the destination is asked first for the layers that it has.
	twins  bool
	report func(types.ProgressProperties)
}

// copyOut copies an image out of the storage and returns the manifest that it
// has there. A layer is written to TempDir before it is sent, so that the
// storage is not locked for as long as somebody takes to receive it.
func (s *Store) copyOut(ctx context.Context, r outRequest) ([]byte, error) {
	src, err := imagestorage.Transport.NewStoreReference(s.storage, nil, r.img.ID.Encoded())
	if err != nil {
		return nil, fmt.Errorf("cannot find image %s: %w", r.img.ID, err)
	}
	report := r.report
	var source types.ImageReference = src
	if r.twins {
		var uncompressed map[digest.Digest]digest.Digest
		if source, uncompressed, err = s.withTwins(ctx, r.img, src, r.dest, r.sys); err != nil {
			return nil, err
		}
		report = func(e types.ProgressProperties) {
			if layer, ok := uncompressed[e.Artifact.Digest]; ok {
				e.Artifact.Digest = layer // what the client knows it by
			}
			r.report(e)
		}
	}
	return copyImage(ctx, r.dest, source, report, copy.Options{
		RemoveSignatures:     true, // nobody has looked at them
		SourceCtx:            r.sys,
		DestinationCtx:       r.sys,
		MaxParallelDownloads: uint(max(r.parallel, 1)), // the library's name for copies in either direction
	})
}
