package images

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/image"
	apistorage "github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Inspect tells all about the image that ref names. Errors as with
// [Store.Resolve].
func (s *Store) Inspect(ctx context.Context, ref string) (image.InspectResponse, error) {
	img, err := s.Resolve(ctx, ref)
	if err != nil {
		return image.InspectResponse{}, err
	}
	r := image.InspectResponse{
		ID:           img.ID.String(),
		RepoTags:     img.RepoTags,
		RepoDigests:  img.RepoDigests,
		Comment:      comment(img),
		Author:       img.Config.Author,
		Config:       &img.Config.Config,
		Architecture: img.Config.Architecture,
		Variant:      img.Config.Variant,
		Os:           img.Config.OS,
		OsVersion:    img.Config.OSVersion,
		Size:         img.Size,
		RootFS:       image.RootFS{Type: img.Config.RootFS.Type},
		Metadata:     image.Metadata{LastTagTime: img.LastTagged},
	}
	if t := created(img); !t.IsZero() {
		r.Created = t.Format(time.RFC3339Nano)
	}
	for _, id := range img.Config.RootFS.DiffIDs {
		r.RootFS.Layers = append(r.RootFS.Layers, id.String())
	}
	if img.topLayer != "" {
		data, err := s.layerData(img.topLayer)
		if err != nil {
			return image.InspectResponse{}, err
		}
		r.GraphDriver = &apistorage.DriverData{Name: s.Driver(), Data: data}
	}
	return r, nil
}

// comment is the image's comment: that of its last step, where today's builders
// write it.
func comment(img Image) string {
	if n := len(img.Config.History); n > 0 {
		return img.Config.History[n-1].Comment
	}
	return ""
}

// History tells how the image that ref names was made, the last step first.
// Only the image itself has an ID; the steps below it are "<missing>", as with
// Docker for images that were built elsewhere.
func (s *Store) History(ctx context.Context, ref string) ([]image.HistoryResponseItem, error) {
	img, err := s.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	sizes, err := s.layerSizes(img.topLayer)
	if err != nil {
		return nil, err
	}
	steps := img.Config.History
	if len(steps) == 0 { // a configuration need not tell how it was made
		steps = make([]ocispec.History, len(sizes))
	}
	items := make([]image.HistoryResponseItem, len(steps))
	layer := 0
	for i, step := range steps {
		item := image.HistoryResponseItem{ID: "<missing>", CreatedBy: step.CreatedBy, Comment: step.Comment}
		if step.Created != nil {
			item.Created = step.Created.Unix()
		}
		if !step.EmptyLayer && layer < len(sizes) {
			item.Size = sizes[layer]
			layer++
		}
		items[len(items)-1-i] = item
	}
	if len(items) > 0 {
		items[0].ID = img.ID.String()
		items[0].Tags = img.RepoTags
	}
	return items, nil
}
