package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
)

// Image is one image of the store, as it was when it was read.
type Image struct {
	// ID is the digest of the configuration.
	ID digest.Digest
	// RepoTags and RepoDigests are the image's names in familiar form.
	// Both are empty rather than nil.
	RepoTags, RepoDigests []string
	// Size is what the layers unpack to, in bytes.
	Size int64
	// Config is the whole image configuration: Config.Config is what a
	// container starts from (Env, Cmd, Healthcheck, ...), Config.RootFS and
	// Config.History tell of the layers.
	Config dockerspec.DockerOCIImage
	// LastTagged is when the image was last given a name; zero if never.
	LastTagged time.Time

	names    []string // as stored
	topLayer string   // "" for an image without layers
	readOnly bool     // in an additional store
}

// mark is what lrd itself notes about an image, next to the image's
// configuration, as JSON under the name [markKey].
type mark struct {
	// LastTagged is when the image was last given a name.
	LastTagged time.Time `json:"lastTagged,omitzero"`
	// Removed: the image was removed by force while a root filesystem stood
	// on it. It is shown to nobody, and is deleted with that root filesystem.
	Removed bool `json:"removed,omitempty"`
}

// markKey is the name of the mark among an image's data.
const markKey = "lrd"

// errNoImage is the answer to a reference that names no image, in Docker's
// words.
func errNoImage(shown string) error {
	return newError(errdefs.ErrNotFound, "No such image: %s", shown) // clients look for the sentence as it is
}

// Resolve finds the image that ref names: an ID with or without "sha256:", a
// name with tag or digest ("latest" if it has neither), or the beginning of
// exactly one ID. A name is preferred to the beginning of an ID, as with
// Docker. Errors: errdefs.ErrNotFound with the sentence "No such image: ...",
// errdefs.ErrInvalidArgument for what is no reference at all.
func (s *Store) Resolve(ctx context.Context, ref string) (Image, error) {
	img, err := s.resolve(ref)
	if err != nil {
		return Image{}, err
	}
	return img, ctx.Err()
}

func (s *Store) resolve(ref string) (Image, error) {
	stored, err := s.find(ref)
	if err != nil {
		return Image{}, err
	}
	img, err := s.read(*stored)
	if errors.Is(err, storage.ErrImageUnknown) { // removed since
		return Image{}, errNoImage(ref)
	}
	return img, err
}

// find looks ref up among the stored images.
func (s *Store) find(ref string) (*storage.Image, error) {
	parsed, err := reference.ParseAnyReference(ref)
	if err != nil {
		return nil, badName(ref, err)
	}
	if id, ok := fullID(ref); ok {
		img, err := s.storage.Image(id)
		if err == nil && img.ID == id && !s.readMark(id).Removed {
			return img, nil
		}
		return nil, errNoImage(ref)
	}
	images, err := s.visible()
	if err != nil {
		return nil, err
	}
	shown := ref
	if named, ok := parsed.(reference.Named); ok {
		shown = reference.FamiliarString(reference.TagNameOnly(named))
		if full, err := parseName(ref); err == nil {
			for i := range images {
				if slices.Contains(images[i].Names, full.String()) {
					return &images[i], nil
				}
			}
		}
	}
	if found := byPrefix(images, strings.TrimPrefix(ref, "sha256:")); found != nil {
		return found, nil
	}
	return nil, errNoImage(shown)
}

// fullID returns the 64 hex digits of a reference that is a whole ID.
func fullID(ref string) (string, bool) {
	hex := strings.TrimPrefix(ref, "sha256:")
	if len(hex) != 64 || !isHex(hex) {
		return "", false
	}
	return hex, true
}

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}

// byPrefix is the one image whose ID begins with prefix, nil if there is none
// or more than one.
func byPrefix(images []storage.Image, prefix string) *storage.Image {
	if !isHex(prefix) {
		return nil
	}
	var found *storage.Image
	for i := range images {
		if !strings.HasPrefix(images[i].ID, prefix) {
			continue
		}
		if found != nil {
			return nil
		}
		found = &images[i]
	}
	return found
}

// namedByID tells whether ref names img by its ID or the beginning of it.
func namedByID(img Image, ref string) bool {
	hex := strings.TrimPrefix(ref, "sha256:")
	return isHex(hex) && strings.HasPrefix(img.ID.Encoded(), hex) && !hasName(img.names, ref)
}

func hasName(names []string, ref string) bool {
	full, err := parseName(ref)
	return err == nil && slices.Contains(names, full.String())
}

// visible are the stored images that were not removed, each once.
func (s *Store) visible() ([]storage.Image, error) {
	images, err := s.storage.Images()
	if err != nil {
		return nil, fmt.Errorf("cannot list images: %w", err)
	}
	// One that was given a name here is in lrd's own root, which comes first, and in another.
	seen := map[string]bool{}
	return slices.DeleteFunc(images, func(i storage.Image) bool {
		if seen[i.ID] {
			return true
		}
		seen[i.ID] = true
		return slices.Contains(i.BigDataNames, markKey) && s.readMark(i.ID).Removed
	}), nil
}

// read reads an image's configuration and adds up its layers.
func (s *Store) read(stored storage.Image) (Image, error) {
	id := digest.NewDigestFromEncoded(digest.SHA256, stored.ID)
	raw, err := s.storage.ImageBigData(stored.ID, id.String())
	if err != nil {
		return Image{}, fmt.Errorf("cannot read configuration of image %s: %w", id, err)
	}
	img := Image{ID: id, names: stored.Names, topLayer: stored.TopLayer, readOnly: stored.ReadOnly, LastTagged: s.readMark(stored.ID).LastTagged}
	if err := json.Unmarshal(raw, &img.Config); err != nil {
		return Image{}, fmt.Errorf("cannot read configuration of image %s: %w", id, err)
	}
	img.RepoTags, img.RepoDigests = familiarNames(stored.Names)
	sizes, err := s.layerSizes(stored.TopLayer)
	if err != nil {
		return Image{}, err
	}
	for _, size := range sizes {
		img.Size += size
	}
	return img, nil
}

// layerSizes are the unpacked sizes of a layer and of those below it, lowest
// first.
func (s *Store) layerSizes(top string) ([]int64, error) {
	var sizes []int64
	for id := top; id != ""; {
		l, err := s.storage.Layer(id)
		if err != nil {
			return nil, fmt.Errorf("cannot read layer %s: %w", id, err)
		}
		sizes = append(sizes, max(l.UncompressedSize, 0))
		id = l.Parent
	}
	slices.Reverse(sizes)
	return sizes, nil
}

// readMark reads the mark of an image. An image without one, or with one that
// cannot be read, is an ordinary image.
func (s *Store) readMark(id string) mark {
	var m mark
	raw, err := s.storage.ImageBigData(id, markKey)
	if err != nil {
		return m
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		s.log.Warn("cannot read lrd's note on an image", "image", id, "error", err)
	}
	return m
}

// setMark writes the mark of an image.
func (s *Store) setMark(id string, m mark) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("cannot write lrd's note on image %s: %w", id, err)
	}
	if err := s.storage.SetImageBigData(id, markKey, raw, nil); err != nil {
		return fmt.Errorf("cannot write lrd's note on image %s: %w", id, err)
	}
	return nil
}
