package networks

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/network"

	"lrd/internal/names"
)

// Request asks for a container's place in its networks.
type Request struct {
	// ContainerID is the full identifier: 64 hexadecimal digits.
	ContainerID string
	// Ports are to be published, as ParsePortBindings gave them.
	Ports []PortBinding
	// Joins are the networks; none asks for a network namespace with a loopback interface and nothing else.
	Joins []Join
	// Isolated says that nobody will Connect the container (`docker run --network none`).
	Isolated bool
	// Servers are the container's own name servers for what is not a container's name; none: the host's.
	Servers []netip.Addr
}

// Join asks for a place in one network.
type Join struct {
	// Network is its ID or name.
	Network string
	// IPv4 and IPv6 are the addresses to have, the zero value any.
	IPv4, IPv6 netip.Addr
	// MAC is the hardware address to have, "" one that follows from the IPv4 address.
	MAC string
	// Names are what the container is called in the network, the container's own name first. They have no effect in the
	// default one.
	Names []string
	// Links are what the container calls others in the network, besides their own names: their name by the container's
	// word for them. They have no effect in the default one.
	Links map[string]string
	// Priority decides by which network the container's packets leave it: the highest, and of equal ones the first by name.
	Priority int
}

// Sandbox is a container's network as it was made: a namespace and its endpoints. It is data: saved with the container,
// given back to Restore. A Sandbox that was handed out never changes.
type Sandbox struct {
	ContainerID string
	// NetNS is the path of the network namespace.
	NetNS string
	// EndedMark is the path of a file that keeps the container's names from being told while it is there. The
	// container's unit makes it at each end and removes it at each beginning.
	EndedMark string `json:",omitempty"`
	// Endpoints are its places in networks, in the order in which it got them; none for an isolated container.
	Endpoints []Endpoint `json:",omitempty"`
	// Ports are the published ports, with the ports of the host that were
	// chosen.
	Ports []PortBinding
	// Servers are those of the Request.
	Servers []netip.Addr `json:",omitempty"`
}

// Endpoint is a container's place in one network.
type Endpoint struct {
	NetworkID string
	Network   string // its name
	// Bridge is the host's link that the container is at, HostLink the host's
	// end of its veth pair, Interface the other end in the container.
	Bridge    string
	HostLink  string
	Interface string
	// IP is the address and PrefixLen the length of its subnet's
	// prefix; Gateway is the bridge's address in it.
	IP        netip.Addr
	PrefixLen int
	Gateway   netip.Addr
	// The same for IPv6, in a network that has it.
	IP6        netip.Addr `json:",omitzero"`
	PrefixLen6 int        `json:",omitempty"`
	Gateway6   netip.Addr `json:",omitzero"`
	// MAC is the hardware address of the interface, as 02:42:ac:1e:00:02.
	MAC string
	// Names, Links and Priority are those of the Join.
	Names    []string          `json:",omitempty"`
	Links    map[string]string `json:",omitempty"`
	Priority int               `json:",omitempty"`
	// Internal, Apart and Unmasked are the network's.
	Internal bool `json:",omitempty"`
	Apart    bool `json:",omitempty"`
	Unmasked bool `json:",omitempty"`
}

// gateway4 and gateway6 are the bridge's addresses with the subnets that the endpoint lives by.
func (e Endpoint) gateway4() netip.Prefix { return netip.PrefixFrom(e.Gateway, e.PrefixLen) }
func (e Endpoint) gateway6() netip.Prefix { return netip.PrefixFrom(e.Gateway6, e.PrefixLen6) }

// gateways are those that there are.
func (e Endpoint) gateways() []netip.Prefix {
	if !e.Gateway6.IsValid() {
		return []netip.Prefix{e.gateway4()}
	}
	return []netip.Prefix{e.gateway4(), e.gateway6()}
}

// named says whether the endpoint's network has names.
func (e Endpoint) named() bool { return e.Network != network.NetworkBridge }

// Endpoint is the container's place in a network, by the network's name or ID.
func (s Sandbox) Endpoint(ref string) (Endpoint, bool) {
	i := s.index(ref)
	if i < 0 {
		return Endpoint{}, false
	}
	return s.Endpoints[i], true
}

func (s Sandbox) index(ref string) int {
	return slices.IndexFunc(s.Endpoints, func(e Endpoint) bool { return e.NetworkID == ref || e.Network == ref })
}

// Named says whether the container is told the names of others: its name server is then the resolver of names.Server.
func (s Sandbox) Named() bool { return slices.ContainsFunc(s.Endpoints, Endpoint.named) }

// way is the endpoint that the container's packets leave by and that its published ports lead to; ok is false if there is
// none that leads out. With v6 it is that for IPv6.
func (s Sandbox) way(v6 bool) (_ Endpoint, ok bool) {
	var ways []Endpoint
	for _, e := range s.Endpoints {
		if !e.Internal && (!v6 || e.IP6.IsValid()) {
			ways = append(ways, e)
		}
	}
	if len(ways) == 0 {
		return Endpoint{}, false
	}
	return slices.MinFunc(ways, func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Network, b.Network))
	}), true
}

// without is the Sandbox without one of its endpoints.
func (s Sandbox) without(i int) Sandbox {
	s.Endpoints = slices.Delete(slices.Clone(s.Endpoints), i, i+1)
	return s
}

// with is the Sandbox with one more endpoint.
func (s Sandbox) with(e Endpoint) Sandbox {
	s.Endpoints = append(slices.Clone(s.Endpoints), e)
	return s
}

// freeInterface is the first name of an interface with a prefix that the container has not.
func (s Sandbox) freeInterface(prefix string) string {
	for n := 0; ; n++ {
		name := prefix + strconv.Itoa(n)
		if !slices.ContainsFunc(s.Endpoints, func(e Endpoint) bool { return e.Interface == name }) {
			return name
		}
	}
}

// file is what the resolver is to know of the container.
func (s Sandbox) file() names.Container {
	_, out := s.way(false)
	c := names.Container{ID: s.ContainerID, NetNS: s.NetNS, Servers: s.Servers, Internal: !out}
	for _, e := range s.Endpoints {
		if e.named() {
			c.Networks = append(c.Networks, names.Network{ID: e.NetworkID, Name: e.Network, Names: e.Names, Links: e.Links, IPv4: e.IP, IPv6: e.IP6})
		}
	}
	return c
}

// savedSandbox is a Sandbox on disk. Beside the endpoints there stands the place in the default network, as it was saved
// when that was the only one: a version of lrd that knows no others takes the container back by it.
type savedSandbox struct {
	plainSandbox
	IP        netip.Addr `json:",omitzero"`
	PrefixLen int        `json:",omitempty"`
	Gateway   netip.Addr `json:",omitzero"`
	MAC       string     `json:",omitempty"`
	Bridge    string     `json:",omitempty"`
	HostLink  string     `json:",omitempty"`
}

// plainSandbox is a Sandbox without its methods.
type plainSandbox Sandbox

// MarshalJSON writes the saved form.
func (s Sandbox) MarshalJSON() ([]byte, error) {
	saved := savedSandbox{plainSandbox: plainSandbox(s)}
	if e, ok := s.Endpoint(network.NetworkBridge); ok {
		saved.IP, saved.PrefixLen, saved.Gateway = e.IP, e.PrefixLen, e.Gateway
		saved.MAC, saved.Bridge, saved.HostLink = e.MAC, e.Bridge, e.HostLink
	}
	return json.Marshal(saved)
}

// UnmarshalJSON reads the saved form, also that of a version which knew the default network alone.
func (s *Sandbox) UnmarshalJSON(data []byte) error {
	var saved savedSandbox
	if err := json.Unmarshal(data, &saved); err != nil {
		return err
	}
	*s = Sandbox(saved.plainSandbox)
	if len(s.Endpoints) == 0 && saved.IP.IsValid() {
		s.Endpoints = []Endpoint{{
			NetworkID: BuiltinID(network.NetworkBridge), Network: network.NetworkBridge, Bridge: saved.Bridge, HostLink: saved.HostLink,
			Interface: "eth0", IP: saved.IP, PrefixLen: saved.PrefixLen, Gateway: saved.Gateway, MAC: saved.MAC,
		}}
	}
	return nil
}

// hostLink is the name of the host's end of a container's veth pair. In the default network it is as much
// of the identifier as a link's name has room for (IFNAMSIZ is 16), in others as much of a sum of both.
func hostLink(containerID, networkID string) string {
	if networkID == BuiltinID(network.NetworkBridge) {
		return "lrd" + containerID[:12]
	}
	sum := sha256.Sum256([]byte(containerID + " " + networkID))
	return "lrd" + hex.EncodeToString(sum[:6])
}

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
