package api

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"lrd/internal/containers"
)

// DefaultNetwork is what /networks tells of the default bridge; networks.Manager is one.
type DefaultNetwork interface {
	Bridge() string // the link's name
	Subnet() netip.Prefix
	Gateway() netip.Addr
}

// FromNetworks makes Networks of the three networks that there always are: bridge, host and none.
func FromNetworks(bridge DefaultNetwork, users ContainerViews) Networks {
	return builtinNetworks{bridge, users}
}

type builtinNetworks struct {
	bridge DefaultNetwork
	users  ContainerViews
}

func (b builtinNetworks) List(ctx context.Context, f containers.Filters) ([]network.Inspect, error) {
	all, err := b.all(ctx)
	if err != nil {
		return nil, err
	}
	list := []network.Inspect{}
	for _, n := range all {
		if passesNetwork(n, f) {
			list = append(list, n)
		}
	}
	return list, nil
}

func (b builtinNetworks) Inspect(ctx context.Context, ref string) (network.Inspect, error) {
	all, err := b.all(ctx)
	if err != nil {
		return network.Inspect{}, err
	}
	for _, n := range all {
		if n.Name == ref || n.ID == ref {
			return n, nil
		}
	}
	var found []network.Inspect
	for _, n := range all {
		if strings.HasPrefix(n.ID, ref) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return network.Inspect{}, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("network %s not found", ref))
	}
	return network.Inspect{}, invalid("network %s is ambiguous: %d networks begin with it", ref, len(found))
}

// all are the networks, with the containers that are in each now.
func (b builtinNetworks) all(ctx context.Context) ([]network.Inspect, error) {
	running, err := b.users.List(ctx, containers.ListOptions{})
	if err != nil {
		return nil, err
	}
	list := []network.Inspect{builtinNetwork("bridge", "bridge"), builtinNetwork("host", "host"), builtinNetwork("none", "null")}
	list[0].IPAM.Config = []network.IPAMConfig{{Subnet: b.bridge.Subnet(), Gateway: b.bridge.Gateway()}}
	list[0].Options = map[string]string{
		"com.docker.network.bridge.default_bridge":       "true",
		"com.docker.network.bridge.enable_ip_masquerade": "true",
		"com.docker.network.bridge.name":                 b.bridge.Bridge(),
	}
	for _, c := range running {
		addEndpoints(list, c)
	}
	return list, nil
}

func builtinNetwork(name, driver string) network.Inspect {
	return network.Inspect{
		Network: network.Network{
			Name: name, ID: containers.NetworkID(name), Driver: driver, Scope: "local", EnableIPv4: true,
			IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{}}, Options: map[string]string{}, Labels: map[string]string{},
		},
		Containers: map[string]network.EndpointResource{},
	}
}

func addEndpoints(list []network.Inspect, c container.Summary) {
	if c.NetworkSettings == nil {
		return
	}
	for name, ep := range c.NetworkSettings.Networks {
		for i := range list {
			if list[i].Name != name || ep == nil {
				continue
			}
			e := network.EndpointResource{EndpointID: ep.EndpointID, MacAddress: ep.MacAddress}
			if len(c.Names) > 0 {
				e.Name = strings.TrimPrefix(c.Names[0], "/")
			}
			if ep.IPAddress.IsValid() {
				e.IPv4Address = netip.PrefixFrom(ep.IPAddress, ep.IPPrefixLen)
			}
			list[i].Containers[c.ID] = e
		}
	}
}

// passesNetwork: a name is found by any part of it and an ID by its beginning, as dockerd does. All networks
// here are built in, so none is ever dangling.
func passesNetwork(n network.Inspect, f containers.Filters) bool {
	for key, values := range f {
		if len(values) > 0 && !networkHas(n, key, values) {
			return false
		}
	}
	return true
}

func networkHas(n network.Inspect, key string, values map[string]bool) bool {
	for v := range values {
		switch key {
		case "name":
			if strings.Contains(n.Name, v) {
				return true
			}
		case "id":
			if strings.HasPrefix(n.ID, v) {
				return true
			}
		case "driver":
			if n.Driver == v {
				return true
			}
		case "scope":
			if n.Scope == v {
				return true
			}
		case "type":
			if v == "builtin" {
				return true
			}
		case "dangling":
			if !isTrue(values) {
				return true
			}
		}
	}
	return false
}
