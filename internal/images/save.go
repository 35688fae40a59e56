package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	dockerarchive "go.podman.io/image/v5/docker/archive"
	"go.podman.io/image/v5/types"
)

// SaveOptions says what to save.
type SaveOptions struct {
	// Platform, if not nil, is the one that the images must be of.
	Platform *ocispec.Platform
}

// outgoing is one image of an archive that is written.
type outgoing struct {
	img  Image
	tags []reference.NamedTagged
}

// Save writes the images that refs name into w as one archive, in the form of
// `docker save` (manifest.json, configurations, layers) that every Docker, podman
// and skopeo reads. A reference by ID or digest brings no name along, a name
// without a tag all tags of its repository. A layer that several images have is written once.
//
// Nothing is written before all references are found. An error after that
// leaves an archive without its end and its manifest, which nobody takes for
// a whole one; the caller must not make its stream look complete either.
// Errors: errdefs.ErrNotFound, errdefs.ErrInvalidArgument for what is no
// reference.
func (s *Store) Save(ctx context.Context, refs []string, o SaveOptions, w io.Writer) error {
	list, err := s.outgoing(refs, o)
	if err != nil {
		return err
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot save images: %w", err)
	}
	sent := make(chan error, 1)
	go func() { // ends with the pipe, which is closed below
		_, err := io.Copy(w, pr)
		// Closed here too, so that nobody writes on for a client that is gone.
		sent <- errors.Join(err, pr.Close())
	}()
	err = s.writeArchive(ctx, list, pw, pr)
	lost := <-sent
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case lost != nil: // the cause of the other one
		return fmt.Errorf("cannot send the archive: %w", lost)
	case err != nil:
		return fmt.Errorf("cannot save images: %w", err)
	}
	return nil
}

// outgoing finds what refs name, each image once, in their order.
func (s *Store) outgoing(refs []string, o SaveOptions) ([]*outgoing, error) {
	if len(refs) == 0 {
		return nil, newError(errdefs.ErrInvalidArgument, "no image is named: nothing to save")
	}
	var list []*outgoing
	known := map[string]*outgoing{}
	add := func(img Image, tags ...reference.NamedTagged) {
		out := known[img.ID.String()]
		if out == nil {
			out = &outgoing{img: img}
			known[img.ID.String()] = out
			list = append(list, out)
		}
		for _, tag := range tags {
			if !slices.ContainsFunc(out.tags, func(have reference.NamedTagged) bool { return have.String() == tag.String() }) {
				out.tags = append(out.tags, tag)
			}
		}
	}
	for _, ref := range refs {
		if tags, err := s.repositoryTags(ref); err != nil {
			return nil, err
		} else if len(tags) > 0 {
			for _, tag := range tags {
				img, err := s.resolve(tag.String())
				if err != nil {
					return nil, err
				}
				add(img, tag)
			}
			continue
		}
		img, err := s.resolve(ref)
		if err != nil {
			return nil, err
		}
		if tag, err := parseTag(ref); err == nil && !namedByID(img, ref) {
			add(img, tag)
			continue
		}
		add(img)
	}
	for _, out := range list {
		if err := suits(shortDigest(out.img.ID), out.img.Config.Platform, o.Platform); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// repositoryTags are all names in a repository, if that is what ref is: a name
// without a tag, and not the beginning of an ID.
func (s *Store) repositoryTags(ref string) ([]reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil || !reference.IsNameOnly(named) {
		return nil, nil //nolint:nilerr // an ID; what is no reference at all is refused where it is looked up
	}
	return s.tagsOf(named)
}

// writeArchive writes the archive into pw and closes it. An archive that failed
// is cut off by closing the reader's side too, before its end can be written.
func (s *Store) writeArchive(ctx context.Context, list []*outgoing, pw, pr *os.File) (err error) {
	sys := s.systemContext()
	// The library opens a path. It gets a description of its own, so that ours can be closed at once.
	archive, err := dockerarchive.NewWriter(sys, fmt.Sprintf("/proc/self/fd/%d", pw.Fd()))
	if cerr := pw.Close(); err != nil {
		return errors.Join(err, cerr)
	}
	defer func() {
		if err != nil {
			pr.Close() // the reader's copy ends here; it closes once more, which is no matter
		}
		err = errors.Join(err, archive.Close())
	}()
	for _, out := range list {
		if err := s.writeImage(ctx, archive, sys, out); err != nil {
			return err
		}
	}
	return nil
}

// writeImage adds one image to an archive.
func (s *Store) writeImage(ctx context.Context, archive *dockerarchive.Writer, sys *types.SystemContext, out *outgoing) error {
	named := *sys
	var first reference.NamedTagged
	if len(out.tags) > 0 {
		first = familiarTag{out.tags[0]}
		for _, tag := range out.tags[1:] {
			named.DockerArchiveAdditionalTags = append(named.DockerArchiveAdditionalTags, familiarTag{tag})
		}
	}
	dest, err := archive.NewReference(first)
	if err != nil {
		return err
	}
	_, err = s.copyOut(ctx, outRequest{
		img: out.img, dest: dest, sys: &named, parallel: 1, // an archive is written in order
		report: func(types.ProgressProperties) {},
	})
	return err
}

// familiarTag is a name in the form that `docker save` writes into an archive:
// "busybox:1" rather than "docker.io/library/busybox:1".
type familiarTag struct{ reference.NamedTagged }

func (f familiarTag) Name() string   { return reference.FamiliarName(f.NamedTagged) }
func (f familiarTag) String() string { return reference.FamiliarString(f.NamedTagged) }
