package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/pkg/compression"
	"go.podman.io/image/v5/types"
)

// guardedSource is a registry's image with a guard at the door: every layer is
// scanned while it is downloaded (scan.go), and what all of them unpack to is
// counted. A layer that is refused fails the download.
//
// It is its own reference, so that the image library copies from the connection
// that the manifest has been read over: what was looked at is what is stored,
// though the tag may move meanwhile. Manifests are asked for once; registries
// count how often they are.
//
// It must not offer the library's way of fetching layers in parts, which would
// go past the scan and give images other IDs.
type guardedSource struct {
	types.ImageReference
	src      types.ImageSource
	budget   *budget
	attempts attempts

	mu        sync.Mutex // guards what follows
	config    digest.Digest
	manifests map[digest.Digest]fetchedManifest // "" is the one that the reference names
}

type fetchedManifest struct {
	raw      []byte
	mimeType string
}

// openGuarded opens ref. The caller calls shut when all is done. progress, if
// not nil, is told of attempts that failed.
func (s *Store) openGuarded(ctx context.Context, ref types.ImageReference, sys *types.SystemContext, progress Progress) (*guardedSource, error) {
	src, err := ref.NewImageSource(ctx, sys)
	if err != nil {
		return nil, err
	}
	wait := func(d digest.Digest, attempt int) time.Duration {
		pause := s.pause(attempt)
		progress.send(jsonstream.Message{ID: shortDigest(d), Status: fmt.Sprintf("Retrying in %s", pause)})
		return pause
	}
	return &guardedSource{
		ImageReference: ref, src: src, budget: &budget{limit: s.opts.MaxLoadBytes}, manifests: map[digest.Digest]fetchedManifest{},
		attempts: attempts{max: s.opts.MaxDownloadAttempts, wait: wait},
	}, nil
}

// NewImageSource is the reference's part: there is one source, this one.
func (g *guardedSource) NewImageSource(context.Context, *types.SystemContext) (types.ImageSource, error) {
	return g.asSource(), nil
}

// asSource is g as the image library takes a source.
func (g *guardedSource) asSource() types.ImageSource { return sourceView{g} }

// NewImage is the reference's part too.
func (g *guardedSource) NewImage(ctx context.Context, sys *types.SystemContext) (types.ImageCloser, error) {
	return image.FromSource(ctx, sys, g.asSource())
}

// sourceView is a guardedSource as a source.
type sourceView struct{ g *guardedSource }

func (v sourceView) Reference() types.ImageReference { return v.g.ImageReference }

// Close does nothing: the library closes its source after each use, and there
// are two.
func (v sourceView) Close() error { return nil }

func (v sourceView) HasThreadSafeGetBlob() bool { return v.g.src.HasThreadSafeGetBlob() }

func (v sourceView) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return nil, nil // nobody looks at them
}

func (v sourceView) LayerInfosForCopy(ctx context.Context, instance *digest.Digest) ([]types.BlobInfo, error) {
	return v.g.src.LayerInfosForCopy(ctx, instance)
}

func (v sourceView) GetManifest(ctx context.Context, instance *digest.Digest) ([]byte, string, error) {
	var key digest.Digest
	if instance != nil {
		key = *instance
	}
	g := v.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if m, ok := g.manifests[key]; ok {
		return m.raw, m.mimeType, nil
	}
	raw, mimeType, err := g.src.GetManifest(ctx, instance)
	if err == nil {
		g.manifests[key] = fetchedManifest{raw, mimeType}
	}
	return raw, mimeType, err
}

// GetBlob guards every blob but the configuration, and tries again where a
// download fails.
func (v sourceView) GetBlob(ctx context.Context, info types.BlobInfo, cache types.BlobInfoCache) (io.ReadCloser, int64, error) {
	g := v.g
	g.mu.Lock()
	config := g.config
	g.mu.Unlock()
	if config == "" || info.Digest == config {
		return g.src.GetBlob(ctx, info, cache)
	}
	size := info.Size
	d := &download{ctx: ctx, size: info.Size, left: g.attempts.max}
	d.open = func() (io.ReadCloser, error) {
		r, said, err := g.src.GetBlob(ctx, info, cache)
		if size < 0 {
			size = said
		}
		return r, err
	}
	d.pause = func() time.Duration { return g.attempts.wait(info.Digest, g.attempts.max-d.left+1) }
	if err := d.start(); err != nil {
		return nil, 0, err
	}
	return guardBlob(ctx, d, g.budget), size, nil
}

// attempts says how often a download is tried.
type attempts struct {
	max int
	// wait tells how long before the attempt of this number, from 2 on, and
	// may tell the client.
	wait func(d digest.Digest, attempt int) time.Duration
}

// setConfig says which blob is the configuration; layers are fetched after.
func (g *guardedSource) setConfig(d digest.Digest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.config = d
}

// shut ends the connection to the registry.
func (g *guardedSource) shut() error { return g.src.Close() }

// guardedBlob passes a blob on and hands a second copy to a scan. The scan's
// goroutine ends with the blob: at its end, or when it is closed.
type guardedBlob struct {
	r    io.ReadCloser
	pipe *io.PipeWriter
	done chan struct{} // closed when the scan has ended
	err  error         // the scan's; read after done
}

func guardBlob(ctx context.Context, r io.ReadCloser, b *budget) io.ReadCloser {
	pr, pw := io.Pipe()
	g := &guardedBlob{r: r, pipe: pw, done: make(chan struct{})}
	go func() {
		defer close(g.done)
		g.err = scanStream(ctx, pr, b)
		if g.err == nil {
			_, g.err = io.Copy(io.Discard, pr)
		}
		pr.CloseWithError(g.err) // always nil
	}()
	return g
}

// scanStream is [scanBlob] for a layer that comes in and cannot be read twice.
func scanStream(ctx context.Context, r io.Reader, b *budget) error {
	unpacked, _, err := compression.AutoDecompress(r)
	if err != nil {
		return unpackError(err)
	}
	defer unpacked.Close() // it is only read
	metered := &meteredReader{ctx: ctx, r: unpacked, budget: b}
	if err := scanLayer(ctx, metered, b); err != nil {
		if errors.Is(err, errNotTar) {
			return badArchive("a layer of the image is no tar archive")
		}
		return err
	}
	if _, err := io.Copy(io.Discard, metered); err != nil {
		return unpackError(err)
	}
	return nil
}

func (g *guardedBlob) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if n > 0 {
		if _, werr := g.pipe.Write(p[:n]); werr != nil {
			<-g.done
			return 0, errors.Join(g.err, werr)
		}
	}
	if errors.Is(err, io.EOF) {
		g.pipe.Close() // always nil
		<-g.done
		if g.err != nil {
			return n, g.err
		}
	}
	return n, err
}

func (g *guardedBlob) Close() error {
	g.pipe.CloseWithError(io.ErrClosedPipe) // always nil
	<-g.done
	return g.r.Close()
}
