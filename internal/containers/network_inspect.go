package containers

import (
	"net"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"lrd/internal/networks"
)

// networkSettings is the container's place in its networks. Addresses and ports
// are there while it runs.
func networkSettings(r Record) *container.NetworkSettings {
	settings := &container.NetworkSettings{
		Ports:    network.PortMap{},
		Networks: map[string]*network.EndpointSettings{},
	}
	sandbox := sandboxOf(r)
	for _, ms := range memberships(r) {
		settings.Networks[ms.Network] = endpointSettings(r, ms, sandbox)
	}
	if r.Run == nil || len(settings.Networks) == 0 {
		return settings
	}
	settings.SandboxID = derivedID("sandbox", r.ID)
	settings.SandboxKey = sandbox.NetNS
	if len(sandbox.Endpoints) > 0 {
		config, _ := configs(r)
		settings.Ports = portMap(config.ExposedPorts, sandbox.Ports)
	}
	return settings
}

// endpointSettings is the container's place in one network.
func endpointSettings(r Record, ms Membership, sandbox networks.Sandbox) *network.EndpointSettings {
	es := &network.EndpointSettings{
		NetworkID: ms.ID, Aliases: ms.Aliases, Links: ms.Links, DriverOpts: ms.DriverOpts, GwPriority: ms.Priority, DNSNames: dnsNames(r, ms),
	}
	if ms.IPv4.IsValid() || ms.IPv6.IsValid() {
		es.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: ms.IPv4, IPv6Address: ms.IPv6}
	}
	mac := ms.MAC
	if r.Run != nil {
		es.EndpointID = derivedID("endpoint", ms.Network, r.ID)
	}
	if ep, ok := sandbox.Endpoint(ms.Network); ok {
		es.NetworkID, mac = ep.NetworkID, ep.MAC
		es.IPAddress, es.IPPrefixLen = ep.IP, ep.PrefixLen
		es.GlobalIPv6Address, es.GlobalIPv6PrefixLen = ep.IP6, ep.PrefixLen6
		if !ep.Internal {
			es.Gateway, es.IPv6Gateway = ep.Gateway, ep.Gateway6
		}
	}
	if addr, err := net.ParseMAC(mac); err == nil {
		es.MacAddress = network.HardwareAddr(addr)
	}
	return es
}

// portMap has a port that is exposed and not published as one without bindings.
func portMap(exposed network.PortSet, published []networks.PortBinding) network.PortMap {
	ports := network.PortMap{}
	for port := range exposed {
		ports[port] = nil
	}
	for _, b := range published {
		port, ok := network.PortFrom(b.ContainerPort, network.IPProtocol(b.Proto))
		if !ok {
			continue
		}
		ports[port] = append(ports[port], network.PortBinding{HostIP: b.HostIP, HostPort: strconv.Itoa(int(b.HostPort))})
	}
	return ports
}
