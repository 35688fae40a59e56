package images

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/pkg/blobinfocache/none"
	"go.podman.io/image/v5/types"
	layerarchive "go.podman.io/storage/pkg/archive"
)

// A layer is stored uncompressed, and a registry has it compressed, under another digest. The pair are twins.
// Which compressed twins a layer is known to have is learned from pulls, where the storage notes it, and from
// pushes, where lrd does. A push asks the registry for the twins first, and sends only the layers that it has
// not got; the image then has the digest there that it had before.

// twinsKey is the name of the note on twins among an image's data.
const twinsKey = "lrd-twins"

// twin is a compressed layer.
type twin struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// twins are those that are known of an image's layers, by the digest of the uncompressed one.
func (s *Store) twins(img Image) map[digest.Digest]twin {
	known := map[digest.Digest]twin{}
	if raw, err := s.storage.ImageBigData(img.ID.Encoded(), twinsKey); err == nil {
		if err := json.Unmarshal(raw, &known); err != nil {
			s.log.Warn("cannot read which layers of an image were pushed; all will be", "image", img.ID, "error", err)
			known = map[digest.Digest]twin{}
		}
	}
	for id := img.topLayer; id != ""; {
		l, err := s.storage.Layer(id)
		if err != nil {
			break // the push will say so
		}
		if _, pushed := known[l.UncompressedDigest]; !pushed && l.CompressionType == layerarchive.Gzip && l.CompressedDigest != l.UncompressedDigest {
			known[l.UncompressedDigest] = twin{Digest: l.CompressedDigest, Size: l.CompressedSize}
		}
		id = l.Parent
	}
	return known
}

// noteTwins notes the twins that a manifest has, which was pushed. A push that is not noted is only slower
// the next time.
func (s *Store) noteTwins(img Image, raw []byte) {
	m, err := manifest.FromBlob(raw, manifest.GuessMIMEType(raw))
	if err != nil {
		return
	}
	layers := m.LayerInfos()
	if len(layers) != len(img.Config.RootFS.DiffIDs) {
		return
	}
	known := map[digest.Digest]twin{}
	for i, l := range layers {
		if strings.HasSuffix(l.MediaType, "gzip") {
			known[img.Config.RootFS.DiffIDs[i]] = twin{Digest: l.Digest, Size: l.Size}
		}
	}
	note, err := json.Marshal(known)
	if err == nil {
		err = s.storage.SetImageBigData(img.ID.Encoded(), twinsKey, note, nil)
	}
	if err != nil {
		s.log.Warn("cannot note which layers of an image were pushed", "image", img.ID, "error", err)
	}
}

// twinSource is an image of the storage whose layers have the digests of their twins where the destination has
// these. It is its own reference.
type twinSource struct {
	types.ImageReference
	there map[digest.Digest]twin // at the destination, by the digest of the uncompressed layer
}

// withTwins asks a destination which twins it has. The reference is src itself if it has none.
func (s *Store) withTwins(ctx context.Context, img Image, src, dest types.ImageReference, sys *types.SystemContext) (_ types.ImageReference, uncompressed map[digest.Digest]digest.Digest, err error) {
	known := s.twins(img)
	if len(known) == 0 {
		return src, nil, nil
	}
	d, err := dest.NewImageDestination(ctx, sys)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close() // nothing was written
	there := map[digest.Digest]twin{}
	uncompressed = map[digest.Digest]digest.Digest{}
	for layer, t := range known {
		if t.Digest.Validate() != nil {
			continue
		}
		ok, _, err := d.TryReusingBlob(ctx, types.BlobInfo{Digest: t.Digest, Size: t.Size}, none.NoCache, false)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot ask for a layer: %w", err)
		}
		if ok {
			there[layer], uncompressed[t.Digest] = t, layer
		}
	}
	return twinSource{ImageReference: src, there: there}, uncompressed, nil
}

func (t twinSource) NewImageSource(ctx context.Context, sys *types.SystemContext) (types.ImageSource, error) {
	src, err := t.ImageReference.NewImageSource(ctx, sys)
	if err != nil {
		return nil, err
	}
	return twinView{ImageSource: src, twins: t}, nil
}

func (t twinSource) NewImage(ctx context.Context, sys *types.SystemContext) (types.ImageCloser, error) {
	src, err := t.NewImageSource(ctx, sys)
	if err != nil {
		return nil, err
	}
	return image.FromSource(ctx, sys, src)
}

// twinView is a twinSource as a source.
type twinView struct {
	types.ImageSource
	twins twinSource
}

func (v twinView) Reference() types.ImageReference { return v.twins }

func (v twinView) LayerInfosForCopy(ctx context.Context, instance *digest.Digest) ([]types.BlobInfo, error) {
	layers, err := v.ImageSource.LayerInfosForCopy(ctx, instance)
	if err != nil {
		return nil, err
	}
	for i, l := range layers {
		t, ok := v.twins.there[l.Digest]
		switch {
		case !ok:
		case l.MediaType == manifest.DockerV2SchemaLayerMediaTypeUncompressed:
			layers[i] = types.BlobInfo{Digest: t.Digest, Size: t.Size, MediaType: manifest.DockerV2Schema2LayerMediaType}
		case strings.HasSuffix(l.MediaType, ".tar"): // OCI's
			layers[i] = types.BlobInfo{Digest: t.Digest, Size: t.Size, MediaType: l.MediaType + "+gzip"}
		}
	}
	return layers, nil
}
