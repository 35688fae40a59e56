package networks

import (
	"net/netip"
	"path/filepath"
)

// Request asks for a container's network.
type Request struct {
	// ContainerID is the full identifier: 64 hexadecimal digits.
	ContainerID string
	// Ports are to be published, as ParsePortBindings gave them.
	Ports []PortBinding
	// Isolated asks for a network namespace with a loopback interface and
	// nothing else (`docker run --network none`).
	Isolated bool
}

// Endpoint is a container's network as it was made. It is data: saved with the
// container, given back to Restore.
type Endpoint struct {
	ContainerID string
	// NetNS is the path of the network namespace.
	NetNS string
	// The rest is empty for an isolated container.

	// IP is the address of eth0 and PrefixLen the length of its subnet's
	// prefix; Gateway is the bridge's address in it.
	IP        netip.Addr
	PrefixLen int
	Gateway   netip.Addr
	// MAC is the hardware address of eth0, as 02:42:ac:1e:00:02.
	MAC string
	// Bridge is the host's link that the container is at, HostLink the host's
	// end of its veth pair.
	Bridge   string
	HostLink string
	// Ports are the published ports, with the ports of the host that were
	// chosen.
	Ports []PortBinding
}

// isolated says that there is nothing but a loopback interface.
func (e Endpoint) isolated() bool { return !e.IP.IsValid() }

// gatewayPrefix is the bridge's address and subnet that the endpoint lives by.
func (e Endpoint) gatewayPrefix() netip.Prefix {
	return netip.PrefixFrom(e.Gateway, e.PrefixLen)
}

// hostLink is the name of the host's end of a container's veth pair: as much
// of the identifier as a link's name has room for (IFNAMSIZ is 16).
func hostLink(containerID string) string { return "lrd" + containerID[:12] }

// netNSPath is where a container's network namespace is.
func netNSPath(runDir, containerID string) string { return filepath.Join(runDir, containerID) }

// checkID makes sure that an identifier is safe as part of a path and of a
// link's name.
func checkID(id string) error {
	if len(id) < 12 || len(id) > 128 {
		return invalid("invalid container identifier %q", id)
	}
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return invalid("invalid container identifier %q", id)
		}
	}
	return nil
}
