package containers

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func inNetworks(mode string, settings map[string]*network.EndpointSettings) func(*CreateRequest) {
	return func(r *CreateRequest) {
		r.HostConfig.NetworkMode = container.NetworkMode(mode)
		r.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: settings}
	}
}

func TestCheckNetworks(t *testing.T) {
	w := newWorld(t, 252)
	four := netip.MustParseAddr("10.0.0.9")
	withIP := &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: four}}
	for _, tc := range []struct {
		mode     string
		settings map[string]*network.EndpointSettings
		want     string // the networks, or the error
	}{
		{"bridge", nil, "bridge"},
		{"bridge", map[string]*network.EndpointSettings{"default": nil}, "bridge"},
		{"host", map[string]*network.EndpointSettings{"host": {}}, "host"},
		{"netA", map[string]*network.EndpointSettings{"netC": nil, "netB": {}, "netA": withIP}, "netA netB netC"},
		{"netA", map[string]*network.EndpointSettings{"bridge": nil}, "netA bridge"},
		{"nope", nil, "network nope not found"},
		{"netA", map[string]*network.EndpointSettings{"nope": nil}, "network nope not found"},
		{"bridge", map[string]*network.EndpointSettings{"bridge": withIP}, "user-specified IP address is supported on user-defined networks only"},
		{"bridge", map[string]*network.EndpointSettings{"bridge": {Aliases: []string{"x"}}}, "network-scoped aliases are only supported for user-defined networks"},
		{"host", map[string]*network.EndpointSettings{"netA": nil}, "cannot attach both"},
		{"netA", map[string]*network.EndpointSettings{"netA": {IPAMConfig: &network.EndpointIPAMConfig{LinkLocalIPs: []netip.Addr{four}}}}, "link-local"},
	} {
		h := container.HostConfig{NetworkMode: container.NetworkMode(tc.mode)}
		got, err := w.m.checkNetworks(&container.Config{}, &h, &network.NetworkingConfig{EndpointsConfig: tc.settings})
		if err != nil {
			assert.Check(t, is.ErrorContains(err, tc.want))
			assert.Check(t, errdefs.IsInvalidArgument(err) || errdefs.IsNotImplemented(err))
			continue
		}
		var names []string
		for _, ms := range got {
			names = append(names, ms.Network)
			assert.Check(t, is.Equal(ms.IPv4.IsValid(), ms.Network == "netA" && tc.settings["netA"] == withIP))
		}
		assert.Check(t, is.Equal(strings.Join(names, " "), tc.want))
	}
}

func TestConnectAndDisconnect(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create(withName("web"), inNetworks("netA", map[string]*network.EndpointSettings{"netA": {Aliases: []string{"www"}}}))
	ctx := t.Context()
	networksOf := func() string {
		t.Helper()
		r, err := w.m.Inspect(ctx, id, false)
		assert.NilError(t, err)
		var names []string
		for name, e := range r.NetworkSettings.Networks {
			names = append(names, name+":"+strings.Join(e.DNSNames, ","))
			assert.Check(t, is.Equal(e.IPAddress.IsValid(), r.State.Running))
		}
		slices.Sort(names)
		return strings.ReplaceAll(strings.Join(names, " "), id[:12], "ID")
	}
	connect := func(name string) {
		t.Helper()
		assert.NilError(t, w.m.ConnectNetwork(ctx, "web", name, nil))
	}
	connect("netB")
	assert.Equal(t, networksOf(), "netA:web,www,ID netB:web,ID")
	assert.NilError(t, w.m.DisconnectNetwork(ctx, id, "netA", false))
	assert.Equal(t, networksOf(), "netB:web,ID")

	assert.NilError(t, w.m.Start(ctx, id))
	connect("netC")
	assert.Equal(t, networksOf(), "netB:web,ID netC:web,ID")
	hosts, err := os.ReadFile(w.m.dataDir(id) + "/hosts")
	assert.NilError(t, err)
	assert.Equal(t, strings.Count(string(hosts), id[:12]), 2)
	err = w.m.ConnectNetwork(ctx, id, "netC", nil)
	assert.Check(t, errdefs.IsPermissionDenied(err) && strings.Contains(err.Error(), "already exists in network netC"), "%v", err)
	w.arm("Networks.Connect", errFault)
	assert.Check(t, w.m.ConnectNetwork(ctx, id, "netD", nil) != nil)
	assert.Equal(t, networksOf(), "netB:web,ID netC:web,ID")
	assert.NilError(t, w.m.Rename(ctx, id, "shop"))
	assert.Equal(t, networksOf(), "netB:shop,ID netC:shop,ID")
	assert.Equal(t, sandboxOf(w.record(id)).Endpoints[1].Names[0], "shop")
	w.arm("Networks.Disconnect", errFault)
	assert.ErrorIs(t, w.m.DisconnectNetwork(ctx, id, "netB", false), errFault)
	assert.Equal(t, networksOf(), "netB:shop,ID netC:shop,ID")
	w.arm("Networks.Disconnect", nil)
	assert.NilError(t, w.m.DisconnectNetwork(ctx, id, "netB", false))
	assert.Equal(t, networksOf(), "netC:shop,ID")
	// A container that is gone is what the networks know of it.
	assert.ErrorContains(t, w.m.DisconnectNetwork(ctx, "gone", "netB", false), "No such container: gone")
	assert.ErrorContains(t, w.m.DisconnectNetwork(ctx, "gone", "netB", true), "endpoint gone not found in netB")
	err = w.m.DisconnectNetwork(ctx, id, "netB", false)
	assert.Check(t, errdefs.IsPermissionDenied(err) && strings.Contains(err.Error(), "is not connected to network netB"), "%v", err)

	assert.NilError(t, w.m.Stop(ctx, id, StopOptions{}))
	assert.Equal(t, networksOf(), "netC:shop,ID")
	var told []string
	for _, e := range w.events.of(events.NetworkEventType) {
		told = append(told, string(e.Action)+" "+e.Actor.Attributes["name"])
	}
	assert.DeepEqual(t, told, []string{"connect netB", "connect netC", "disconnect netB", "disconnect netC"})
}

func TestLinksAreNamesOfOnesOwn(t *testing.T) {
	w := newWorld(t, 252)
	id := w.create(func(r *CreateRequest) { r.HostConfig.Links = []string{"db:data"} },
		inNetworks("netA", map[string]*network.EndpointSettings{"netA": {Links: []string{"db:data", "/cache"}}, "netB": {Links: []string{"mail:post"}}}))
	var links []string
	for _, ms := range w.record(id).Memberships {
		links = append(links, ms.Network)
		links = append(links, ms.Links...)
		if ms.Network == "netA" {
			assert.DeepEqual(t, join(w.record(id), ms).Links, map[string]string{"data": "db", "cache": "cache"})
		}
	}
	assert.DeepEqual(t, links, []string{"netA", "db:data", "/cache", "netB", "mail:post"})
	for _, wrong := range []string{"", "a:", ":b", "a:b:c"} {
		h := container.HostConfig{NetworkMode: "netA"}
		_, err := w.m.checkNetworks(&container.Config{}, &h, &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"netA": {Links: []string{wrong}}}})
		assert.Check(t, is.ErrorContains(err, "bad format for links"), wrong)
	}
}

func TestNetworksThatGoWithNoOther(t *testing.T) {
	w := newWorld(t, 252)
	w.create(withName("other"))
	for mode, want := range map[string]string{
		"host": "sharing network namespace", "none": "private (none) mode", "container:other": "sharing network namespace",
	} {
		id := w.create(inNetworks(mode, nil))
		err := w.m.ConnectNetwork(context.Background(), id, "netA", nil)
		assert.Check(t, is.ErrorContains(err, want))
	}
	id := w.create(inNetworks("host", nil))
	assert.Check(t, is.ErrorContains(w.m.DisconnectNetwork(context.Background(), id, "host", false), "cannot be disconnected from host network"))
}
