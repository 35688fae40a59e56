package networks

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"
)

// ipam gives out the addresses of one IPv4 subnet. It is not safe for
// concurrent use.
type ipam struct {
	gateway netip.Prefix // the bridge's address and its subnet
	used    map[netip.Addr]string
	last    netip.Addr // where the search goes on
}

func newIPAM(gateway netip.Prefix) *ipam {
	return &ipam{gateway: gateway, used: map[netip.Addr]string{}, last: gateway.Addr()}
}

// allocate finds a free address for a container. It goes around the subnet
// rather than taking the lowest: an address that was just given up is still in
// its peers' ARP caches and in conntrack.
func (a *ipam) allocate(owner string) (netip.Addr, error) {
	subnet := a.gateway.Masked()
	first, last := hostRange(subnet)
	addr := a.last
	for range 1 << (32 - subnet.Bits()) {
		addr = addr.Next()
		if !addr.IsValid() || addr.Compare(last) > 0 {
			addr = first
		}
		if _, taken := a.used[addr]; taken || addr == a.gateway.Addr() {
			continue
		}
		a.last = addr
		a.used[addr] = owner
		return addr, nil
	}
	return netip.Addr{}, &kindError{
		fmt.Sprintf("no available IPv4 addresses on the default bridge: all of %s are in use", subnet),
		errdefs.ErrResourceExhausted,
	}
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

// hostRange is the first and the last address of a subnet that a host may
// have: without the network's own and the broadcast address, except where
// there are only two (RFC 3021).
func hostRange(subnet netip.Prefix) (first, last netip.Addr) {
	base := binary.BigEndian.Uint32(subnet.Addr().AsSlice())
	top := base | (1<<(32-subnet.Bits()) - 1)
	if subnet.Bits() < 31 {
		base++
		top--
	}
	return fromUint32(base), fromUint32(top)
}

func fromUint32(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
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
