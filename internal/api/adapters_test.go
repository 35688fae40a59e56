package api

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"

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
	_ DefaultNetwork = (*networks.Manager)(nil)
	_ ImageUsers     = (*containers.Manager)(nil)
	_ VolumeUsers    = (*containers.Manager)(nil)
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

type bridge struct{}

func (bridge) Bridge() string       { return "lrd0" }
func (bridge) Subnet() netip.Prefix { return netip.MustParsePrefix("172.30.0.0/16") }
func (bridge) Gateway() netip.Addr  { return netip.MustParseAddr("172.30.0.1") }

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

func TestBuiltinNetworks(t *testing.T) {
	n := FromNetworks(bridge{}, oneContainer{})
	for _, tc := range []struct {
		key, value string
		want       []string
	}{
		{"", "", []string{"bridge", "host", "none"}},
		{"name", "o", []string{"host", "none"}},
		{"driver", "null", []string{"none"}},
		{"id", containers.NetworkID("host")[:8], []string{"host"}},
		{"type", "builtin", []string{"bridge", "host", "none"}},
		{"type", "custom", nil},
		{"scope", "swarm", nil},
		{"label", "x", nil},
		{"dangling", "true", nil},
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
	b, err := n.Inspect(t.Context(), containers.NetworkID("bridge")[:12])
	assert.NilError(t, err)
	assert.Equal(t, b.IPAM.Config[0].Gateway.String(), "172.30.0.1")
	assert.Equal(t, b.Containers["c1"].Name, "web")
	assert.Equal(t, b.Containers["c1"].IPv4Address.String(), "172.30.0.2/16")
	_, err = n.Inspect(t.Context(), "mine")
	assert.Error(t, err, "network mine not found")
	_, err = n.Inspect(t.Context(), "")
	assert.Assert(t, errdefs.IsInvalidArgument(err))
}
