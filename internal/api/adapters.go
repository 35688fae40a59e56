package api

import (
	"context"
	"io"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lrd/internal/containers"
	"lrd/internal/images"
	"lrd/internal/volumes"
)

// This file joins the interfaces of backend.go to the packages that do the work. What an adapter adds is the
// answer to "who uses it", which images and volumes must not know and containers does.

// ImageUsers know which containers were made from an image; containers.Manager does.
type ImageUsers interface {
	UsesImage(imageID string) (containerName string, running, ok bool)
	List(ctx context.Context, o containers.ListOptions) ([]container.Summary, error)
}

// FromImages makes Images of the Store.
func FromImages(s *images.Store, users ImageUsers) Images { return imageStore{s, users} }

type imageStore struct {
	*images.Store
	users ImageUsers
}

func (s imageStore) Load(ctx context.Context, r io.Reader, progress Progress) error {
	return s.Store.Load(ctx, r, images.Progress(progress))
}

func (s imageStore) Import(ctx context.Context, r io.Reader, o ImportOptions, progress Progress) (string, error) {
	id, err := s.Store.Import(ctx, r, images.ImportOptions(o), images.Progress(progress))
	return id.String(), err
}

func (s imageStore) Pull(ctx context.Context, ref string, allTags bool, platform *ocispec.Platform, auth registry.AuthConfig, progress Progress) error {
	o := images.PullOptions{AllTags: allTags, Platform: platform, Auth: given(auth)}
	return s.Store.Pull(ctx, ref, o, images.Progress(progress))
}

func (s imageStore) InspectRemote(ctx context.Context, ref string, auth registry.AuthConfig) (registry.DistributionInspect, error) {
	return s.Store.InspectRemote(ctx, ref, given(auth))
}

func (s imageStore) Search(ctx context.Context, term string, limit int, auth registry.AuthConfig) ([]registry.SearchResult, error) {
	return s.Store.Search(ctx, term, limit, given(auth))
}

func (s imageStore) Push(ctx context.Context, ref string, allTags bool, platform *ocispec.Platform, auth registry.AuthConfig, progress Progress) error {
	o := images.PushOptions{AllTags: allTags, Platform: platform, Auth: given(auth)}
	return s.Store.Push(ctx, ref, o, images.Progress(progress))
}

func (s imageStore) Save(ctx context.Context, refs []string, platform *ocispec.Platform, w io.Writer) error {
	return s.Store.Save(ctx, refs, images.SaveOptions{Platform: platform}, w)
}

// given is nil for a client that has sent no credentials.
func given(auth registry.AuthConfig) *registry.AuthConfig {
	if auth == (registry.AuthConfig{}) {
		return nil
	}
	return &auth
}

// count is how many containers stand on each image, by its ID.
func (s imageStore) count(ctx context.Context) (map[string]int64, error) {
	made, err := s.users.List(ctx, containers.ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	count := map[string]int64{}
	for _, c := range made {
		count[c.ImageID]++
	}
	return count, nil
}

func (s imageStore) List(ctx context.Context, o ImageListOptions) ([]image.Summary, error) {
	count, err := s.count(ctx)
	if err != nil {
		return nil, err
	}
	return s.Store.List(ctx, images.ListOptions{
		All: o.All, SharedSize: o.SharedSize, Filters: images.Filters(o.Filters), Containers: func(id string) int64 { return count[id] },
	})
}

func (s imageStore) Prune(ctx context.Context, filters containers.Filters) (image.PruneReport, error) {
	return s.Store.Prune(ctx, images.Filters(filters), s.users.UsesImage)
}

func (s imageStore) Usage(ctx context.Context) (image.DiskUsage, error) {
	count, err := s.count(ctx)
	if err != nil {
		return image.DiskUsage{}, err
	}
	u, err := s.Store.Usage(ctx, func(id string) bool { return count[id] > 0 })
	return image.DiskUsage{TotalSize: u.Total, Reclaimable: u.Reclaimable}, err
}

func (s imageStore) Remove(ctx context.Context, ref string, force, _ bool) ([]image.DeleteResponse, error) {
	return s.Store.Remove(ctx, ref, force, s.users.UsesImage)
}

// VolumeUsers know which containers mount a volume; containers.Manager does.
type VolumeUsers interface {
	UsesVolume(volume string) (containerIDs []string)
}

// FromVolumes makes Volumes of the Store.
func FromVolumes(s *volumes.Store, users VolumeUsers) Volumes { return volumeStore{s, users} }

type volumeStore struct {
	*volumes.Store
	users VolumeUsers
}

func (s volumeStore) used(name string) bool { return len(s.users.UsesVolume(name)) > 0 }

func (s volumeStore) List(ctx context.Context, filters containers.Filters) (volume.ListResponse, error) {
	return s.Store.List(ctx, volumes.Filters(filters), s.used)
}

func (s volumeStore) Inspect(ctx context.Context, name string) (volume.Volume, error) {
	return s.Get(ctx, name)
}

func (s volumeStore) Remove(ctx context.Context, name string, force bool) error {
	return s.Store.Remove(ctx, name, force, s.users.UsesVolume)
}

// Prune removes the volumes that no container has: the anonymous ones, or with the filter all also those with
// a name.
func (s volumeStore) Prune(ctx context.Context, filters containers.Filters) (volume.PruneReport, error) {
	f := volumes.Filters{"dangling": {"true": true}}
	for _, key := range []string{"label", "label!"} {
		f[key] = filters[key]
	}
	unused, err := s.Store.List(ctx, f, s.used)
	if err != nil {
		return volume.PruneReport{}, err
	}
	var report volume.PruneReport
	for _, v := range unused.Volumes {
		if _, anonymous := v.Labels[volumes.AnonymousLabel]; !anonymous && !isTrue(filters["all"]) {
			continue
		}
		size, err := s.Size(ctx, v.Name)
		if err != nil {
			size = 0 // it goes all the same
		}
		// One that a container got hold of meanwhile stays.
		if err := s.Remove(ctx, v.Name, false); err == nil {
			report.VolumesDeleted = append(report.VolumesDeleted, v.Name)
			report.SpaceReclaimed += uint64(max(size, 0))
		}
	}
	return report, ctx.Err()
}

// isTrue tells whether a boolean filter was given as true.
func isTrue(values map[string]bool) bool {
	return values["true"] || values["1"] || values["t"] || values["TRUE"] || values["True"]
}
