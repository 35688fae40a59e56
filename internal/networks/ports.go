package networks

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// PortBinding is a port to publish, and, in a Sandbox, a published one.
type PortBinding struct {
	// Proto is "tcp", "udp" or "sctp".
	Proto string
	// HostIP is the host's address that the port is published on; the
	// unspecified address of IPv4 or IPv6 stands for all of them. None, in a request, leaves it to the network.
	HostIP netip.Addr
	// Both makes a request one for the same port of all IPv4 and all IPv6 addresses; false in a Sandbox.
	Both bool `json:"-"`
	// HostPort is the port there; 0 in a request asks for any free one.
	HostPort uint16
	// HostPortEnd makes a request one for any free port from HostPort to here;
	// 0 in a Sandbox.
	HostPortEnd   uint16 `json:",omitempty"`
	ContainerPort uint16
}

// String is the form of `docker port` and of error messages:
// 0.0.0.0:8080->80/tcp.
func (b PortBinding) String() string {
	return fmt.Sprintf("%s->%d/%s", b.hostSide(), b.ContainerPort, b.Proto)
}

func (b PortBinding) hostSide() netip.AddrPort { return netip.AddrPortFrom(b.hostIP(), b.HostPort) }

func (b PortBinding) hostIP() netip.Addr {
	if !b.HostIP.IsValid() {
		return netip.IPv4Unspecified()
	}
	return b.HostIP.Unmap()
}

// ParsePortBindings turns the port bindings of a create request into requests
// for ports, in the order of the container's ports. With publishAll (`docker
// run -P`) every exposed port that has no binding gets a free port.
func ParsePortBindings(bindings network.PortMap, exposed network.PortSet, publishAll bool) ([]PortBinding, error) {
	var requests []PortBinding
	for port, hosts := range bindings {
		if len(hosts) == 0 {
			// An entry without hosts publishes nothing unless -P does.
			continue
		}
		for _, host := range hosts {
			b, err := parseBinding(port, host)
			if err != nil {
				return nil, err
			}
			requests = append(requests, b)
		}
	}
	if publishAll {
		for port := range exposed {
			if len(bindings[port]) > 0 {
				continue
			}
			b, err := parseBinding(port, network.PortBinding{})
			if err != nil {
				return nil, err
			}
			requests = append(requests, b)
		}
	}
	slices.SortStableFunc(requests, func(a, b PortBinding) int {
		return cmp.Or(cmp.Compare(a.ContainerPort, b.ContainerPort), cmp.Compare(a.Proto, b.Proto),
			a.HostIP.Compare(b.HostIP), cmp.Compare(a.HostPort, b.HostPort))
	})
	return requests, nil
}

func parseBinding(port network.Port, host network.PortBinding) (PortBinding, error) {
	b := PortBinding{Proto: string(port.Proto()), HostIP: host.HostIP, ContainerPort: port.Num()}
	if host.HostPort != "" {
		r, err := network.ParsePortRange(host.HostPort)
		if err != nil {
			return PortBinding{}, invalid("invalid port specification: %q", host.HostPort)
		}
		b.HostPort = r.Start()
		if r.End() != r.Start() {
			b.HostPortEnd = r.End()
		}
	}
	b.HostIP = b.HostIP.Unmap()
	return b, b.check()
}

func (b PortBinding) check() error {
	switch {
	case b.ContainerPort == 0:
		return invalid("invalid port specification: %q", fmt.Sprintf("%d/%s", b.ContainerPort, b.Proto))
	case b.Proto != "tcp" && b.Proto != "udp" && b.Proto != "sctp":
		return unsupported("cannot publish port %d/%s: only tcp, udp and sctp ports can be published", b.ContainerPort, b.Proto)
	case b.hostIP() == netip.IPv6Loopback():
		return unsupported("cannot publish port %d/%s on [::1]: the kernel leads nothing from there to a container; use 127.0.0.1", b.ContainerPort, b.Proto)
	case b.HostPortEnd != 0 && b.HostPortEnd < b.HostPort:
		return invalid("invalid port specification: %d-%d", b.HostPort, b.HostPortEnd)
	}
	return nil
}

// hostPort is a port of the host.
type hostPort struct {
	proto string
	port  uint16
}

// portTable knows which host ports are given out. It is not safe for
// concurrent use.
type portTable struct {
	// used holds, for each port, the owner by address; the unspecified address
	// stands for all.
	used map[hostPort]map[netip.Addr]string
	// first and last are the range for requests that name no port.
	first, last uint16
	// probe tries to bind a port, so that one that a process of the host
	// listens on is not given out; nil tries nothing.
	probe func(proto string, at netip.AddrPort) error
}

func newPortTable(first, last uint16, probe func(string, netip.AddrPort) error) *portTable {
	return &portTable{used: map[hostPort]map[netip.Addr]string{}, first: first, last: last, probe: probe}
}

// allocate gives an owner all the ports that it asks for, or none.
func (t *portTable) allocate(owner string, requests []PortBinding) ([]PortBinding, error) {
	given := make([]PortBinding, 0, len(requests))
	for _, r := range requests {
		got, err := t.allocateOne(owner, r)
		if err != nil {
			t.release(owner, given)
			return nil, err
		}
		given = append(given, got...)
	}
	return given, nil
}

// allocateOne is two ports for a request for both address families: with the same number.
func (t *portTable) allocateOne(owner string, r PortBinding) ([]PortBinding, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	first, last := r.HostPort, cmp.Or(r.HostPortEnd, r.HostPort)
	start := first
	if r.HostPort == 0 {
		first, last = t.first, t.last
		// Starting anywhere makes two daemons, or a client that just lost its
		// port, unlikely to meet at one port again and again.
		start = first + uint16(rand.N(uint32(last-first)+1))
	}
	hosts := []netip.Addr{r.hostIP()}
	if r.Both {
		hosts = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	r.HostPortEnd, r.Both = 0, false
	var failure error
	for i := range uint32(last-first) + 1 {
		r.HostPort = first + uint16((uint32(start-first)+i)%(uint32(last-first)+1))
		given, err := t.takeOn(owner, r, hosts)
		if err != nil {
			failure = err
			continue
		}
		return given, nil
	}
	return nil, failure
}

// takeOn registers a port on all of these addresses, or on none.
func (t *portTable) takeOn(owner string, b PortBinding, hosts []netip.Addr) ([]PortBinding, error) {
	var given []PortBinding
	for _, b.HostIP = range hosts {
		if err := t.take(owner, b); err != nil {
			t.release(owner, given)
			return nil, err
		}
		given = append(given, b)
	}
	return given, nil
}

// take registers one port, if neither a container nor a process has it.
func (t *portTable) take(owner string, b PortBinding) error {
	if t.conflict(b) {
		return &kindError{fmt.Sprintf("Bind for %s failed: port is already allocated", b.hostSide()), errdefs.ErrConflict}
	}
	if t.probe != nil {
		if err := t.probe(b.Proto, b.hostSide()); err != nil {
			return &kindError{fmt.Sprintf("failed to bind host port %s/%s: %v", b.hostSide(), b.Proto, err), errdefs.ErrConflict}
		}
	}
	t.set(owner, b)
	return nil
}

// conflict says whether a port of the same number is given out on the same
// address, or on all where either side means all.
func (t *portTable) conflict(b PortBinding) bool {
	for ip := range t.used[hostPort{b.Proto, b.HostPort}] {
		if ip.Is6() == b.hostIP().Is6() && (ip == b.hostIP() || ip.IsUnspecified() || b.hostIP().IsUnspecified()) {
			return true
		}
	}
	return false
}

func (t *portTable) set(owner string, b PortBinding) {
	key := hostPort{b.Proto, b.HostPort}
	if t.used[key] == nil {
		t.used[key] = map[netip.Addr]string{}
	}
	t.used[key][b.hostIP()] = owner
}

// reserve registers ports that are published already: no probing, all that do
// not belong to somebody else. It returns those that do.
func (t *portTable) reserve(owner string, bindings []PortBinding) (kept, lost []PortBinding) {
	for _, b := range bindings {
		if b.check() != nil || b.HostPort == 0 || t.conflict(b) {
			lost = append(lost, b)
			continue
		}
		t.set(owner, b)
		kept = append(kept, b)
	}
	return kept, lost
}

// release gives back the ports that are the owner's.
func (t *portTable) release(owner string, bindings []PortBinding) {
	for _, b := range bindings {
		key := hostPort{b.Proto, b.HostPort}
		if t.used[key][b.hostIP()] != owner {
			continue
		}
		delete(t.used[key], b.hostIP())
		if len(t.used[key]) == 0 {
			delete(t.used, key)
		}
	}
}
