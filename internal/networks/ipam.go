package networks

import (
	"fmt"
	"maps"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"
)

// ipam gives out the addresses of one subnet. It is not safe for concurrent use.
type ipam struct {
	network     string // for messages
	subnet      Subnet
	first, last netip.Addr // of the range that is given out
	used        map[netip.Addr]string
	at          netip.Addr // where the search goes on
}

// notOurs owns what containers never get: the gateway and the auxiliary addresses.
const notOurs = "the network itself"

func newIPAM(network string, s Subnet) *ipam {
	a := &ipam{network: network, subnet: s, used: map[netip.Addr]string{s.Gateway: notOurs}, at: s.Gateway}
	for _, aux := range s.Aux {
		a.used[aux] = notOurs
	}
	a.first, a.last = hostRange(s.Subnet)
	if s.IPRange.IsValid() {
		if first := s.IPRange.Addr(); a.first.Less(first) {
			a.first = first
		}
		if last := lastOf(s.IPRange); last.Less(a.last) {
			a.last = last
		}
		a.at = a.first.Prev()
	}
	return a
}

// allocate finds a free address for a container. It goes around the range
// rather than taking the lowest: an address that was just given up is still in
// its peers' ARP caches and in conntrack.
func (a *ipam) allocate(owner string) (netip.Addr, error) {
	addr := a.at
	// Of so many addresses, one is free, unless the range is smaller.
	for range len(a.used) + 1 {
		addr = addr.Next()
		if !addr.IsValid() || a.last.Less(addr) || addr.Less(a.first) {
			addr = a.first
		}
		if _, taken := a.used[addr]; taken {
			continue
		}
		a.at = addr
		a.used[addr] = owner
		return addr, nil
	}
	return netip.Addr{}, &kindError{
		fmt.Sprintf("no available addresses on network %s: all from %s to %s are in use", a.network, a.first, a.last),
		errdefs.ErrResourceExhausted,
	}
}

// take gives a container the address that it asks for.
func (a *ipam) take(addr netip.Addr, owner string) error {
	first, last := hostRange(a.subnet.Subnet)
	if addr.Less(first) || last.Less(addr) {
		return invalid("invalid config for network %s: invalid endpoint settings: no configured subnet contains IP address %s", a.network, addr)
	}
	if _, taken := a.used[addr]; taken {
		return &kindError{fmt.Sprintf("Address already in use: %s on network %s", addr, a.network), errdefs.ErrConflict}
	}
	a.used[addr] = owner
	return nil
}

// reserve registers an address that a container already has; it may lie
// outside the subnet.
func (a *ipam) reserve(addr netip.Addr, owner string) error {
	if other, taken := a.used[addr]; taken && other != owner {
		return &kindError{
			fmt.Sprintf("address %s is already in use by container %s", addr, other),
			errdefs.ErrConflict,
		}
	}
	a.used[addr] = owner
	return nil
}

// release gives an address back, if it is the owner's.
func (a *ipam) release(addr netip.Addr, owner string) {
	if a.used[addr] == owner {
		delete(a.used, addr)
	}
}

// releaseAll gives back all addresses that are the owner's.
func (a *ipam) releaseAll(owner string) {
	maps.DeleteFunc(a.used, func(_ netip.Addr, other string) bool { return other == owner })
}

// hostRange is the first and the last address of a subnet that a host may
// have: without the network's own and, in IPv4, the broadcast address, except where
// there are only two (RFC 3021).
func hostRange(subnet netip.Prefix) (first, last netip.Addr) {
	first, last = subnet.Masked().Addr(), lastOf(subnet)
	if subnet.Bits() >= first.BitLen()-1 {
		return first, last
	}
	if first.Is4() {
		last = last.Prev()
	}
	return first.Next(), last
}

// lastOf is the last address of a subnet.
func lastOf(subnet netip.Prefix) netip.Addr {
	b := subnet.Masked().Addr().AsSlice()
	for i := subnet.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// macOf derives a hardware address from an IPv4 address, as Docker does:
// 02:42 (locally administered) and the four bytes. A container that comes back
// with the same address has the same hardware address, and peers' ARP caches
// stay right.
func macOf(addr netip.Addr) net.HardwareAddr {
	ip := addr.As4()
	return net.HardwareAddr{0x02, 0x42, ip[0], ip[1], ip[2], ip[3]}
}

// checkBip refuses what cannot be a bridge's address.
func checkBip(bip netip.Prefix) error {
	addr := bip.Addr()
	switch {
	case !bip.IsValid() || !addr.Is4():
		return invalid("invalid bip %q: an IPv4 address with the length of its prefix is needed, like %s", bip, DefaultBip)
	case bip.Bits() < 8 || bip.Bits() > 30:
		return invalid("invalid bip %s: the length of the prefix must be 8 to 30", bip)
	case addr.IsLoopback(), addr.IsMulticast(), addr.IsUnspecified():
		return invalid("invalid bip %s: not an address that a host can have", bip)
	}
	if first, last := hostRange(bip.Masked()); addr.Less(first) || last.Less(addr) {
		return invalid("invalid bip %s: it is the address of the network itself or its broadcast address", bip)
	}
	return nil
}
