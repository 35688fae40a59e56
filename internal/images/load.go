package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	dockerarchive "go.podman.io/image/v5/docker/archive"
	ocilayout "go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
)

// Progress receives what a long operation has to tell, as the messages of the
// Docker API's JSON stream, one at a time. The ones with Stream set are results
// ("Loaded image: ..."); the others draw progress, and a quiet client is not
// sent them. A nil Progress is told nothing.
type Progress func(jsonstream.Message)

func (p Progress) send(m jsonstream.Message) {
	if p != nil {
		p(m)
	}
}

func (p Progress) stream(format string, args ...any) {
	p.send(jsonstream.Message{Stream: fmt.Sprintf(format, args...)})
}

// oneAtATime is p for several goroutines.
func (p Progress) oneAtATime() Progress {
	var mu sync.Mutex
	return func(m jsonstream.Message) {
		mu.Lock()
		defer mu.Unlock()
		p.send(m)
	}
}

// incoming is one image of an archive.
type incoming struct {
	ref  types.ImageReference
	id   digest.Digest // of the configuration; found in the source if empty
	tags []reference.NamedTagged
}

// Load brings in the images of an archive as `docker save` or an OCI tool
// writes it, plain or compressed with gzip, zstd, xz or bzip2. It takes all of
// the archive's images or none. Errors: errdefs.ErrInvalidArgument for an
// archive that is refused.
//
// Load reads r to its end, and ends early with ctx; a Read that blocks is the
// caller's to end.
func (s *Store) Load(ctx context.Context, r io.Reader, progress Progress) (err error) {
	b := &budget{limit: s.opts.MaxLoadBytes}
	a, err := s.spool(ctx, r, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	// What was uncompressed around the layers does not count against what
	// is uncompressed within.
	if err := a.scanImages(ctx, &budget{limit: s.opts.MaxLoadBytes}); err != nil {
		return err
	}
	list, err := a.images(ctx)
	if err != nil {
		return err
	}
	return s.bringIn(ctx, list, progress, func(in incoming) error { return s.name(in, progress) })
}

// images lists an archive's images. `docker save` of today writes both kinds of
// index; manifest.json has the names then.
func (a *archive) images(ctx context.Context) ([]incoming, error) {
	if _, ok := a.open("manifest.json"); ok {
		return a.dockerImages()
	}
	if _, ok := a.open(ocispec.ImageIndexFile); ok {
		return a.ociImages(ctx)
	}
	return nil, badArchive("not an image archive: it has neither manifest.json nor index.json (a root filesystem is brought in with docker import)")
}

// dockerImages lists the images that manifest.json names.
func (a *archive) dockerImages() ([]incoming, error) {
	var items []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := a.readJSON("manifest.json", &items); err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, badArchive("archive has no images: manifest.json is empty")
	}
	var list []incoming
	for i, item := range items {
		in := incoming{}
		for _, tag := range item.RepoTags {
			named, err := parseTag(tag)
			if err != nil {
				return nil, badArchive("image %d of the archive has the name %q, which is none", i, tag)
			}
			in.tags = append(in.tags, named)
		}
		conf, err := a.read(item.Config)
		if err != nil {
			return nil, err
		}
		var config dockerspec.DockerOCIImage
		if err := json.Unmarshal(conf, &config); err != nil {
			return nil, badArchive("cannot parse member %q: %v", item.Config, err)
		}
		if len(item.Layers) != len(config.RootFS.DiffIDs) {
			return nil, badArchive("image %d of the archive has %d layers, and %d in its configuration", i, len(item.Layers), len(config.RootFS.DiffIDs))
		}
		for _, layer := range item.Layers {
			if !a.has(layer) {
				return nil, badArchive("archive has no member %q, which is a layer of image %d", layer, i)
			}
		}
		in.id = digest.FromBytes(conf)
		if in.ref, err = dockerarchive.NewIndexReference(a.path(), i); err != nil {
			return nil, fmt.Errorf("cannot read image %d of the archive: %w", i, err)
		}
		list = append(list, in)
	}
	return list, nil
}

// ociImages lists the images that index.json names. Attestations are no images.
// Of several with one name and different platforms, this machine's counts.
func (a *archive) ociImages(ctx context.Context) ([]incoming, error) {
	var index ocispec.Index
	if err := a.readJSON(ocispec.ImageIndexFile, &index); err != nil {
		return nil, err
	}
	dir, err := a.extract(ctx)
	if err != nil {
		return nil, err
	}
	var list []incoming
	for i, desc := range index.Manifests {
		if desc.Annotations["vnd.docker.reference.type"] != "" || otherPlatform(index.Manifests, i) {
			continue
		}
		in := incoming{}
		if name := ociName(desc); name != "" {
			named, err := parseTag(name)
			if err != nil {
				return nil, badArchive("image %d of the archive has the name %q, which is none", i, name)
			}
			in.tags = append(in.tags, named)
		}
		if in.ref, err = ocilayout.NewIndexReference(dir, i); err != nil {
			return nil, fmt.Errorf("cannot read image %d of the archive: %w", i, err)
		}
		list = append(list, in)
	}
	if len(list) == 0 {
		return nil, badArchive("archive has no images: index.json lists none")
	}
	return list, nil
}

// ociName is the full name that an entry of index.json carries. Containerd has
// an annotation for it. The standard one may hold a bare tag, which is no name.
func ociName(desc ocispec.Descriptor) string {
	if name := desc.Annotations["io.containerd.image.name"]; name != "" {
		return name
	}
	if name := desc.Annotations[ocispec.AnnotationRefName]; strings.ContainsAny(name, "/:") {
		return name
	}
	return ""
}

// otherPlatform tells whether entry i is for another machine while an entry of
// the same name is for this one.
func otherPlatform(entries []ocispec.Descriptor, i int) bool {
	here := func(d ocispec.Descriptor) bool {
		return d.Platform == nil || d.Platform.OS == runtime.GOOS && d.Platform.Architecture == runtime.GOARCH
	}
	return !here(entries[i]) && slices.ContainsFunc(entries, func(d ocispec.Descriptor) bool {
		return ociName(d) == ociName(entries[i]) && here(d)
	})
}

// bringIn stores images and names them: all, or none. name is called for each
// when all are stored.
func (s *Store) bringIn(ctx context.Context, list []incoming, progress Progress, name func(incoming) error) (err error) {
	s.gate.enter()
	var claimed []digest.Digest
	defer func() {
		for _, id := range claimed {
			s.claims.giveBack(id, err == nil, s.discard)
		}
		if cerr := s.gate.leave(err != nil); cerr != nil {
			s.log.Warn("cannot delete the layers of an image that was refused", "error", cerr)
		}
	}()
	sys := s.systemContext()
	for i := range list {
		in := &list[i]
		if in.id == "" {
			if in.id, err = configDigest(ctx, in.ref, sys); err != nil {
				return archiveError(ctx, err)
			}
		}
		s.claims.take(in.id, s.storage.Exists)
		claimed = append(claimed, in.id)
		if err := s.copyIn(ctx, copyRequest{src: in.ref, sys: sys, id: in.id, report: loadReport(progress, in.id)}); err != nil {
			return archiveError(ctx, err)
		}
	}
	for _, in := range list {
		if err := name(in); err != nil {
			return err
		}
	}
	return nil
}

// bringInAs stores one image, under a name if tag is not nil.
func (s *Store) bringInAs(ctx context.Context, in incoming, tag reference.NamedTagged) error {
	return s.bringIn(ctx, []incoming{in}, nil, func(in incoming) error {
		if tag == nil {
			return s.unhide(in.id)
		}
		_, err := s.giveName(in.id, tag)
		return err
	})
}

// discard deletes an image that came in with others, or for a name, and was then refused.
func (s *Store) discard(id digest.Digest) {
	if _, err := s.storage.DeleteImage(id.Encoded(), true); err != nil && !errors.Is(err, storage.ErrImageUnknown) && !errors.Is(err, storage.ErrNotAnImage) {
		s.log.Warn("cannot delete an image that was refused", "image", id, "error", err)
	}
}

// name gives an image that came in its names, and tells of them.
func (s *Store) name(in incoming, progress Progress) error {
	if len(in.tags) == 0 {
		if err := s.unhide(in.id); err != nil {
			return err
		}
		progress.stream("Loaded image ID: %s\n", in.id)
		return nil
	}
	for _, tag := range in.tags {
		old, err := s.giveName(in.id, tag)
		if err != nil {
			return err
		}
		if old != "" {
			progress.stream("The image %s already exists, renaming the old one with ID %s to empty string\n", reference.FamiliarString(tag), old)
		}
		progress.stream("Loaded image: %s\n", reference.FamiliarString(tag))
	}
	return nil
}

// giveName gives an image a name, and tells which other image had it.
func (s *Store) giveName(id digest.Digest, name reference.Named) (old digest.Digest, err error) {
	if holder, err := s.storage.Image(name.String()); err == nil && holder.ID != id.Encoded() {
		old = digest.NewDigestFromEncoded(digest.SHA256, holder.ID)
	}
	if err := s.storage.AddNames(id.Encoded(), []string{name.String()}); err != nil {
		return "", fmt.Errorf("cannot tag image %s as %s: %w", id, reference.FamiliarString(name), err)
	}
	return old, s.setMark(id.Encoded(), mark{LastTagged: time.Now().UTC()})
}

// unhide makes an image that was removed earlier, and has come in again, an
// ordinary one.
func (s *Store) unhide(id digest.Digest) error {
	m := s.readMark(id.Encoded())
	if !m.Removed {
		return nil
	}
	m.Removed = false
	return s.setMark(id.Encoded(), m)
}

// archiveError is what a client is told when an image of its archive could not
// be stored. The scan has been passed by then; what is left are digests that
// do not match, members that are missing, configurations that do not parse, and
// faults of ours, which are told by their being the kernel's.
func archiveError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ourFault(err) {
		return fmt.Errorf("cannot store image: %w", err)
	}
	if errdefs.IsInvalidArgument(err) {
		return err
	}
	return badArchive("image is refused: %v", err)
}

// ourFault tells whether an error is this machine's rather than the image's. A
// layer is unpacked by a child process, which hands its error over as text.
func ourFault(err error) bool {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return true
	}
	text := err.Error()
	for _, sign := range []string{"no space left on device", "disk quota exceeded", "read-only file system", "input/output error", "too many open files"} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}
