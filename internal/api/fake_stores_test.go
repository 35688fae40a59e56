package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lrd/internal/containers"
)

// fakeImages has one image.
type fakeImages struct {
	loaded, imported []byte
	pulled           string
	platform         *ocispec.Platform
	auth             registry.AuthConfig
	failure          error
	filters          containers.Filters
	ref              string // pushed, saved, asked for
	all              bool   // all tags of it
	early            bool   // Save fails before its first byte
	endless          bool   // Save writes until it cannot
}

func (f *fakeImages) Load(_ context.Context, r io.Reader, progress Progress) (err error) {
	if f.loaded, err = io.ReadAll(r); err != nil {
		return err
	}
	if f.failure != nil {
		return f.failure
	}
	progress(jsonstream.Message{Stream: "Loaded image: busybox:latest\n"})
	return nil
}

func (f *fakeImages) Import(_ context.Context, r io.Reader, _ ImportOptions, _ Progress) (id string, err error) {
	f.imported, err = io.ReadAll(r)
	return "sha256:2", err
}

func (f *fakeImages) Pull(_ context.Context, ref string, all bool, p *ocispec.Platform, auth registry.AuthConfig, progress Progress) error {
	f.pulled, f.platform, f.auth, f.all = ref, p, auth, all
	progress(jsonstream.Message{Status: "Pulling from library/busybox", ID: "latest"})
	return f.failure
}

func (f *fakeImages) Login(context.Context, registry.AuthConfig) error { return f.failure }

func (f *fakeImages) Search(_ context.Context, term string, limit int, auth registry.AuthConfig) ([]registry.SearchResult, error) {
	f.ref, f.auth = fmt.Sprint(term, " ", limit), auth
	return []registry.SearchResult{{Name: "busybox", StarCount: 7, IsOfficial: true}, {Name: "me/busybox", StarCount: 1}}, f.failure
}

func (f *fakeImages) InspectRemote(_ context.Context, ref string, auth registry.AuthConfig) (registry.DistributionInspect, error) {
	f.ref, f.auth = ref, auth
	return registry.DistributionInspect{Descriptor: ocispec.Descriptor{Digest: "sha256:d1", Size: 5}}, f.failure
}

func (f *fakeImages) Push(_ context.Context, ref string, all bool, p *ocispec.Platform, auth registry.AuthConfig, progress Progress) error {
	f.ref, f.platform, f.auth, f.all = ref, p, auth, all
	progress(jsonstream.Message{Status: "The push refers to repository [x]"})
	return f.failure
}

// Save writes a beginning, and then fails or not.
func (f *fakeImages) Save(_ context.Context, refs []string, p *ocispec.Platform, w io.Writer) error {
	f.ref, f.platform = strings.Join(refs, " "), p
	if f.early {
		return f.failure
	}
	_, err := io.WriteString(w, strings.Repeat("archive ", 2000))
	for f.endless && err == nil {
		_, err = io.WriteString(w, strings.Repeat("archive ", 2000))
	}
	return errors.Join(err, f.failure)
}

func (f *fakeImages) Prune(_ context.Context, filters containers.Filters) (image.PruneReport, error) {
	f.filters = filters
	return image.PruneReport{ImagesDeleted: []image.DeleteResponse{{Deleted: "sha256:1"}}, SpaceReclaimed: 7}, f.failure
}

func (f *fakeImages) Usage(context.Context) (image.DiskUsage, error) {
	return image.DiskUsage{TotalSize: 42, Reclaimable: 4}, f.failure
}

func (f *fakeImages) List(_ context.Context, o ImageListOptions) ([]image.Summary, error) {
	f.filters = o.Filters
	return []image.Summary{{ID: "sha256:1", RepoTags: []string{"busybox:latest"}, Size: 42, Containers: 1}}, nil
}

func (f *fakeImages) Count(context.Context) (int, error) { return 1, nil }

func (f *fakeImages) Inspect(_ context.Context, ref string) (image.InspectResponse, error) {
	if ref != "busybox" && ref != "example.com:5000/a/b:c" {
		return image.InspectResponse{}, errdefs.ErrNotFound.WithMessage("No such image: " + ref)
	}
	return image.InspectResponse{ID: "sha256:1", Size: 42, Os: "linux", Architecture: goArch}, nil
}

func (f *fakeImages) History(context.Context, string) ([]image.HistoryResponseItem, error) {
	return nil, nil
}
func (f *fakeImages) Tag(context.Context, string, string) error { return f.failure }

func (f *fakeImages) Remove(context.Context, string, bool, bool) ([]image.DeleteResponse, error) {
	return []image.DeleteResponse{{Untagged: "busybox:latest"}, {Deleted: "sha256:1"}}, f.failure
}
func (f *fakeImages) Driver() string { return "overlay" }
func (f *fakeImages) Status() ([][2]string, error) {
	return [][2]string{{"Backing Filesystem", "xfs"}}, nil
}

type fakeVolumes struct{ filters containers.Filters }

func (f *fakeVolumes) List(_ context.Context, filters containers.Filters) (volume.ListResponse, error) {
	f.filters = filters
	return volume.ListResponse{Volumes: []volume.Volume{{Name: "data", Driver: "local", UsageData: &volume.UsageData{Size: 5}}}}, nil
}

func (f *fakeVolumes) Create(_ context.Context, r volume.CreateRequest) (volume.Volume, error) {
	return volume.Volume{Name: r.Name, Driver: "local"}, nil
}

func (f *fakeVolumes) Inspect(_ context.Context, name string) (volume.Volume, error) {
	if name != "data" {
		return volume.Volume{}, errdefs.ErrNotFound.WithMessage("get " + name + ": no such volume")
	}
	return volume.Volume{Name: name}, nil
}
func (f *fakeVolumes) Remove(context.Context, string, bool) error { return nil }

func (f *fakeVolumes) Size(context.Context, string) (int64, error) { return 5, nil }

func (f *fakeVolumes) Prune(_ context.Context, filters containers.Filters) (volume.PruneReport, error) {
	f.filters = filters
	return volume.PruneReport{}, nil
}

type fakeNetworks struct{}

func (fakeNetworks) List(context.Context, containers.Filters) ([]network.Inspect, error) {
	return []network.Inspect{{Network: network.Network{Name: "bridge", ID: "b1", Driver: "bridge", Scope: "local"}}}, nil
}

func (fakeNetworks) Inspect(_ context.Context, ref string) (network.Inspect, error) {
	if ref != "bridge" {
		return network.Inspect{}, errdefs.ErrNotFound.WithMessage("network " + ref + " not found")
	}
	return network.Inspect{Network: network.Network{Name: "bridge"}}, nil
}

func (fakeNetworks) Create(_ context.Context, req network.CreateRequest) (network.Inspect, error) {
	if req.Name == "" {
		return network.Inspect{}, errdefs.ErrInvalidArgument.WithMessage("network name is required")
	}
	return network.Inspect{Network: network.Network{Name: req.Name, ID: "n1", Driver: "bridge"}}, nil
}

func (n fakeNetworks) Remove(ctx context.Context, ref string) (network.Inspect, error) {
	if ref == "bridge" {
		return network.Inspect{}, errdefs.ErrPermissionDenied.WithMessage("bridge is a pre-defined network and cannot be removed")
	}
	return network.Inspect{Network: network.Network{Name: ref, ID: "n1", Driver: "bridge"}}, nil
}

func (n fakeNetworks) Prune(context.Context, containers.Filters) ([]network.Inspect, error) {
	return []network.Inspect{{Network: network.Network{Name: "old", ID: "n2", Driver: "bridge"}}}, nil
}

func (f *fakeContainers) ConnectNetwork(_ context.Context, ref, name string, e *network.EndpointSettings) error {
	_, err := f.get(ref)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.joined = append(f.joined, fmt.Sprint("connect ", name, " ", e != nil && e.GwPriority != 0))
	return err
}

func (f *fakeContainers) DisconnectNetwork(_ context.Context, ref, name string, force bool) error {
	_, err := f.get(ref)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.joined = append(f.joined, fmt.Sprint("disconnect ", name, " ", force))
	return err
}
