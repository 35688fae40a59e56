package networks

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// aliasPrefix begins the bridge's alias (`ip link show`), which lists the
// addresses that lrd gave it: others are an administrator's and stay.
const aliasPrefix = "lrd: "

// ensureBridge makes a network's bridge, or takes the one that is there, brings it up
// and adds its addresses.
func ensureBridge(n Network) error {
	link, err := bridgeLink(n.Bridge)
	if errors.Is(err, errdefs.ErrNotFound) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = n.Bridge, n.MTU
		// A bridge without an address of its own takes the lowest of its
		// ports', and changes it when a container comes or goes: the others
		// would lose their gateway until their ARP caches time out.
		attrs.HardwareAddr = macOf(n.Subnet4().Gateway)
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("cannot make the bridge %s: %w", n.Bridge, err)
		}
		link, err = bridgeLink(n.Bridge)
	}
	if err != nil {
		return err
	}
	if link.Attrs().MTU != n.MTU {
		if err := netlink.LinkSetMTU(link, n.MTU); err != nil {
			return fmt.Errorf("cannot set the MTU of %s to %d: %w", n.Bridge, n.MTU, err)
		}
	}
	if err := bridgeSettings(n); err != nil {
		return err
	}
	for _, a := range n.addresses() {
		if err := addBridgeAddress(n.Bridge, a); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot bring %s up: %w", n.Bridge, err)
	}
	return nil
}

// bridgeLink finds the bridge; ErrNotFound if there is no link of that name.
func bridgeLink(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil, fmt.Errorf("cannot find the bridge %s: %w", name, errdefs.ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("cannot look up the bridge %s: %w", name, err)
	case link.Type() != "bridge":
		return nil, &kindError{
			fmt.Sprintf("the link %s exists and is not a bridge but a %s: choose another name or remove it", name, link.Type()),
			errdefs.ErrFailedPrecondition,
		}
	}
	return link, nil
}

// addBridgeAddress adds an address to the bridge if it is not there, and notes
// it in the alias.
func addBridgeAddress(name string, prefix netip.Prefix) error {
	link, err := bridgeLink(name)
	if err != nil {
		return err
	}
	have, err := addresses(link)
	if err != nil {
		return err
	}
	if slices.Contains(have, prefix) {
		return nil
	}
	if err := netlink.AddrAdd(link, address(prefix)); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("cannot add the address %s to %s: %w", prefix, name, err)
	}
	ours := append(aliasAddresses(link), prefix)
	return setAlias(link, ours)
}

// removeBridgeAddresses removes those addresses that lrd added and that are
// not to be kept.
func removeBridgeAddresses(name string, keep map[netip.Prefix]bool) error {
	link, err := bridgeLink(name)
	if err != nil {
		return err
	}
	ours := aliasAddresses(link)
	var kept []netip.Prefix
	for _, prefix := range ours {
		if keep[prefix] {
			kept = append(kept, prefix)
			continue
		}
		err := netlink.AddrDel(link, address(prefix))
		if err != nil && !errors.Is(err, errNotAvailable) {
			return fmt.Errorf("cannot remove the address %s from %s: %w", prefix, name, err)
		}
	}
	if len(kept) == len(ours) {
		return nil
	}
	return setAlias(link, kept)
}

func aliasAddresses(link netlink.Link) []netip.Prefix {
	list, ok := strings.CutPrefix(link.Attrs().Alias, aliasPrefix)
	if !ok {
		return nil
	}
	var prefixes []netip.Prefix
	for word := range strings.FieldsSeq(list) {
		if p, err := netip.ParsePrefix(word); err == nil && !slices.Contains(prefixes, p) {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes
}

func setAlias(link netlink.Link, ours []netip.Prefix) error {
	words := make([]string, len(ours))
	for i, p := range ours {
		words[i] = p.String()
	}
	if err := netlink.LinkSetAlias(link, aliasPrefix+strings.Join(words, " ")); err != nil {
		return fmt.Errorf("cannot note the addresses of %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// address is one for a link. An IPv6 address is there at once: nobody else can have it, so that there is nothing to wait for.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// addresses are the addresses of a link.
func addresses(link netlink.Link) ([]netip.Prefix, error) {
	list, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("cannot list the addresses of %s: %w", link.Attrs().Name, err)
	}
	prefixes := make([]netip.Prefix, 0, len(list))
	for _, a := range list {
		if p, ok := toPrefix(a.IPNet); ok {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes, nil
}

// connect makes an endpoint's veth pair, one end at the bridge, the other
// in a namespace with its addresses.
func connect(netNS string, e Endpoint, mtu int) error {
	bridge, err := bridgeLink(e.Bridge)
	if err != nil {
		return err
	}
	mac, err := net.ParseMAC(e.MAC)
	if err != nil {
		return fmt.Errorf("cannot use the hardware address %s: %w", e.MAC, err)
	}
	ns, err := netns.GetFromPath(netNS)
	if err != nil {
		return fmt.Errorf("cannot open the network namespace %s: %w", netNS, err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = e.HostLink, mtu, bridge.Attrs().Index
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU = e.Interface, uint32(mtu)
	veth.PeerHardwareAddr = mac
	veth.PeerNamespace = netlink.NsFd(ns)
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("cannot make the link %s: %w", e.HostLink, err)
	}
	if err := configureInside(netNS, ns, e); err != nil {
		return err
	}
	return raise(veth, e.Apart)
}

// configureInside gives a container's interface its addresses.
func configureInside(netNS string, ns netns.NsHandle, e Endpoint) error {
	if e.IP6.IsValid() {
		if err := enableIPv6(netNS, e.Interface); err != nil {
			return err
		}
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("cannot speak to the network namespace %s: %w", netNS, err)
	}
	defer h.Close()
	link, err := h.LinkByName(e.Interface)
	if err != nil {
		return fmt.Errorf("cannot find %s in %s: %w", e.Interface, netNS, err)
	}
	own := []netip.Prefix{netip.PrefixFrom(e.IP, e.PrefixLen)}
	if e.IP6.IsValid() {
		own = append(own, netip.PrefixFrom(e.IP6, e.PrefixLen6))
	}
	for _, a := range own {
		if err := h.AddrAdd(link, address(a)); err != nil {
			return fmt.Errorf("cannot give %s the address %s: %w", e.Interface, a, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot bring %s up: %w", e.Interface, err)
	}
	return nil
}

// setWays sets a container's default routes. Those of an interface that is gone went with it.
func setWays(s Sandbox) error {
	way4, ok4 := s.way(false)
	way6, ok6 := s.way(true)
	if !ok4 && !ok6 {
		return nil
	}
	ns, err := netns.GetFromPath(s.NetNS)
	if err != nil {
		return fmt.Errorf("cannot open the network namespace %s: %w", s.NetNS, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("cannot speak to the network namespace %s: %w", s.NetNS, err)
	}
	defer h.Close()
	set := func(e Endpoint, gateway, everything netip.Prefix) error {
		link, err := h.LinkByName(e.Interface)
		if err != nil {
			return fmt.Errorf("cannot find %s in %s: %w", e.Interface, s.NetNS, err)
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(everything), Gw: gateway.Addr().AsSlice()}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("cannot set the default route by way of %s: %w", gateway.Addr(), err)
		}
		return nil
	}
	if ok4 {
		err = set(way4, way4.gateway4(), netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	if ok6 {
		err = errors.Join(err, set(way6, way6.gateway6(), netip.PrefixFrom(netip.IPv6Unspecified(), 0)))
	}
	return err
}

// raise brings the host's end up. Hairpin lets a frame leave by the port that
// it came in by: a container that reaches its own published port, where the
// bridge's frames go through the host's filters (br_netfilter). Ports that are
// apart exchange no frames with each other.
func raise(link netlink.Link, apart bool) error {
	if apart {
		if err := netlink.LinkSetIsolated(link, true); err != nil {
			return fmt.Errorf("cannot keep %s apart from others: %w", link.Attrs().Name, err)
		}
	}
	if err := netlink.LinkSetHairpin(link, true); err != nil {
		return fmt.Errorf("cannot set hairpin mode of %s: %w", link.Attrs().Name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot bring %s up: %w", link.Attrs().Name, err)
	}
	return nil
}

// reconnect puts a live endpoint's link back to the bridge if it is not there.
func reconnect(containerID string, e Endpoint) error {
	link, err := netlink.LinkByName(e.HostLink)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return &EndpointGoneError{containerID, "its link " + e.HostLink}
	case err != nil:
		return fmt.Errorf("cannot look up the link %s: %w", e.HostLink, err)
	}
	bridge, err := bridgeLink(e.Bridge)
	if err != nil {
		return err
	}
	if link.Attrs().MasterIndex == bridge.Attrs().Index && link.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := netlink.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("cannot put %s back to %s: %w", e.HostLink, e.Bridge, err)
	}
	return raise(link, e.Apart)
}

// linkExists says whether there is a link of a name.
func linkExists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

// removeLink removes a link if it is there.
func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, errNoDevice) {
		return fmt.Errorf("cannot remove the link %s: %w", name, err)
	}
	return nil
}

// removeLeftovers removes whatever of a container's network exists.
func removeLeftovers(s Sandbox) error {
	var errs []error
	for _, e := range s.Endpoints {
		errs = append(errs, removeLink(e.HostLink))
	}
	return errors.Join(append(errs, removeNetNS(s.NetNS))...)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func toPrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits), ok
}
