package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/distribution/registry/api/errcode"
	registryv2 "github.com/docker/distribution/registry/api/v2"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"
)

// PullOptions says how to pull.
type PullOptions struct {
	// AllTags asks for every tag that the repository has; a name with a tag
	// or a digest is an error then.
	AllTags bool
	// Platform is the one wanted; nil means this machine's.
	Platform *ocispec.Platform
	// Auth is what the client has sent in X-Registry-Auth; nil means none.
	Auth *registry.AuthConfig
}

// Pull fetches the image that ref names (by tag, "latest" if it has none, or by
// digest) from its registry, or from a mirror. Errors: errdefs.ErrNotFound when
// the registry does not have it or wants a login, errdefs.ErrInvalidArgument
// for a name that is none and for an image that is refused (the package's
// comment).
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions, progress Progress) (err error) {
	if o.AllTags {
		return s.pullAll(ctx, ref, o, progress)
	}
	named, err := parseName(ref)
	if err != nil {
		return err
	}
	source, err := docker.NewReference(named)
	if err != nil {
		return newError(errdefs.ErrInvalidArgument, "invalid reference format: %q: %w", ref, err)
	}
	sys := s.pullContext(named, o)
	progress = progress.oneAtATime()
	g, err := s.openGuarded(ctx, source, sys, progress)
	if err != nil {
		return pullError(ctx, named, err)
	}
	defer func() { err = errors.Join(err, g.shut()) }()
	head, err := describe(ctx, g, sys)
	if err != nil {
		return pullError(ctx, named, platformError(o.Platform, err))
	}
	if err := suits(reference.FamiliarString(named), head.platform, o.Platform); err != nil {
		return err
	}
	// Nothing is told before: an error without a message is one with a status of its own for API clients.
	progress.send(jsonstream.Message{Status: "Pulling from " + reference.Path(reference.TrimNamed(named)), ID: tagOrDigest(named)})
	return s.pullGuarded(ctx, g, head, named, sys, progress)
}

// pullAll fetches all tags of a repository, one after the other.
func (s *Store) pullAll(ctx context.Context, ref string, o PullOptions, progress Progress) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return badName(ref, err)
	}
	if !reference.IsNameOnly(named) {
		return newError(errdefs.ErrInvalidArgument, "tag can't be used with --all-tags/-a: %q", ref)
	}
	source, err := docker.NewReference(reference.TagNameOnly(named))
	if err != nil {
		return newError(errdefs.ErrInvalidArgument, "invalid reference format: %q: %w", ref, err)
	}
	tags, err := docker.GetRepositoryTags(ctx, s.registryContext(named, o.Auth), source)
	if err != nil {
		return pullError(ctx, named, err)
	}
	o.AllTags = false
	for _, tag := range tags {
		tagged, err := reference.WithTag(named, tag)
		if err != nil {
			return newError(errdefs.ErrInvalidArgument, "registry has a tag %q of %s, which is none: %w", tag, reference.FamiliarName(named), err)
		}
		if err := s.Pull(ctx, tagged.String(), o, progress); err != nil {
			return err
		}
	}
	return nil
}

// pullGuarded stores and names what a registry has.
func (s *Store) pullGuarded(ctx context.Context, g *guardedSource, head pulled, named reference.Named, sys *types.SystemContext, progress Progress) (err error) {
	s.gate.enter()
	s.claims.take(head.id, s.storage.Exists)
	defer func() {
		s.claims.giveBack(head.id, err == nil, s.discard)
		// What an interrupted pull has got is there for the next one.
		keep := err != nil && (ctx.Err() != nil || interrupted(err))
		if !keep {
			s.forgetPull(head.id)
		}
		if cerr := s.gate.leave(err != nil); cerr != nil {
			s.log.Warn("cannot delete the layers of an image that was not pulled", "error", cerr)
		}
	}()
	if err := s.notePull(head.id, pullNote{Ref: named.String(), Since: time.Now().UTC(), Layers: head.layers}); err != nil {
		return err
	}
	had, known := s.storage.Image(named.String())
	report := &pullReport{progress: progress, config: head.id}
	if err := s.copyIn(ctx, copyRequest{src: g, sys: sys, id: head.id, report: report.event}); err != nil {
		return pullError(ctx, named, err)
	}
	report.finish()
	pinned, err := reference.WithDigest(reference.TrimNamed(named), head.manifest)
	if err != nil {
		return fmt.Errorf("cannot name image %s: %w", head.id, err)
	}
	for _, name := range []reference.Named{pinned, named} {
		if _, err := s.giveName(head.id, name); err != nil {
			return err
		}
	}
	progress.send(jsonstream.Message{Status: "Digest: " + head.manifest.String()})
	status := "Status: Downloaded newer image for "
	if known == nil && had.ID == head.id.Encoded() {
		status = "Status: Image is up to date for "
	}
	progress.send(jsonstream.Message{Status: status + reference.FamiliarString(named)})
	return nil
}

// pullContext is the context of a pull.
func (s *Store) pullContext(named reference.Named, o PullOptions) *types.SystemContext {
	sys := s.registryContext(named, o.Auth)
	if p := o.Platform; p != nil {
		sys.OSChoice, sys.ArchitectureChoice, sys.VariantChoice = p.OS, p.Architecture, p.Variant
	}
	return sys
}

// pulled is what is known of an image before its layers are fetched.
type pulled struct {
	manifest digest.Digest // of what the reference names, a list of platforms maybe
	id       digest.Digest
	platform ocispec.Platform
	layers   []digest.Digest // uncompressed
}

// describe reads manifest and configuration.
func describe(ctx context.Context, g *guardedSource, sys *types.SystemContext) (pulled, error) {
	src := g.asSource()
	raw, _, err := src.GetManifest(ctx, nil)
	if err != nil {
		return pulled{}, err
	}
	var p pulled
	if p.manifest, err = manifest.Digest(raw); err != nil {
		return pulled{}, err
	}
	img, err := g.NewImage(ctx, sys)
	if err != nil {
		return pulled{}, err
	}
	defer img.Close() // closes nothing, see sourceView
	if p.id, err = imageID(img); err != nil {
		return pulled{}, err
	}
	config, err := img.OCIConfig(ctx)
	if err != nil {
		return pulled{}, badArchive("image has a configuration that does not parse: %v", err)
	}
	for _, l := range img.LayerInfos() {
		switch {
		case l.Digest == p.id: // it would come in past the guard
			return pulled{}, badArchive("image calls its own configuration a layer")
		case l.Size < 0: // it could come in without an end
			return pulled{}, badArchive("a layer of the image has a size of %d bytes in its manifest", l.Size)
		}
	}
	p.platform, p.layers = config.Platform, config.RootFS.DiffIDs
	g.setConfig(p.id)
	return p, nil
}

// tagOrDigest is what follows the repository's name.
func tagOrDigest(named reference.Named) string {
	switch n := named.(type) {
	case reference.Digested:
		return n.Digest().String()
	case reference.Tagged:
		return n.Tag()
	}
	return ""
}

// platformError says that a list of platforms has not the one that is wanted, if that is what err is.
func platformError(want *ocispec.Platform, err error) error {
	if !strings.Contains(err.Error(), "no image found in ") { // the library has no kind for it
		return err
	}
	name := runtime.GOOS + "/" + runtime.GOARCH
	if want != nil {
		name = path.Join(want.OS, want.Architecture, want.Variant)
	}
	return newError(errdefs.ErrNotFound, "no matching manifest for %s in the manifest list entries: %w", name, err)
}

// pullError is what a client is told of a pull that failed, in Docker's words
// where it has some.
func pullError(ctx context.Context, named reference.Named, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errdefs.IsInvalidArgument(err) || errdefs.IsNotFound(err) {
		return err
	}
	name := reference.FamiliarString(named)
	code := registryCode(err)
	_, unauthorized := errors.AsType[docker.ErrUnauthorizedForCredentials](err)
	switch {
	case unauthorized, code == errcode.ErrorCodeUnauthorized, code == errcode.ErrorCodeDenied:
		return newError(errdefs.ErrNotFound, "pull access denied for %s, repository does not exist or may require 'docker login': %w", reference.FamiliarName(named), err)
	case code == registryv2.ErrorCodeManifestUnknown, code == registryv2.ErrorCodeNameUnknown:
		return newError(errdefs.ErrNotFound, "manifest for %s not found: %w", name, err)
	}
	if status, ok := errors.AsType[docker.UnexpectedHTTPStatusError](err); ok && status.StatusCode == http.StatusNotFound {
		return newError(errdefs.ErrNotFound, "manifest for %s not found: %w", name, err)
	}
	return fmt.Errorf("cannot pull %s: %w", name, err)
}

// pullReport tells of layers as `docker pull` draws them. Events come from one
// goroutine; finish is called when they have ended.
type pullReport struct {
	progress Progress
	config   digest.Digest // not told of

	mu     sync.Mutex // guards layers
	layers []string   // that were downloaded, in order of appearance
}

// event tells of one event. The image library says "new" when a download
// begins, and "skipped" of layers that are here.
func (r *pullReport) event(e types.ProgressProperties) {
	d := e.Artifact.Digest
	if d == r.config || d == "" {
		return
	}
	m := jsonstream.Message{ID: shortDigest(d)}
	switch e.Event {
	case types.ProgressEventNewArtifact:
		m.Status = "Pulling fs layer"
		r.mu.Lock()
		r.layers = append(r.layers, m.ID)
		r.mu.Unlock()
	case types.ProgressEventRead:
		m.Status = "Downloading"
		m.Progress = &jsonstream.Progress{Current: int64(e.Offset), Total: max(e.Artifact.Size, 0)}
	case types.ProgressEventDone:
		m.Status = "Download complete"
	case types.ProgressEventSkipped:
		m.Status = "Already exists"
	}
	r.progress.send(m)
}

// finish tells that the layers are unpacked.
func (r *pullReport) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range r.layers {
		r.progress.send(jsonstream.Message{ID: id, Status: "Pull complete"})
	}
}
