package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	ocilayout "go.podman.io/image/v5/oci/layout"
)

// ImportOptions says what `docker import` makes of a root filesystem.
type ImportOptions struct {
	// Ref is the image's name; empty for none.
	Ref string
	// Message is the image's comment.
	Message string
	// Changes are Dockerfile instructions that set the configuration: CMD,
	// ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME,
	// WORKDIR.
	Changes []string
	// Platform is written into the image; nil means this machine's.
	Platform *ocispec.Platform
}

// Import makes an image of one layer from a tar archive of a root filesystem,
// plain or compressed, and tells its ID, as a status message too. Limits,
// scan and errors are those of [Store.Load].
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions, progress Progress) (_ digest.Digest, err error) {
	var tag reference.NamedTagged
	if o.Ref != "" {
		if tag, err = parseTag(o.Ref); err != nil {
			return "", err
		}
	}
	var config dockerspec.DockerOCIImageConfig
	if err := applyChanges(&config, o.Changes); err != nil {
		return "", err
	}
	a, err := s.spool(ctx, r, &budget{limit: s.opts.MaxLoadBytes})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if err := a.scanRootfs(ctx, &budget{limit: s.opts.MaxLoadBytes}); err != nil {
		return "", err
	}
	in, err := a.asImage(ctx, o, config)
	if err != nil {
		return "", err
	}
	if err := s.bringInAs(ctx, in, tag); err != nil {
		return "", err
	}
	progress.send(jsonstream.Message{Status: in.id.String()})
	return in.id, nil
}

// scanRootfs looks through an archive that is one layer.
func (a *archive) scanRootfs(ctx context.Context, b *budget) error {
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("cannot read the archive again: %w", err)
	}
	err := scanLayer(ctx, a.file, b)
	if errors.Is(err, errNotTar) {
		return badArchive("not a tar archive")
	}
	return err
}

// asImage makes an OCI layout of an archive that is one layer.
func (a *archive) asImage(ctx context.Context, o ImportOptions, config dockerspec.DockerOCIImageConfig) (incoming, error) {
	layer, err := a.takeAsBlob(ctx)
	if err != nil {
		return incoming{}, err
	}
	now := time.Now().UTC()
	img := dockerspec.DockerOCIImage{Config: config}
	img.Created = &now
	img.OS, img.Architecture = runtime.GOOS, runtime.GOARCH
	if p := o.Platform; p != nil {
		img.Platform = *p
	}
	img.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}
	img.History = []ocispec.History{{Created: &now, Comment: o.Message}}
	return a.asLayout(img, []ocispec.Descriptor{layer})
}

// asLayout makes an OCI layout with one image. Layers that the storage has need not be in it.
func (a *archive) asLayout(img dockerspec.DockerOCIImage, layers []ocispec.Descriptor) (incoming, error) {
	conf, err := a.putBlob(ocispec.MediaTypeImageConfig, img)
	if err != nil {
		return incoming{}, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: conf, Layers: layers,
	}
	manifest, err := a.putBlob(ocispec.MediaTypeImageManifest, m)
	if err != nil {
		return incoming{}, err
	}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{manifest},
	}
	if err := a.putJSON(ocispec.ImageIndexFile, index); err != nil {
		return incoming{}, err
	}
	if err := a.putJSON(ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return incoming{}, err
	}
	ref, err := ocilayout.NewIndexReference(a.layout(), 0)
	if err != nil {
		return incoming{}, fmt.Errorf("cannot make an image of the archive: %w", err)
	}
	return incoming{ref: ref, id: conf.Digest}, nil
}

// layout is the directory of the archive's OCI layout.
func (a *archive) layout() string { return filepath.Join(a.dir, "layout") }

// blob is where a blob of the layout goes.
func (a *archive) blob(d digest.Digest) string {
	return filepath.Join(a.layout(), ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// takeAsBlob moves the uncompressed archive into the layout, as a layer.
func (a *archive) takeAsBlob(ctx context.Context) (ocispec.Descriptor, error) {
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("cannot read the archive again: %w", err)
	}
	digester := digest.Canonical.Digester()
	size, err := io.Copy(digester.Hash(), &contextReader{ctx: ctx, r: a.file})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("cannot read the archive again: %w", err)
	}
	d := digester.Digest()
	if err := os.MkdirAll(filepath.Dir(a.blob(d)), 0o700); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("cannot make an image of the archive: %w", err)
	}
	if err := os.Rename(a.path(), a.blob(d)); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("cannot make an image of the archive: %w", err)
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size}, nil
}

// putBlob writes a blob of JSON into the layout.
func (a *archive) putBlob(mediaType string, v any) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("cannot make an image of the archive: %w", err)
	}
	d := digest.FromBytes(raw)
	if err := os.WriteFile(a.blob(d), raw, 0o600); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("cannot make an image of the archive: %w", err)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}, nil
}

// putJSON writes one of the layout's own files.
func (a *archive) putJSON(name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot make an image of the archive: %w", err)
	}
	if err := os.WriteFile(filepath.Join(a.layout(), name), raw, 0o600); err != nil {
		return fmt.Errorf("cannot make an image of the archive: %w", err)
	}
	return nil
}
