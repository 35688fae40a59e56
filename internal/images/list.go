package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/moby/moby/api/types/image"
	"go.podman.io/storage"
)

// ListOptions says what a list shows.
type ListOptions struct {
	// All is accepted for the API's sake: Docker shows intermediate images
	// of its old builder with it, and there are none here.
	All bool
	// Filters narrow the list: before, dangling, label, label!, reference,
	// since, until.
	Filters Filters
	// SharedSize asks for what each image has in common with others.
	SharedSize bool
	// Containers, if not nil, tells how many containers use an image.
	Containers func(imageID string) int64
}

// List lists images, the newest first. What was not asked for is -1, as in the
// Docker API. RepoTags and RepoDigests are empty rather than nil. Errors:
// errdefs.ErrInvalidArgument for a filter that does not exist,
// errdefs.ErrNotFound for one that names an image that does not.
func (s *Store) List(ctx context.Context, o ListOptions) ([]image.Summary, error) {
	f, err := s.filter(o.Filters)
	if err != nil {
		return nil, err
	}
	stored, err := s.visible()
	if err != nil {
		return nil, err
	}
	var shared map[string]int64
	if o.SharedSize {
		if shared, err = s.sharedSizes(stored); err != nil {
			return nil, err
		}
	}
	list := []image.Summary{}
	for _, st := range stored {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		img, err := s.read(st)
		if errors.Is(err, storage.ErrImageUnknown) || errors.Is(err, storage.ErrLayerUnknown) {
			continue // removed since
		}
		if err != nil {
			// One damaged image does not hide the others.
			s.log.Warn("cannot list an image", "image", st.ID, "error", err)
			continue
		}
		tags, digests, ok := f.pass(img)
		if !ok {
			continue
		}
		item := image.Summary{
			ID:          img.ID.String(),
			RepoTags:    tags,
			RepoDigests: digests,
			Labels:      img.Config.Config.Labels,
			Created:     created(img).Unix(),
			Size:        img.Size,
			SharedSize:  -1,
			Containers:  -1,
		}
		if created(img).IsZero() {
			item.Created = 0
		}
		if o.SharedSize {
			item.SharedSize = shared[st.ID]
		}
		if o.Containers != nil {
			item.Containers = o.Containers(item.ID)
		}
		list = append(list, item)
	}
	slices.SortFunc(list, func(a, b image.Summary) int {
		return cmp.Or(cmp.Compare(b.Created, a.Created), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// Count is the number of images, for `docker info`.
func (s *Store) Count(ctx context.Context) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	stored, err := s.visible()
	return len(stored), err
}

// sharedSizes is, for each image, the size in bytes of those of its layers that
// other images have too.
func (s *Store) sharedSizes(stored []storage.Image) (map[string]int64, error) {
	layers, err := s.storage.Layers()
	if err != nil {
		return nil, fmt.Errorf("cannot list layers: %w", err)
	}
	byID := map[string]storage.Layer{}
	for _, l := range layers {
		byID[l.ID] = l
	}
	users := map[string]int{}
	for _, img := range stored {
		for id := img.TopLayer; id != ""; id = byID[id].Parent {
			users[id]++
		}
	}
	shared := map[string]int64{}
	for _, img := range stored {
		for id := img.TopLayer; id != ""; id = byID[id].Parent {
			if users[id] > 1 {
				shared[img.ID] += max(byID[id].UncompressedSize, 0)
			}
		}
	}
	return shared, nil
}
