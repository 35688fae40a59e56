package api

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"gotest.tools/v3/assert"

	"lrd/internal/containers"
	"lrd/internal/networks"
	"lrd/internal/volumes"
)

// The packages that do the work fit what is asked of them.
var (
	_ NetworkStore = (*networks.Manager)(nil)
	_ ImageUsers   = (*containers.Manager)(nil)
	_ VolumeUsers  = (*containers.Manager)(nil)
)

type volumeUsers map[string][]string

func (u volumeUsers) UsesVolume(name string) []string { return u[name] }

func TestVolumesInUseStay(t *testing.T) {
	store, err := volumes.Open(t.TempDir(), slog.New(slog.DiscardHandler))
	assert.NilError(t, err)
	users := volumeUsers{"busy": {"c1"}}
	v := FromVolumes(store, users)
	for _, name := range []string{"busy", "free", ""} {
		_, err := v.Create(t.Context(), volume.CreateRequest{Name: name})
		assert.NilError(t, err)
	}
	assert.Assert(t, errdefs.IsConflict(v.Remove(t.Context(), "busy", true)))
	unused, err := v.List(t.Context(), containers.Filters{"dangling": {"true": true}})
	assert.NilError(t, err)
	assert.Equal(t, len(unused.Volumes), 2)

	report, err := v.Prune(t.Context(), containers.Filters{})
	assert.NilError(t, err)
	assert.Equal(t, len(report.VolumesDeleted), 1, "the anonymous one")
	report, err = v.Prune(t.Context(), containers.Filters{"all": {"true": true}})
	assert.NilError(t, err)
	assert.DeepEqual(t, report.VolumesDeleted, []string{"free"})
	_, err = v.Inspect(t.Context(), "busy")
	assert.NilError(t, err)
}

// bridges are the default network and one of a user's, which was made a day ago.
type bridges struct{ removed *[]string }

func (bridges) Networks() []networks.Network {
	subnet := func(text string) []networks.Subnet {
		p := netip.MustParsePrefix(text)
		return []networks.Subnet{{Subnet: p, Gateway: p.Addr().Next()}}
	}
	return []networks.Network{
		{ID: networks.BuiltinID("bridge"), Name: "bridge", Bridge: "lrd0", Subnets: subnet("172.30.0.0/16")},
		{
			ID: strings.Repeat("a", 64), Name: "mine", Subnets: subnet("10.0.0.0/24"), Labels: map[string]string{"x": "y"}, Internal: true,
			Created: time.Now().Add(-24 * time.Hour),
		},
	}
}

func (b bridges) Create(_ context.Context, req network.CreateRequest) (networks.Network, error) {
	return networks.Network{Name: req.Name}, nil
}

func (b bridges) Remove(_ context.Context, ref string) (networks.Network, error) {
	*b.removed = append(*b.removed, ref)
	return networks.Network{Name: "mine", ID: ref}, nil
}

func (bridges) InUse(string) bool { return false }

// oneContainer is a list of one container on the bridge.
type oneContainer struct{ ContainerViews }

func (oneContainer) List(context.Context, containers.ListOptions) ([]container.Summary, error) {
	return []container.Summary{{
		ID: "c1", Names: []string{"/web"},
		NetworkSettings: &container.NetworkSettingsSummary{Networks: map[string]*network.EndpointSettings{
			"bridge": {EndpointID: "e1", IPAddress: netip.MustParseAddr("172.30.0.2"), IPPrefixLen: 16},
		}},
	}}, nil
}

func TestNetworks(t *testing.T) {
	removed := new([]string)
	n := FromNetworks(bridges{removed}, oneContainer{})
	for _, tc := range []struct {
		key, value string
		want       []string
	}{
		{"", "", []string{"bridge", "mine", "host", "none"}},
		{"name", "o", []string{"host", "none"}},
		{"driver", "null", []string{"none"}},
		{"id", networks.BuiltinID("host")[:8], []string{"host"}},
		{"type", "builtin", []string{"bridge", "host", "none"}},
		{"type", "custom", []string{"mine"}},
		{"scope", "swarm", nil},
		{"label", "x", []string{"mine"}},
		{"label", "x=z", nil},
		{"dangling", "true", []string{"mine"}},
		{"dangling", "false", []string{"bridge", "host", "none"}},
	} {
		list, err := n.List(t.Context(), containers.Filters{tc.key: {tc.value: tc.key != ""}})
		if tc.key == "" {
			list, err = n.List(t.Context(), nil)
		}
		assert.NilError(t, err)
		var names []string
		for _, found := range list {
			names = append(names, found.Name)
		}
		assert.DeepEqual(t, names, tc.want)
	}
	b, err := n.Inspect(t.Context(), networks.BuiltinID("bridge")[:12])
	assert.NilError(t, err)
	assert.Equal(t, b.IPAM.Config[0].Gateway.String(), "172.30.0.1")
	assert.Equal(t, b.Containers["c1"].Name, "web")
	assert.Equal(t, b.Containers["c1"].IPv4Address.String(), "172.30.0.2/16")
	_, err = n.Inspect(t.Context(), "nobody")
	assert.Error(t, err, "network nobody not found")
	_, err = n.Inspect(t.Context(), "")
	assert.Assert(t, errdefs.IsInvalidArgument(err))
	_, err = n.List(t.Context(), containers.Filters{"type": {"odd": true}})
	assert.ErrorContains(t, err, "invalid filter: 'type'='odd'")

	mine, err := n.Inspect(t.Context(), "mine")
	assert.NilError(t, err)
	assert.Check(t, mine.Internal && mine.Labels["x"] == "y" && len(mine.Containers) == 0)
	_, err = n.Remove(t.Context(), "host")
	assert.Error(t, err, "host is a pre-defined network and cannot be removed")
	for _, tc := range []struct {
		f    containers.Filters
		want int
	}{
		{nil, 1},
		{containers.Filters{"until": {"1h": true}}, 1},
		{containers.Filters{"until": {"48h": true}}, 0},
		{containers.Filters{"label": {"x": true}}, 1},
		{containers.Filters{"label!": {"x=y": true}}, 0},
		{containers.Filters{"label!": {"z": true}}, 1},
	} {
		*removed = nil
		gone, err := n.Prune(t.Context(), tc.f)
		assert.NilError(t, err)
		assert.Check(t, len(gone) == tc.want && len(*removed) == tc.want, "%v", tc.f)
	}
	_, err = n.Prune(t.Context(), containers.Filters{"until": {"soon": true}})
	assert.Assert(t, errdefs.IsInvalidArgument(err))
}
