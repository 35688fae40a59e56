package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/distribution/registry/api/errcode"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"
)

// PushOptions says how to push.
type PushOptions struct {
	// AllTags asks for every tag of the repository; a name with a tag is
	// an error then.
	AllTags bool
	// Platform, if not nil, is the one that the image must be of.
	Platform *ocispec.Platform
	// Auth is what the client has sent in X-Registry-Auth; nil means none.
	Auth *registry.AuthConfig
}

// Push sends the image that ref names ("latest" if it has no tag) to its
// registry, and notes the digest that it has there among the image's names.
// Layers that the registry has are not sent. Errors: errdefs.ErrNotFound when
// there is no image of that name, errdefs.ErrInvalidArgument for a name that
// cannot be pushed to, errdefs.ErrPermissionDenied when the registry refuses.
func (s *Store) Push(ctx context.Context, ref string, o PushOptions, progress Progress) error {
	targets, err := s.pushTargets(ref, o.AllTags)
	if err != nil {
		return err
	}
	for _, named := range targets {
		img, err := s.resolve(named.String())
		if err != nil {
			return err
		}
		if err := suits(reference.FamiliarString(named), img.Config.Platform, o.Platform); err != nil {
			return err
		}
	}
	progress.send(jsonstream.Message{Status: "The push refers to repository [" + reference.TrimNamed(targets[0]).Name() + "]"})
	for _, named := range targets {
		if err := s.pushOne(ctx, named, o, progress); err != nil {
			return pushError(ctx, named, err)
		}
	}
	return nil
}

// pushTargets are the names with tags that a push is of.
func (s *Store) pushTargets(ref string, all bool) ([]reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, badName(ref, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, newError(errdefs.ErrInvalidArgument, "cannot push a digest reference: %q: push a tag, the registry tells the digest", ref)
	}
	if !all {
		tagged, err := parseTag(ref)
		if err != nil {
			return nil, err
		}
		if _, err := s.storage.Image(tagged.String()); err != nil {
			return nil, newError(errdefs.ErrNotFound, "An image does not exist locally with the tag: %s", reference.FamiliarString(tagged)) // clients look for the sentence as it is
		}
		return []reference.NamedTagged{tagged}, nil
	}
	if !reference.IsNameOnly(named) {
		return nil, newError(errdefs.ErrInvalidArgument, "tag can't be used with --all-tags/-a: %q", ref)
	}
	tags, err := s.tagsOf(named)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		return nil, newError(errdefs.ErrNotFound, "An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	return tags, nil
}

// tagsOf are the names with tags that images have in a repository, sorted.
func (s *Store) tagsOf(repo reference.Named) ([]reference.NamedTagged, error) {
	images, err := s.visible()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, img := range images {
		names = append(names, img.Names...)
	}
	slices.Sort(names)
	var tags []reference.NamedTagged
	for _, name := range slices.Compact(names) {
		if named, err := reference.ParseNormalizedNamed(name); err == nil && named.Name() == repo.Name() {
			if tagged, ok := named.(reference.NamedTagged); ok {
				tags = append(tags, tagged)
			}
		}
	}
	return tags, nil
}

// pushOne sends one image.
func (s *Store) pushOne(ctx context.Context, named reference.NamedTagged, o PushOptions, progress Progress) error {
	img, err := s.resolve(named.String())
	if err != nil {
		return err
	}
	dest, err := docker.NewReference(named)
	if err != nil {
		return newError(errdefs.ErrInvalidArgument, "invalid reference format: %q: %w", named, err)
	}
	for _, d := range img.Config.RootFS.DiffIDs {
		progress.send(jsonstream.Message{ID: shortDigest(d), Status: "Preparing"})
	}
	raw, err := s.copyOut(ctx, outRequest{
		img: img, dest: dest, sys: s.registryContext(named, o.Auth),
		parallel: s.opts.MaxUploads, twins: true, report: pushReport(progress, img.ID),
	})
	if err != nil {
		return err
	}
	s.noteTwins(img, raw)
	d, err := manifest.Digest(raw)
	if err != nil {
		return fmt.Errorf("cannot tell the digest of what was pushed: %w", err)
	}
	pinned, err := reference.WithDigest(reference.TrimNamed(named), d)
	if err != nil {
		return fmt.Errorf("cannot name image %s: %w", img.ID, err)
	}
	// A tag of the image is what it is pushed as, so that this is no new tag.
	if err := s.storage.AddNames(img.ID.Encoded(), []string{pinned.String()}); err != nil {
		return fmt.Errorf("cannot name image %s as %s: %w", img.ID, reference.FamiliarString(pinned), err)
	}
	progress.send(jsonstream.Message{Status: fmt.Sprintf("%s: digest: %s size: %d", named.Tag(), d, len(raw))})
	return progress.aux(pushed{Tag: named.Tag(), Digest: d, Size: len(raw)})
}

// pushed is what programs read of a push that is done; Docker's client looks for
// the digest in it.
type pushed struct {
	Tag    string
	Digest digest.Digest
	Size   int
}

// aux tells something to programs.
func (p Progress) aux(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot tell what was done: %w", err)
	}
	p.send(jsonstream.Message{Aux: (*json.RawMessage)(&raw)})
	return nil
}

// pushReport tells of layers as `docker push` draws them.
func pushReport(progress Progress, config digest.Digest) func(types.ProgressProperties) {
	return func(e types.ProgressProperties) {
		if e.Artifact.Digest == config || e.Artifact.Digest == "" {
			return
		}
		m := jsonstream.Message{ID: shortDigest(e.Artifact.Digest), Status: "Pushing"}
		switch e.Event {
		case types.ProgressEventNewArtifact:
		case types.ProgressEventRead:
			m.Progress = &jsonstream.Progress{Current: int64(e.Offset), Total: max(e.Artifact.Size, 0)}
		case types.ProgressEventDone:
			m.Status = "Pushed"
		case types.ProgressEventSkipped:
			m.Status = "Layer already exists"
		}
		progress.send(m)
	}
}

// pushError is what a client is told of a push that failed.
func pushError(ctx context.Context, named reference.Named, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) {
		return err
	}
	code := registryCode(err)
	_, unauthorized := errors.AsType[docker.ErrUnauthorizedForCredentials](err)
	status, _ := errors.AsType[docker.UnexpectedHTTPStatusError](err)
	switch {
	case unauthorized, code == errcode.ErrorCodeUnauthorized, status.StatusCode == http.StatusUnauthorized:
		return newError(errdefs.ErrPermissionDenied, "unauthorized: cannot push to %s: docker login may help: %w", reference.FamiliarName(named), err)
	case code == errcode.ErrorCodeDenied, status.StatusCode == http.StatusForbidden:
		return newError(errdefs.ErrPermissionDenied, "denied: requested access to the resource is denied: cannot push to %s: %w", reference.FamiliarName(named), err)
	}
	return fmt.Errorf("cannot push %s: %w", reference.FamiliarString(named), err)
}
