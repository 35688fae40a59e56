package images

import (
	"context"
	"fmt"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/copy"
	imagestorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
)

// progressInterval is how often a layer's progress is told: often enough for an
// eye, seldom enough for a client over a slow line.
const progressInterval = 100 * time.Millisecond

// copyRequest is one image to be stored.
type copyRequest struct {
	src    types.ImageReference
	sys    *types.SystemContext
	id     digest.Digest // the image's ID to be
	report func(types.ProgressProperties)
}

// copyIn stores an image without a name. The image library compares every blob
// with its digest, and every layer with the configuration. An image that is
// there already stays as it is.
func (s *Store) copyIn(ctx context.Context, r copyRequest) error {
	dest, err := imagestorage.Transport.NewStoreReference(s.storage, nil, r.id.Encoded())
	if err != nil {
		return fmt.Errorf("cannot name image %s: %w", r.id, err)
	}
	_, err = copyImage(ctx, dest, r.src, r.report, copy.Options{
		RemoveSignatures:     true, // nobody looks at them
		SourceCtx:            r.sys,
		DestinationCtx:       r.sys,
		MaxParallelDownloads: uint(s.opts.MaxDownloads),
	})
	return err
}

// copyImage has the image library copy an image, and report of it. It returns
// the manifest that was written.
func copyImage(ctx context.Context, dest, src types.ImageReference, report func(types.ProgressProperties), o copy.Options) ([]byte, error) {
	policy, err := acceptAnything()
	if err != nil {
		return nil, fmt.Errorf("cannot make the policy on signatures: %w", err)
	}
	defer policy.Destroy() //nolint:errcheck // holds memory only
	events := make(chan types.ProgressProperties)
	done := make(chan struct{})
	go func() { // ends when copy.Image is done with events, below
		defer close(done)
		for e := range events {
			report(e)
		}
	}()
	defer func() {
		close(events)
		<-done
	}()
	o.Progress, o.ProgressInterval = events, progressInterval
	return copy.Image(ctx, policy, dest, src, &o)
}

// configDigest finds the ID of the image that a source holds, of this
// machine's platform if it holds several.
func configDigest(ctx context.Context, ref types.ImageReference, sys *types.SystemContext) (_ digest.Digest, err error) {
	img, err := ref.NewImage(ctx, sys)
	if err != nil {
		return "", err
	}
	defer img.Close() // it is only read
	return imageID(img)
}

// imageID is the ID of an image: its configuration's digest.
func imageID(img types.Image) (digest.Digest, error) {
	id := img.ConfigInfo().Digest
	if id == "" {
		return "", badArchive("image has no configuration (Docker's manifest schema 1 is not supported)")
	}
	if err := id.Validate(); err != nil || id.Algorithm() != digest.SHA256 {
		return "", badArchive("image has a configuration with the digest %q, which is no SHA-256", id)
	}
	return id, nil
}

// loadReport tells of layers as `docker load` does. The configuration is not
// told of.
func loadReport(progress Progress, config digest.Digest) func(types.ProgressProperties) {
	return func(e types.ProgressProperties) {
		if e.Artifact.Digest == config || e.Artifact.Digest == "" {
			return
		}
		m := jsonstream.Message{ID: shortDigest(e.Artifact.Digest), Status: "Loading layer"}
		switch e.Event {
		case types.ProgressEventRead:
			m.Progress = &jsonstream.Progress{Current: int64(e.Offset), Total: max(e.Artifact.Size, 0)}
		case types.ProgressEventDone:
			m.Progress = &jsonstream.Progress{Current: int64(e.Offset), Total: int64(e.Offset)}
		case types.ProgressEventNewArtifact, types.ProgressEventSkipped:
			return
		}
		progress.send(m)
	}
}

// shortDigest is how a layer is shown: the first twelve hex digits, as in
// Docker.
func shortDigest(d digest.Digest) string {
	hex := d.Encoded()
	return hex[:min(len(hex), 12)]
}
