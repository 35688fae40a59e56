package images

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	"go.podman.io/storage"
)

// pruneKeys are the keys of `docker image prune --filter`, and the one that
// stands for its --all.
var pruneKeys = []string{"dangling", "label", "label!", "until"}

// Prune removes images that no container stands on: those without a tag, or with
// the filter dangling=false all of them. Of what interrupted pulls have left
// to be taken up again nothing remains either. The space is that of the layers that
// went. An image that cannot be removed stays, and is logged; the rest goes.
// Errors: errdefs.ErrInvalidArgument for a filter that does not exist.
func (s *Store) Prune(ctx context.Context, filters Filters, inUse InUse) (image.PruneReport, error) {
	report := image.PruneReport{}
	for key := range filters {
		if !slices.Contains(pruneKeys, key) {
			return report, newError(errdefs.ErrInvalidArgument, "invalid filter '%s'", key)
		}
	}
	f, err := s.filter(filters)
	if err != nil {
		return report, err
	}
	if f.dangling == nil {
		only := true
		f.dangling = &only
	} else if !*f.dangling {
		f.dangling = nil // any
	}
	before, err := s.layersByID()
	if err != nil {
		return report, err
	}
	stored, err := s.visible()
	if err != nil {
		return report, err
	}
	for _, st := range stored {
		if ctx.Err() != nil {
			break
		}
		done, err := s.pruneOne(st, f, inUse)
		report.ImagesDeleted = append(report.ImagesDeleted, done...)
		if err != nil {
			s.log.Warn("cannot prune an image", "image", st.ID, "error", err)
		}
	}
	err = errors.Join(s.gate.sweep(), ctx.Err())
	after, lerr := s.layersByID()
	if lerr != nil {
		return report, errors.Join(err, lerr)
	}
	for id, l := range before {
		if _, there := after[id]; !there {
			report.SpaceReclaimed += uint64(max(l.UncompressedSize, 0))
		}
	}
	return report, err
}

// pruneOne removes an image with all its names if the filter lets it pass and nobody uses it.
func (s *Store) pruneOne(stored storage.Image, f *filter, inUse InUse) ([]image.DeleteResponse, error) {
	if stored.ReadOnly {
		return nil, nil // another store's
	}
	img, err := s.read(stored)
	if errors.Is(err, storage.ErrImageUnknown) {
		return nil, nil // removed since
	}
	if err != nil {
		return nil, err
	}
	if _, _, ok := f.pass(img); !ok {
		return nil, nil
	}
	if _, _, used := inUse(img.ID.String()); used {
		return nil, nil
	}
	r := removal{store: s, img: img, names: slices.Clone(img.names), inUse: inUse}
	if err := r.untag(slices.Clone(r.names)); err != nil {
		return r.done, err
	}
	err = r.delete()
	return r.done, err
}

// layersByID are the layers of lrd's own root.
func (s *Store) layersByID() (map[string]storage.Layer, error) {
	layers, err := s.storage.Layers()
	if err != nil {
		return nil, fmt.Errorf("cannot list layers: %w", err)
	}
	byID := make(map[string]storage.Layer, len(layers))
	for _, l := range layers {
		if !l.ReadOnly {
			byID[l.ID] = l
		}
	}
	return byID, nil
}

// Usage is the space of images, in bytes. A layer that images share counts once.
type Usage struct {
	Total int64
	// Reclaimable is of images that no container stands on.
	Reclaimable int64
}

// Usage adds up the layers of images in lrd's own root. used tells whether a
// container stands on an image.
func (s *Store) Usage(ctx context.Context, used func(imageID string) bool) (Usage, error) {
	byID, err := s.layersByID()
	if err != nil {
		return Usage{}, err
	}
	stored, err := s.storage.Images() // removed ones too: as long as they take space
	if err != nil {
		return Usage{}, fmt.Errorf("cannot list images: %w", err)
	}
	const seen, needed = 1, 2
	state := map[string]int{}
	for _, img := range stored {
		how := seen
		if used("sha256:" + img.ID) {
			how = needed
		}
		for id := img.TopLayer; id != ""; id = byID[id].Parent {
			state[id] = max(state[id], how)
		}
	}
	var u Usage
	for id, how := range state {
		size := max(byID[id].UncompressedSize, 0)
		u.Total += size
		if how == seen {
			u.Reclaimable += size
		}
	}
	return u, ctx.Err()
}
