package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CommitOptions say what image is made of a container.
type CommitOptions struct {
	// ContainerID is whose image the new one stands on.
	ContainerID string
	// Ref is the image's name; empty for none.
	Ref string
	// Config is the container's; Changes are Dockerfile instructions on top of it, as with Import.
	Config  dockerspec.DockerOCIImageConfig
	Changes []string
	// Author, Comment and CreatedBy go into the image's history.
	Author, Comment, CreatedBy string
}

// emptyTar is the digest of an archive of nothing: two blocks of zeros.
const emptyTar = digest.Digest("sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef")

// Commit makes an image of a container's image and one more layer, and returns its ID. The layer is a tar archive with
// whiteouts as the OCI image specification has them, uncompressed; all of it has been read when spooled is called.
// Until the image is whole there is none: a Commit that is cut short leaves at most a layer, which Open deletes.
// Errors: errdefs.ErrNotFound without the root filesystem or its image, errdefs.ErrInvalidArgument for a bad name or change.
func (s *Store) Commit(ctx context.Context, o CommitOptions, layer io.Reader, spooled func()) (_ digest.Digest, err error) {
	var tag reference.NamedTagged
	if o.Ref != "" {
		if tag, err = parseTag(o.Ref); err != nil {
			return "", err
		}
	}
	if err := applyChanges(&o.Config, o.Changes); err != nil {
		return "", err
	}
	base, err := s.baseOf(ctx, o.ContainerID)
	if err != nil {
		return "", err
	}
	a, err := s.spool(ctx, layer, &budget{limit: s.opts.MaxLoadBytes})
	spooled()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	in, err := a.onTopOf(ctx, base, o)
	if err != nil {
		return "", err
	}
	return in.id, s.bringInAs(ctx, in, tag)
}

// base is the image that another one stands on.
type base struct {
	config dockerspec.DockerOCIImage
	layers []ocispec.Descriptor // lowest first, uncompressed
}

// baseOf reads the image of a root filesystem, also one that has been removed by force.
func (s *Store) baseOf(ctx context.Context, containerID string) (base, error) {
	var b base
	id, err := s.RootfsImage(ctx, containerID)
	if err != nil {
		return b, err
	}
	stored, err := s.storage.Image(id.Encoded())
	if err != nil {
		return b, errNoImage(id.String())
	}
	img, err := s.read(*stored)
	if err != nil {
		return b, err
	}
	b.config = img.Config
	for at := stored.TopLayer; at != ""; {
		l, err := s.storage.Layer(at)
		if err != nil {
			return b, fmt.Errorf("cannot read layer %s of image %s: %w", at, id, err)
		}
		b.layers = append(b.layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Size: l.UncompressedSize})
		at = l.Parent
	}
	slices.Reverse(b.layers)
	if len(b.layers) != len(b.config.RootFS.DiffIDs) {
		return b, fmt.Errorf("image %s has %d layers, and %d in its configuration", id, len(b.layers), len(b.config.RootFS.DiffIDs))
	}
	for i, id := range b.config.RootFS.DiffIDs {
		b.layers[i].Digest = id
	}
	return b, nil
}

// onTopOf makes an OCI layout of an archive that is one more layer. The layers below are not in it: the storage has them.
func (a *archive) onTopOf(ctx context.Context, b base, o CommitOptions) (incoming, error) {
	layer, err := a.takeAsBlob(ctx)
	if err != nil {
		return incoming{}, err
	}
	now := time.Now().UTC()
	img := b.config
	img.Config, img.Author, img.Created = o.Config, o.Author, &now
	img.History = append(slices.Clone(img.History), ocispec.History{
		Created: &now, CreatedBy: o.CreatedBy, Author: o.Author, Comment: o.Comment, EmptyLayer: layer.Digest == emptyTar,
	})
	layers := b.layers
	if layer.Digest != emptyTar {
		layers = append(layers, layer)
		img.RootFS.DiffIDs = append(slices.Clone(img.RootFS.DiffIDs), layer.Digest)
	}
	return a.asLayout(img, layers)
}

// RootfsChanges tells what of a container's files is not as in its image, by path.
func (s *Store) RootfsChanges(ctx context.Context, containerID string) ([]container.FilesystemChange, error) {
	layer, err := s.rootfsLayer(containerID)
	if err != nil {
		return nil, err
	}
	// The driver and not the store, which would hold its lock for as long as the walk takes.
	driver, err := s.storage.GraphDriver()
	if err != nil {
		return nil, fmt.Errorf("cannot reach the storage driver: %w", err)
	}
	found, err := driver.Changes(layer.ID, nil, layer.Parent, nil, "")
	if err != nil {
		return nil, fmt.Errorf("cannot compare container %s with its image: %w", containerID, err)
	}
	changes := make([]container.FilesystemChange, 0, len(found))
	for _, c := range found {
		changes = append(changes, container.FilesystemChange{Path: c.Path, Kind: container.ChangeType(c.Kind)})
	}
	slices.SortFunc(changes, func(a, b container.FilesystemChange) int { return strings.Compare(a.Path, b.Path) })
	return changes, ctx.Err()
}

// RootfsDiff is what a container has written as a layer, made by the storage driver, which reads the container's
// files by their paths: nobody may be changing them meanwhile. Its owner closes it.
func (s *Store) RootfsDiff(ctx context.Context, containerID string) (io.ReadCloser, error) {
	layer, err := s.rootfsLayer(containerID)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	diff, err := s.storage.Diff(layer.Parent, layer.ID, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot read what container %s has written: %w", containerID, err)
	}
	return diff, nil
}
