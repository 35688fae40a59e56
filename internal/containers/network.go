package containers

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"lrd/internal/networks"
	"lrd/internal/oci"
)

// Membership is what a container wants of a network that it is to be in. A
// network is known by its name: one that is removed and made again is the same to
// a container.
type Membership struct {
	Network string `json:"network"`
	// ID is what the network had when the container was last in it.
	ID       string     `json:"id,omitempty"`
	IPv4     netip.Addr `json:"ipv4,omitzero"`
	IPv6     netip.Addr `json:"ipv6,omitzero"`
	MAC      string     `json:"mac,omitempty"`
	Aliases  []string   `json:"aliases,omitempty"`
	Priority int        `json:"priority,omitempty"`
	// Links are what the container calls others there, as Docker writes it: "name:alias", or a name alone.
	Links []string `json:"links,omitempty"`
	// DriverOpts are kept for those who ask.
	DriverOpts map[string]string `json:"driverOpts,omitempty"`
}

// memberships are the networks that a container is to be in, that of its network mode if nothing else is said. It is empty
// for one that shares another container's.
func memberships(r Record) []Membership {
	if r.Memberships != nil {
		return r.Memberships
	}
	_, host := configs(r)
	name := networkName(host.NetworkMode)
	if name == "" {
		return nil
	}
	return []Membership{{Network: name, ID: networks.BuiltinID(name)}}
}

// networkName is the network that a mode means; empty for one that shares another container's.
func networkName(mode container.NetworkMode) string {
	switch {
	case mode == "" || mode.IsDefault():
		return network.NetworkBridge
	case mode.IsContainer():
		return ""
	}
	return string(mode)
}

// checkNetworks finds out which networks a container is to be in, and sees to it that they are there, or the
// container whose network is to be shared.
func (m *Manager) checkNetworks(c *container.Config, h *container.HostConfig, n *network.NetworkingConfig) ([]Membership, error) {
	settings := map[string]*network.EndpointSettings{}
	if n != nil {
		maps.Copy(settings, n.EndpointsConfig)
	}
	if h.NetworkMode.IsContainer() {
		if err := m.checkShared(h, settings); err != nil {
			return nil, err
		}
		return nil, nil
	}
	if _, err := networks.ParsePortBindings(h.PortBindings, c.ExposedPorts, h.PublishAllPorts); err != nil {
		return nil, err
	}
	// The network of the mode comes first, as it is named there or by default.
	mode := string(h.NetworkMode)
	first := settings[mode]
	delete(settings, mode)
	if s, ok := settings[network.NetworkDefault]; ok && mode == network.NetworkBridge {
		first = s
		delete(settings, network.NetworkDefault)
	}
	ms, err := m.membership(mode, withLinks(first, h.Links))
	if err != nil {
		return nil, err
	}
	h.NetworkMode = container.NetworkMode(ms.Network)
	all := []Membership{ms}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		ms, err := m.membership(name, settings[name])
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(all, func(other Membership) bool { return other.Network == ms.Network }); i >= 0 {
			all[i] = ms // by its name and by its ID
			continue
		}
		all = append(all, ms)
	}
	if len(all) > 1 && slices.ContainsFunc(all, alone) {
		return nil, refused(errdefs.ErrInvalidArgument, "conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	return all, nil
}

// checkShared checks the network of another container.
func (m *Manager) checkShared(h *container.HostConfig, settings map[string]*network.EndpointSettings) error {
	other, err := m.findOther(h.NetworkMode.ConnectedContainer())
	if err != nil {
		return err
	}
	mode := string(h.NetworkMode)
	for name := range settings {
		if name != mode {
			return errShared
		}
	}
	// By ID from now on: names can change hands.
	h.NetworkMode = container.NetworkMode("container:" + other.id)
	if len(h.PortBindings) > 0 || h.PublishAllPorts {
		return refused(errdefs.ErrInvalidArgument, "conflicting options: port publishing and the container type network mode")
	}
	return nil
}

// Docker's sentences for networks that go together with no other.
var (
	errShared = refused(errdefs.ErrInvalidArgument, "container sharing network namespace with another container or host cannot be connected to any other network")
	errNone   = refused(errdefs.ErrInvalidArgument, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
)

// alone says whether a network goes together with no other.
func alone(ms Membership) bool {
	return ms.Network == network.NetworkHost || ms.Network == network.NetworkNone
}

// membership makes one of what a request says of a network. That the network is not there is a fault of the request: a client
// that is told "not found" by a create goes and pulls the image.
func (m *Manager) membership(ref string, e *network.EndpointSettings) (Membership, error) {
	if e == nil {
		e = &network.EndpointSettings{}
	}
	ms := Membership{Aliases: slices.Clone(e.Aliases), Priority: e.GwPriority, DriverOpts: maps.Clone(e.DriverOpts), MAC: e.MacAddress.String()}
	for _, link := range e.Links {
		if _, _, ok := parseLink(link); !ok {
			return Membership{}, refused(errdefs.ErrInvalidArgument, "bad format for links: %s", link)
		}
		if !slices.Contains(ms.Links, link) { // the client says it twice
			ms.Links = append(ms.Links, link)
		}
	}
	if e.IPAMConfig != nil {
		ms.IPv4, ms.IPv6 = e.IPAMConfig.IPv4Address, e.IPAMConfig.IPv6Address
		if len(e.IPAMConfig.LinkLocalIPs) > 0 {
			return Membership{}, refused(errdefs.ErrNotImplemented, "network %s: lrd does not give containers link-local addresses", ref)
		}
	}
	if ref == network.NetworkHost || ref == network.NetworkNone {
		ms.Network, ms.ID = ref, networks.BuiltinID(ref)
	} else {
		n, err := m.o.Networks.Network(ref)
		if err != nil {
			return Membership{}, refused(errdefs.ErrInvalidArgument, "%s", err)
		}
		ms.Network, ms.ID = n.Name, n.ID
	}
	if !container.NetworkMode(ms.Network).IsUserDefined() {
		if ms.IPv4.IsValid() || ms.IPv6.IsValid() {
			return Membership{}, refused(errdefs.ErrInvalidArgument,
				"invalid config for network %s: invalid endpoint settings: user-specified IP address is supported on user-defined networks only", ms.Network)
		}
		if len(ms.Aliases) > 0 {
			return Membership{}, refused(errdefs.ErrInvalidArgument,
				"invalid config for network %s: invalid endpoint settings: network-scoped aliases are only supported for user-defined networks", ms.Network)
		}
	}
	return ms, nil
}

// withLinks is what a request says of the network of the mode, with the links that it names outside of it.
func withLinks(e *network.EndpointSettings, links []string) *network.EndpointSettings {
	if len(links) == 0 {
		return e
	}
	var with network.EndpointSettings
	if e != nil {
		with = *e
	}
	with.Links = slices.Concat(with.Links, links)
	return &with
}

// parseLink is the name of another container and what this one calls it.
func parseLink(link string) (name, alias string, ok bool) {
	name, alias, two := strings.Cut(strings.TrimPrefix(link, "/"), ":")
	if !two {
		alias = name
	}
	return name, alias, name != "" && alias != "" && !strings.Contains(alias, ":")
}

// join asks for a container's place in a network.
func join(r Record, ms Membership) networks.Join {
	j := networks.Join{Network: ms.Network, IPv4: ms.IPv4, IPv6: ms.IPv6, MAC: ms.MAC, Priority: ms.Priority, Names: dnsNames(r, ms)}
	if !container.NetworkMode(ms.Network).IsUserDefined() {
		return j
	}
	for _, link := range ms.Links {
		if name, alias, ok := parseLink(link); ok {
			if j.Links == nil {
				j.Links = map[string]string{}
			}
			j.Links[alias] = name
		}
	}
	return j
}

// dnsNames are what a container is called in a network, its own name first.
func dnsNames(r Record, ms Membership) []string {
	if !container.NetworkMode(ms.Network).IsUserDefined() {
		return nil
	}
	config, _ := configs(r)
	names := append([]string{r.Name}, ms.Aliases...)
	for _, n := range []string{r.ID[:12], config.Hostname} {
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// joinNetwork gives the container its network: its places in networks, an empty
// namespace, the host's, or that of another container.
//
// Namespaces are named by a path and not by a process, so that they are there
// again when systemd restarts the container.
func (m *Manager) joinNetwork(ctx context.Context, r *Record, run *Run, in *oci.Input, undo *cleanup) error {
	mode := r.HostConfig.NetworkMode
	switch {
	case mode.IsHost():
		return nil
	case mode.IsContainer():
		path, err := m.networkOf(mode.ConnectedContainer())
		in.NetNS = path
		return err
	}
	req := networks.Request{ContainerID: r.ID, Servers: nameServers(r, m.o.Config()), Isolated: mode.IsNone() || r.Config.NetworkDisabled}
	if !req.Isolated {
		var err error
		if req.Ports, err = networks.ParsePortBindings(r.HostConfig.PortBindings, r.Config.ExposedPorts, r.HostConfig.PublishAllPorts); err != nil {
			return err
		}
		for _, ms := range memberships(*r) {
			req.Joins = append(req.Joins, join(*r, ms))
		}
	}
	sandbox, err := m.o.Networks.Attach(ctx, req)
	if err != nil {
		return fmt.Errorf("cannot set up the network: %w", err)
	}
	undo.add(func() { _ = m.o.Networks.Detach(ctx, r.ID) })
	run.Sandbox = &sandbox
	in.NetNS = sandbox.NetNS
	return nil
}

// endedMark is the file that keeps the names of the run's container from being told while it is there.
func (r *Run) endedMark() string {
	if r == nil || r.Sandbox == nil {
		return ""
	}
	return r.Sandbox.EndedMark
}

// joined tells of the networks that a container is in since it was started.
func (m *Manager) joined(c *Container, s *networks.Sandbox) {
	if s == nil {
		return
	}
	for _, e := range s.Endpoints {
		m.publishNetwork(c, events.ActionConnect, e)
	}
}

// leaveNetworks gives a container's places in networks up, at the end of its run.
func (m *Manager) leaveNetworks(ctx context.Context, c *Container, s *networks.Sandbox) error {
	if err := m.o.Networks.Detach(ctx, c.id); err != nil {
		return err
	}
	for _, e := range s.Endpoints {
		m.publishNetwork(c, events.ActionDisconnect, e)
	}
	return nil
}

// publishNetwork tells that a container has joined or left a network, with Docker's attributes.
func (m *Manager) publishNetwork(c *Container, action events.Action, e networks.Endpoint) {
	at := time.Now()
	m.o.Events.Publish(events.Message{
		Type: events.NetworkEventType, Action: action, Scope: "local", Time: at.Unix(), TimeNano: at.UnixNano(),
		Actor: events.Actor{ID: e.NetworkID, Attributes: map[string]string{"container": c.id, "name": e.Network, "type": "bridge"}},
	})
}

// sandboxOf is the place of a container that runs.
func sandboxOf(r Record) networks.Sandbox {
	if r.Run == nil || r.Run.Sandbox == nil {
		return networks.Sandbox{}
	}
	return *r.Run.Sandbox
}
