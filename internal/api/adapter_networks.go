package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"lrd/internal/containers"
	"lrd/internal/networks"
)

// NetworkStore has the networks that are bridges; networks.Manager is one.
type NetworkStore interface {
	Networks() []networks.Network
	Create(ctx context.Context, req network.CreateRequest) (networks.Network, error)
	Remove(ctx context.Context, ref string) (networks.Network, error)
	InUse(id string) bool
}

// FromNetworks makes Networks of bridges, and of the two that there always are besides: host and none.
func FromNetworks(bridges NetworkStore, users ContainerViews) Networks {
	return allNetworks{bridges, users}
}

type allNetworks struct {
	bridges NetworkStore
	users   ContainerViews
}

func (a allNetworks) List(ctx context.Context, f containers.Filters) ([]network.Inspect, error) {
	all, err := a.all(ctx)
	if err != nil {
		return nil, err
	}
	list := []network.Inspect{}
	for _, n := range all {
		ok, err := passesNetwork(n, f)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, n)
		}
	}
	return list, nil
}

func (a allNetworks) Inspect(ctx context.Context, ref string) (network.Inspect, error) {
	all, err := a.all(ctx)
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
	return network.Inspect{}, invalid("network %s is ambiguous (%d matches found based on ID prefix)", ref, len(found))
}

func (a allNetworks) Create(ctx context.Context, req network.CreateRequest) (network.Inspect, error) {
	n, err := a.bridges.Create(ctx, req)
	if err != nil {
		return network.Inspect{}, err
	}
	return bridgeNetwork(n), nil
}

func (a allNetworks) Remove(ctx context.Context, ref string) (network.Inspect, error) {
	for _, name := range []string{network.NetworkHost, network.NetworkNone} {
		if ref == name || ref == networks.BuiltinID(name) {
			return network.Inspect{}, errdefs.ErrPermissionDenied.WithMessage(name + " is a pre-defined network and cannot be removed")
		}
	}
	n, err := a.bridges.Remove(ctx, ref)
	if err != nil {
		return network.Inspect{}, err
	}
	return bridgeNetwork(n), nil
}

func (a allNetworks) Prune(_ context.Context, f containers.Filters) ([]network.Inspect, error) {
	until, err := pruneUntil(f["until"])
	if err != nil {
		return nil, err
	}
	var removed []network.Inspect
	var errs []error
	for _, n := range a.bridges.Networks() {
		if n.Default() || a.bridges.InUse(n.ID) || !n.Created.Before(until) || !hasLabels(n.Labels, f["label"]) || len(f["label!"]) > 0 && hasLabels(n.Labels, f["label!"]) {
			continue
		}
		// What has begun is carried through; a container that has joined meanwhile keeps its network.
		gone, err := a.bridges.Remove(context.Background(), n.ID)
		switch {
		case err == nil:
			removed = append(removed, bridgeNetwork(gone))
		case !errdefs.IsPermissionDenied(err) && !errdefs.IsNotFound(err):
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

// pruneUntil is the moment before which a network must have been made: a moment, or a duration before now. Without any it is
// now.
func pruneUntil(values map[string]bool) (time.Time, error) {
	until := time.Now()
	for v := range values {
		t, err := parseMoment(v)
		if d, durErr := time.ParseDuration(v); durErr == nil {
			t, err = time.Now().Add(-d), nil
		}
		if err != nil {
			return time.Time{}, invalid("invalid value for filter 'until': %v", err)
		}
		if t.Before(until) {
			until = t
		}
	}
	return until, nil
}

// all are the networks, with the containers that are in each now.
func (a allNetworks) all(ctx context.Context) ([]network.Inspect, error) {
	running, err := a.users.List(ctx, containers.ListOptions{})
	if err != nil {
		return nil, err
	}
	var list []network.Inspect
	for _, n := range a.bridges.Networks() {
		list = append(list, bridgeNetwork(n))
	}
	list = append(list, plainNetwork(network.NetworkHost, "host"), plainNetwork(network.NetworkNone, "null"))
	for _, c := range running {
		addEndpoints(list, c)
	}
	return list, nil
}

// plainNetwork is a network without addresses of its own.
func plainNetwork(name, driver string) network.Inspect {
	return network.Inspect{
		Network: network.Network{
			Name: name, ID: networks.BuiltinID(name), Driver: driver, Scope: "local", EnableIPv4: true,
			IPAM: network.IPAM{Driver: network.NetworkDefault, Config: []network.IPAMConfig{}}, Options: map[string]string{}, Labels: map[string]string{},
		},
		Containers: map[string]network.EndpointResource{},
	}
}

// bridgeNetwork is a bridge in Docker's words.
func bridgeNetwork(n networks.Network) network.Inspect {
	i := plainNetwork(n.Name, "bridge")
	i.ID, i.Internal, i.Attachable = n.ID, n.Internal, n.Attachable
	i.Created = n.Created
	i.IPAM.Options = n.IPAMOptions
	for _, s := range n.Subnets {
		i.IPAM.Config = append(i.IPAM.Config, network.IPAMConfig{Subnet: s.Subnet, IPRange: s.IPRange, Gateway: s.Gateway, AuxAddress: s.Aux})
	}
	_, i.EnableIPv6 = n.Subnet6()
	maps.Copy(i.Options, n.Options)
	maps.Copy(i.Labels, n.Labels)
	return i
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
			if ep.GlobalIPv6Address.IsValid() {
				e.IPv6Address = netip.PrefixFrom(ep.GlobalIPv6Address, ep.GlobalIPv6PrefixLen)
			}
			list[i].Containers[c.ID] = e
		}
	}
}

// builtin says whether a network is one of those that there always are.
func builtin(n network.Inspect) bool {
	return slices.Contains([]string{network.NetworkBridge, network.NetworkHost, network.NetworkNone}, n.Name)
}

// passesNetwork: a name is found by any part of it and an ID by its beginning, as dockerd does. A network that there always
// is is never dangling.
func passesNetwork(n network.Inspect, f containers.Filters) (bool, error) {
	for key, values := range f {
		switch key {
		case "type":
			for v := range values {
				if v != "builtin" && v != "custom" {
					return false, invalid("invalid filter: 'type'='%s'", v)
				}
			}
		case "label":
			if !hasLabels(n.Labels, values) {
				return false, nil
			}
			continue
		}
		if len(values) > 0 && !networkHas(n, key, values) {
			return false, nil
		}
	}
	return true, nil
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
			if (v == "builtin") == builtin(n) {
				return true
			}
		case "dangling":
			if isTrue(values) == (!builtin(n) && len(n.Containers) == 0) {
				return true
			}
		}
	}
	return false
}
