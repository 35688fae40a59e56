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
)

// aliasPrefix begins the bridge's alias (`ip link show`), which lists the
// addresses that lrd gave it: others are an administrator's and stay.
const aliasPrefix = "lrd: "

// ensureBridge makes the bridge, or takes the one that is there, brings it up
// and adds its address.
func ensureBridge(name string, bip netip.Prefix, mtu int) error {
	link, err := bridgeLink(name)
	if errors.Is(err, errdefs.ErrNotFound) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = name, mtu
		// A bridge without an address of its own takes the lowest of its
		// ports', and changes it when a container comes or goes: the others
		// would lose their gateway until their ARP caches time out.
		attrs.HardwareAddr = macOf(bip.Addr())
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("cannot make the bridge %s: %w", name, err)
		}
		link, err = bridgeLink(name)
	}
	if err != nil {
		return err
	}
	if link.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("cannot set the MTU of %s to %d: %w", name, mtu, err)
		}
	}
	if err := addBridgeAddress(name, bip); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot bring %s up: %w", name, err)
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
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(prefix)}); err != nil && !errors.Is(err, os.ErrExist) {
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
		err := netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(prefix)})
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

// addresses are the IPv4 addresses of a link.
func addresses(link netlink.Link) ([]netip.Prefix, error) {
	list, err := netlink.AddrList(link, netlink.FAMILY_V4)
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

// connect makes an endpoint's veth pair, one end at the bridge, the other as
// eth0 in its namespace with address and default route.
func connect(e Endpoint, mtu int) error {
	bridge, err := bridgeLink(e.Bridge)
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPath(e.NetNS)
	if err != nil {
		return fmt.Errorf("cannot open the network namespace %s: %w", e.NetNS, err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = e.HostLink, mtu, bridge.Attrs().Index
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU = "eth0", uint32(mtu)
	veth.PeerHardwareAddr = macOf(e.IP)
	veth.PeerNamespace = netlink.NsFd(ns)
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("cannot make the link %s: %w", e.HostLink, err)
	}
	if err := configureInside(e, ns); err != nil {
		return err
	}
	return raise(veth)
}

// configureInside gives eth0 its address and the container its default route.
func configureInside(e Endpoint, ns netns.NsHandle) error {
	h, err := netlink.NewHandleAt(ns, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("cannot speak to the network namespace %s: %w", e.NetNS, err)
	}
	defer h.Close()
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("cannot find eth0 in %s: %w", e.NetNS, err)
	}
	address := netip.PrefixFrom(e.IP, e.PrefixLen)
	if err := h.AddrAdd(eth0, &netlink.Addr{IPNet: ipNet(address)}); err != nil {
		return fmt.Errorf("cannot give eth0 the address %s: %w", address, err)
	}
	if err := h.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("cannot bring eth0 up: %w", err)
	}
	route := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: e.Gateway.AsSlice()}
	if err := h.RouteAdd(route); err != nil {
		return fmt.Errorf("cannot set the default route by way of %s: %w", e.Gateway, err)
	}
	return nil
}

// raise brings the host's end up. Hairpin lets a frame leave by the port that
// it came in by: a container that reaches its own published port, where the
// bridge's frames go through the host's filters (br_netfilter).
func raise(link netlink.Link) error {
	if err := netlink.LinkSetHairpin(link, true); err != nil {
		return fmt.Errorf("cannot set hairpin mode of %s: %w", link.Attrs().Name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot bring %s up: %w", link.Attrs().Name, err)
	}
	return nil
}

// reconnect puts a live endpoint's link back to the bridge if it is not there.
func reconnect(e Endpoint) error {
	link, err := netlink.LinkByName(e.HostLink)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return &EndpointGoneError{e.ContainerID, "its link " + e.HostLink}
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
	return raise(link)
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

// removeLeftovers removes whatever of an endpoint exists.
func removeLeftovers(e Endpoint) error {
	var err error
	if e.HostLink != "" {
		err = removeLink(e.HostLink)
	}
	return errors.Join(err, removeNetNS(e.NetNS))
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
