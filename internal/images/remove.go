package images

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"go.podman.io/storage"
)

// Tag gives the image that source names another name. Another image that had
// it loses it. A name without a tag gets "latest".
func (s *Store) Tag(ctx context.Context, source, target string) error {
	name, err := parseTag(target)
	if err != nil {
		return err
	}
	img, err := s.Resolve(ctx, source)
	if err != nil {
		return err
	}
	_, err = s.giveName(img.ID, name)
	return err
}

// InUse tells of one container that stands on an image: its name, and whether
// it is running. If there are several, a running one is told of. ok is false if
// there is none.
type InUse func(imageID string) (containerName string, running, ok bool)

// Remove takes away the name that ref is, or the image that ref names by ID.
// With its last name an image is deleted, and the layers that no other image
// has. It answers what went, in order, in Docker's words.
//
// An image that containers stand on is kept, with errdefs.ErrConflict and
// Docker's sentence. With force, stopped containers do not hold it: it goes
// from the lists at once, and its layers go with the last of them
// ([Store.RemoveRootfs]). A running container always holds its image.
func (s *Store) Remove(ctx context.Context, ref string, force bool, inUse InUse) ([]image.DeleteResponse, error) {
	img, err := s.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	if img.readOnly {
		return nil, newError(errdefs.ErrConflict, "conflict: unable to remove %q: it belongs to an additional image store, remove it with the tool that put it there", ref)
	}
	r := removal{store: s, img: img, names: slices.Clone(img.names), force: force, inUse: inUse}
	if inUse == nil {
		r.inUse = func(string) (string, bool, bool) { return "", false, false }
	}
	if namedByID(img, ref) {
		err = r.byID()
	} else {
		err = r.byName(ref)
	}
	return r.done, err
}

// removal is one call of [Store.Remove] on its way.
type removal struct {
	store *Store
	img   Image
	names []string // that the image still has
	force bool
	inUse InUse
	done  []image.DeleteResponse
}

// byName takes away one name, and with the last one the image.
func (r *removal) byName(ref string) error {
	full, err := parseName(ref)
	if err != nil {
		return err
	}
	if !r.force && singleRepository(r.names) {
		if name, _, used := r.inUse(r.img.ID.String()); used {
			return newError(errdefs.ErrConflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
				ref, name, shortDigest(r.img.ID))
		}
	}
	gone := []string{full.String()}
	if !isDigestName(gone[0]) {
		gone = append(gone, orphanedDigests(r.names, gone[0])...)
	}
	if err := r.untag(gone); err != nil {
		return err
	}
	if len(r.names) > 0 {
		return nil
	}
	if _, running, used := r.inUse(r.img.ID.String()); used && (running || !r.force) {
		return nil // it stays, without a name
	}
	return r.delete()
}

// byID takes away all names and the image.
func (r *removal) byID() error {
	short := shortDigest(r.img.ID)
	name, running, used := r.inUse(r.img.ID.String())
	switch {
	case used && running:
		return newError(errdefs.ErrConflict, "conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", short, name)
	case !r.force && !singleRepository(r.names):
		return newError(errdefs.ErrConflict, "conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short)
	case !r.force && used:
		return newError(errdefs.ErrConflict, "conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", short, name)
	}
	if err := r.untag(slices.Clone(r.names)); err != nil {
		return err
	}
	return r.delete()
}

// untag takes names away.
func (r *removal) untag(names []string) error {
	if len(names) == 0 {
		return nil
	}
	if err := r.store.storage.RemoveNames(r.img.ID.Encoded(), names); err != nil {
		return fmt.Errorf("cannot remove names of image %s: %w", r.img.ID, err)
	}
	slices.Sort(names)
	for _, n := range names {
		r.names = slices.DeleteFunc(r.names, func(have string) bool { return have == n })
		r.done = append(r.done, image.DeleteResponse{Untagged: familiar(n)})
	}
	return nil
}

// delete deletes the image, or hides it where root filesystems stand on it.
func (r *removal) delete() error {
	s, hex := r.store, r.img.ID.Encoded()
	layers, err := s.storage.DeleteImage(hex, true)
	if errors.Is(err, storage.ErrImageUsedByContainer) {
		if err := s.setMark(hex, mark{Removed: true}); err != nil {
			return err
		}
		r.done = append(r.done, image.DeleteResponse{Deleted: r.img.ID.String()})
		return nil
	}
	if errors.Is(err, storage.ErrLayerUnknown) {
		// It had a name of its own here, and its layers are in an additional store.
		if left, gone := s.storage.Image(hex); gone != nil || left.ReadOnly {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("cannot delete image %s: %w", r.img.ID, err)
	}
	r.done = append(r.done, image.DeleteResponse{Deleted: r.img.ID.String()})
	for _, chain := range topChains(r.img.Config.RootFS.DiffIDs, len(layers)) {
		r.done = append(r.done, image.DeleteResponse{Deleted: chain.String()})
	}
	return nil
}

// topChains are the IDs by which Docker calls an image's n upper layers, the
// top one first: each is a digest over the layer and all those below it.
func topChains(diffIDs []digest.Digest, n int) []digest.Digest {
	chains := identity.ChainIDs(slices.Clone(diffIDs))
	slices.Reverse(chains)
	return chains[:min(n, len(chains))]
}

// singleRepository tells whether names hold at most one tag, and nothing of
// another repository: Docker deletes such an image by its ID without force.
func singleRepository(names []string) bool {
	tags := 0
	for _, n := range names {
		if repository(n) != repository(names[0]) {
			return false
		}
		if !isDigestName(n) {
			tags++
		}
	}
	return tags <= 1
}

// orphanedDigests are the names with a digest of the repository whose tag is
// taken away, if that was its last tag: they came with it.
func orphanedDigests(names []string, tag string) []string {
	var digests []string
	for _, n := range names {
		switch {
		case n == tag || repository(n) != repository(tag):
		case isDigestName(n):
			digests = append(digests, n)
		default:
			return nil
		}
	}
	return digests
}

// familiar is a stored name as Docker shows it.
func familiar(stored string) string {
	named, err := reference.ParseNormalizedNamed(stored)
	if err != nil {
		return stored
	}
	return reference.FamiliarString(named)
}
