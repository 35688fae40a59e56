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

func (s imageStore) Pull(ctx context.Context, ref string, platform *ocispec.Platform, auth registry.AuthConfig, progress Progress) error {
	o := images.PullOptions{Platform: platform}
	if auth != (registry.AuthConfig{}) {
		o.Auth = &auth
	}
	return s.Store.Pull(ctx, ref, o, images.Progress(progress))
}

// Login is not there yet; clients that have credentials in their configuration send them with each pull.
func (s imageStore) Login(context.Context, registry.AuthConfig) error {
	return notImplemented("lrd does not check credentials at a registry yet: put them into the client's config.json, it sends them with each pull")
}

func (s imageStore) List(ctx context.Context, all bool, filters containers.Filters) ([]image.Summary, error) {
	made, err := s.users.List(ctx, containers.ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	count := map[string]int64{}
	for _, c := range made {
		count[c.ImageID]++
	}
	return s.Store.List(ctx, images.ListOptions{
		All: all, Filters: images.Filters(filters), Containers: func(id string) int64 { return count[id] },
	})
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
// a name. The space is not measured.
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
		// One that a container got hold of meanwhile stays.
		if err := s.Remove(ctx, v.Name, false); err == nil {
			report.VolumesDeleted = append(report.VolumesDeleted, v.Name)
		}
	}
	return report, ctx.Err()
}

// isTrue tells whether a boolean filter was given as true.
func isTrue(values map[string]bool) bool {
	return values["true"] || values["1"] || values["t"] || values["TRUE"] || values["True"]
}
