package main

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lrd/internal/api"
	"lrd/internal/containers"
	"lrd/internal/images"
	"lrd/internal/networks"
	"lrd/internal/volumes"
)

// The packages below the API do not know each other: that an image or a volume
// is in use by a container is brought together here.

// apiImages is the image store as the API sees it.
type apiImages struct {
	*images.Store
	ctrs *containers.Manager
}

func (i apiImages) Load(ctx context.Context, r io.Reader, progress api.Progress) error {
	return i.Store.Load(ctx, r, images.Progress(progress))
}

func (i apiImages) Import(ctx context.Context, r io.Reader, o api.ImportOptions, progress api.Progress) (string, error) {
	id, err := i.Store.Import(ctx, r, images.ImportOptions{Ref: o.Ref, Message: o.Message, Changes: o.Changes, Platform: o.Platform}, images.Progress(progress))
	return id.String(), err
}

func (i apiImages) Pull(ctx context.Context, ref string, platform *ocispec.Platform, auth registry.AuthConfig, progress api.Progress) error {
	o := images.PullOptions{Platform: platform}
	if auth != (registry.AuthConfig{}) {
		o.Auth = &auth
	}
	return i.Store.Pull(ctx, ref, o, images.Progress(progress))
}

// Login tells people what works instead: credentials are tried at the pull.
func (apiImages) Login(context.Context, registry.AuthConfig) error {
	return errdefs.ErrNotImplemented.WithMessage("this version of lrd cannot try credentials; the client's configuration file is used at docker pull")
}

func (i apiImages) List(ctx context.Context, all bool, filters containers.Filters) ([]image.Summary, error) {
	return i.Store.List(ctx, images.ListOptions{All: all, Filters: images.Filters(filters), Containers: i.ctrs.CountByImage})
}

func (i apiImages) Remove(ctx context.Context, ref string, force, _ bool) ([]image.DeleteResponse, error) {
	return i.Store.Remove(ctx, ref, force, i.ctrs.UsesImage)
}

// apiVolumes is the volumes as the API sees them.
type apiVolumes struct {
	*volumes.Store
	ctrs *containers.Manager
}

func (v apiVolumes) inUse(name string) bool { return len(v.ctrs.UsesVolume(name)) > 0 }

func (v apiVolumes) List(ctx context.Context, filters containers.Filters) (volume.ListResponse, error) {
	return v.Store.List(ctx, volumes.Filters(filters), v.inUse)
}

func (v apiVolumes) Inspect(ctx context.Context, name string) (volume.Volume, error) {
	return v.Get(ctx, name)
}

func (v apiVolumes) Remove(ctx context.Context, name string, force bool) error {
	return v.Store.Remove(ctx, name, force, v.ctrs.UsesVolume)
}

// Prune removes volumes that no container has: anonymous ones, and named ones too with the filter all.
func (v apiVolumes) Prune(ctx context.Context, filters containers.Filters) (volume.PruneReport, error) {
	report := volume.PruneReport{VolumesDeleted: []string{}}
	all := false
	for value := range filters["all"] {
		b, err := strconv.ParseBool(value)
		if err != nil {
			return report, errdefs.ErrInvalidArgument.WithMessage("invalid filter 'all=" + value + "': want true or false")
		}
		all = all || b
	}
	rest := volumes.Filters{}
	for k, values := range filters {
		if k != "all" {
			rest[k] = values
		}
	}
	l, err := v.Store.List(ctx, rest, v.inUse)
	if err != nil {
		return report, err
	}
	for _, vol := range l.Volumes {
		_, anonymous := vol.Labels[volumes.AnonymousLabel]
		if !anonymous && !all || v.inUse(vol.Name) {
			continue
		}
		if err := v.Store.Remove(ctx, vol.Name, false, v.ctrs.UsesVolume); err != nil {
			if errdefs.IsConflict(err) {
				continue // taken into use just now
			}
			return report, err
		}
		report.VolumesDeleted = append(report.VolumesDeleted, vol.Name)
	}
	return report, nil
}

// apiNetworks is the three networks there are.
type apiNetworks struct {
	net  *networks.Manager
	ctrs *containers.Manager
}

func (n apiNetworks) all() []network.Inspect {
	plain := func(name string) network.Network {
		return network.Network{Name: name, ID: containers.NetworkID(name), Driver: name, Scope: "local", Options: map[string]string{}, Labels: map[string]string{}}
	}
	bridge := network.Inspect{Network: plain(network.NetworkBridge), Containers: map[string]network.EndpointResource{}}
	bridge.Options["com.docker.network.bridge.default_bridge"] = "true"
	bridge.Options["com.docker.network.bridge.name"] = n.net.Bridge()
	bridge.IPAM = network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: n.net.Subnet(), Gateway: n.net.Gateway()}}}
	for _, m := range n.ctrs.Members() {
		e := network.EndpointResource{Name: m.Name, EndpointID: m.ID, IPv4Address: netip.PrefixFrom(m.Endpoint.IP, m.Endpoint.PrefixLen)}
		_ = e.MacAddress.UnmarshalText([]byte(m.Endpoint.MAC))
		bridge.Containers[m.ID] = e
	}
	host, none := plain(network.NetworkHost), plain(network.NetworkNone)
	none.Driver = "null"
	return []network.Inspect{bridge, {Network: host}, {Network: none}}
}

func (n apiNetworks) List(_ context.Context, filters containers.Filters) ([]network.Inspect, error) {
	want := func(key, value string) bool { return !filters.Has(key) || filters[key][value] }
	for key := range filters {
		if !slices.Contains([]string{"name", "id", "driver", "scope", "type", "dangling", "label"}, key) {
			return nil, errdefs.ErrInvalidArgument.WithMessage("invalid filter '" + key + "'")
		}
	}
	return slices.DeleteFunc(n.all(), func(i network.Inspect) bool {
		return !want("name", i.Name) || !want("id", i.ID) || !want("driver", i.Driver) || !want("scope", i.Scope) || !want("type", "builtin") ||
			filters.Has("label") || filters["dangling"]["true"]
	}), nil
}

func (n apiNetworks) Inspect(_ context.Context, ref string) (network.Inspect, error) {
	for _, i := range n.all() {
		if i.Name == ref || i.ID == ref || len(ref) >= 4 && i.ID[:min(len(ref), len(i.ID))] == ref {
			return i, nil
		}
	}
	return network.Inspect{}, errdefs.ErrNotFound.WithMessage("network " + ref + " not found")
}
