package networks

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

// Network is a network as it was made: what is saved of it, and what is told of it. It is never changed.
type Network struct {
	ID      string    `json:"id"` // 64 hexadecimal digits
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Bridge is the name of its link.
	Bridge string `json:"bridge"`
	// MTU of the bridge and of containers' interfaces, in bytes.
	MTU int `json:"mtu"`
	// Subnets are one of IPv4 and, in a network with IPv6, one of that.
	Subnets []Subnet `json:"subnets"`
	// Internal: nothing leads out of it, and nothing into it but from the host itself.
	Internal bool `json:"internal,omitempty"`
	// Apart: its containers do not reach each other (enable_icc=false).
	Apart bool `json:"apart,omitempty"`
	// Unmasked: packets leave it with the containers' own addresses (enable_ip_masquerade=false).
	Unmasked bool `json:"unmasked,omitempty"`
	// HostIP is the host's address for published ports that name none (host_binding_ipv4).
	HostIP netip.Addr `json:"hostIP,omitzero"`
	// IfPrefix begins the names of containers' interfaces; "" is eth.
	IfPrefix string `json:"ifPrefix,omitempty"`

	// What is kept for those who ask.

	Labels      map[string]string `json:"labels,omitempty"`
	Options     map[string]string `json:"options,omitempty"`
	IPAMOptions map[string]string `json:"ipamOptions,omitempty"`
	Attachable  bool              `json:"attachable,omitempty"`
}

// Subnet is a network's part of the address space.
type Subnet struct {
	Subnet netip.Prefix `json:"subnet"`
	// IPRange is the part that containers get addresses from; the zero value is all of it.
	IPRange netip.Prefix `json:"ipRange,omitzero"`
	// Gateway is the bridge's address.
	Gateway netip.Addr `json:"gateway"`
	// Aux are addresses that are somebody else's, by what they are called.
	Aux map[string]netip.Addr `json:"aux,omitempty"`
}

// address is the bridge's address with the length of its subnet's prefix.
func (s Subnet) address() netip.Prefix { return netip.PrefixFrom(s.Gateway, s.Subnet.Bits()) }

// Subnet4 is the network's IPv4 part.
func (n Network) Subnet4() Subnet { s, _ := n.subnet(false); return s }

// Subnet6 is the network's IPv6 part, if it has one.
func (n Network) Subnet6() (Subnet, bool) { return n.subnet(true) }

func (n Network) subnet(v6 bool) (Subnet, bool) {
	for _, s := range n.Subnets {
		if s.Gateway.Is6() == v6 {
			return s, true
		}
	}
	return Subnet{}, false
}

// Default says whether this is the network that containers are in if nobody says otherwise. It is made from the
// configuration and not saved, and has no names: its containers do not know each other.
func (n Network) Default() bool { return n.Name == network.NetworkBridge }

// addresses are those of the bridge.
func (n Network) addresses() []netip.Prefix {
	list := make([]netip.Prefix, len(n.Subnets))
	for i, s := range n.Subnets {
		list[i] = s.address()
	}
	return list
}

// BuiltinID is the ID of one of the networks that there always are: bridge, host and none. It is the same on every host and
// after every start, as there is one of each.
func BuiltinID(name string) string {
	h := sha256.New()
	for _, part := range []string{"lrd", "network", name} {
		fmt.Fprintf(h, "%s\x00", part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// newID is a fresh ID: 64 hexadecimal digits.
func newID() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// nameForm is what Docker allows for a network's name.
var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// The options of a network that have an effect, as Docker calls them. Others are kept and have none.
const (
	optionBridge   = "com.docker.network.bridge.name"
	optionICC      = "com.docker.network.bridge.enable_icc"
	optionMasq     = "com.docker.network.bridge.enable_ip_masquerade"
	optionHostIP   = "com.docker.network.bridge.host_binding_ipv4"
	optionMTU      = "com.docker.network.driver.mtu"
	optionIfPrefix = "com.docker.network.container_iface_prefix"
	optionDefault  = "com.docker.network.bridge.default_bridge"
	optionGateway4 = "com.docker.network.bridge.gateway_mode_ipv4"
	optionGateway6 = "com.docker.network.bridge.gateway_mode_ipv6"
)

// parse makes of a create request what it says itself; the subnets that it leaves open are missing.
func parse(req network.CreateRequest) (Network, error) {
	n := Network{
		ID: newID(), Name: req.Name, Created: time.Now().UTC(), MTU: DefaultMTU, Internal: req.Internal,
		Labels: maps.Clone(req.Labels), Options: maps.Clone(req.Options), Attachable: req.Attachable,
	}
	n.Bridge = "lrd-" + n.ID[:11]
	if err := checkRequest(req); err != nil {
		return Network{}, err
	}
	if err := n.applyOptions(req.Options); err != nil {
		return Network{}, err
	}
	if req.IPAM == nil {
		return n, nil
	}
	if d := req.IPAM.Driver; d != "" && d != network.NetworkDefault {
		return Network{}, unsupported("IPAM driver %q: lrd has the driver default only", d)
	}
	n.IPAMOptions = maps.Clone(req.IPAM.Options)
	v6 := req.EnableIPv6 != nil && *req.EnableIPv6
	for _, c := range req.IPAM.Config {
		if !c.Subnet.IsValid() && !c.Gateway.IsValid() && !c.IPRange.IsValid() && len(c.AuxAddress) == 0 {
			continue
		}
		s, err := parseSubnet(c)
		if err != nil {
			return Network{}, err
		}
		if _, twice := n.subnet(s.Subnet.Addr().Is6()); twice {
			return Network{}, unsupported("cannot make network %s: lrd has one subnet of each address family to a network", n.Name)
		}
		if s.Subnet.Addr().Is6() && !v6 {
			return Network{}, invalid("cannot make network %s with the subnet %s: IPv6 is not enabled for it (--ipv6)", n.Name, s.Subnet)
		}
		n.Subnets = append(n.Subnets, s)
	}
	return n, nil
}

func checkRequest(req network.CreateRequest) error {
	switch req.Driver {
	case "", "bridge", network.NetworkDefault:
	case "host", "null":
		return &kindError{fmt.Sprintf("only one instance of %q network is allowed", req.Driver), errdefs.ErrPermissionDenied}
	default:
		return &kindError{fmt.Sprintf("could not find plugin %s in v1 plugin registry: plugin not found; lrd has the driver bridge only", req.Driver), errdefs.ErrNotFound}
	}
	switch {
	case req.Name == "":
		return invalid("network name is required")
	case slices.Contains([]string{network.NetworkBridge, network.NetworkHost, network.NetworkNone, network.NetworkDefault}, req.Name):
		return &kindError{fmt.Sprintf("operation is not permitted on predefined %s network ", req.Name), errdefs.ErrPermissionDenied}
	case !nameForm.MatchString(req.Name):
		return invalid("invalid network name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed", req.Name)
	case req.Ingress || req.Scope == "swarm" || req.ConfigOnly || req.ConfigFrom != nil && req.ConfigFrom.Network != "":
		return unsupported("cannot make network %s: lrd has no swarm mode, and no configuration-only networks", req.Name)
	case req.EnableIPv4 != nil && !*req.EnableIPv4:
		return unsupported("cannot make network %s: lrd has no networks without IPv4", req.Name)
	}
	return nil
}

// applyOptions gives the options that have an effect theirs.
func (n *Network) applyOptions(options map[string]string) error {
	var err error
	flag := func(key string, to *bool, off bool) {
		if v, ok := options[key]; ok && err == nil {
			var on bool
			if on, err = strconv.ParseBool(v); err != nil {
				err = invalid("invalid network option %s=%s: true or false", key, v)
			}
			*to = on != off
		}
	}
	flag(optionICC, &n.Apart, true)
	flag(optionMasq, &n.Unmasked, true)
	var isDefault bool
	flag(optionDefault, &isDefault, false)
	if err != nil {
		return err
	}
	if isDefault {
		return &kindError{"cannot make a second default bridge: that of lrd is configured in lrd.toml", errdefs.ErrPermissionDenied}
	}
	for _, key := range []string{optionGateway4, optionGateway6} {
		if v := options[key]; v != "" && v != "nat" {
			return unsupported("network option %s=%s: lrd has the mode nat only", key, v)
		}
	}
	if v := options[optionMTU]; v != "" {
		if n.MTU, err = strconv.Atoi(v); err != nil {
			return invalid("invalid network option %s=%s: a number of bytes", optionMTU, v)
		}
		if err := checkMTU(n.MTU); err != nil {
			return err
		}
	}
	if v := options[optionHostIP]; v != "" {
		if n.HostIP, err = netip.ParseAddr(v); err != nil || !n.HostIP.Is4() {
			return invalid("invalid network option %s=%s: an IPv4 address", optionHostIP, v)
		}
	}
	if v := options[optionIfPrefix]; v != "" {
		// A digit or two come behind it.
		if err := checkBridgeName(v); err != nil || len(v) > 12 || v == "lo" {
			return invalid("invalid network option %s=%s: 1 to 12 letters, digits, dashes and underscores", optionIfPrefix, v)
		}
		n.IfPrefix = v
	}
	if v := options[optionBridge]; v != "" {
		n.Bridge = v
		return checkBridgeName(v)
	}
	return nil
}

// parseSubnet checks one part of a network's address space. A gateway that is not named is the first address of the range
// that containers get theirs from, as with Docker.
func parseSubnet(c network.IPAMConfig) (Subnet, error) {
	s := Subnet{Subnet: c.Subnet.Masked(), Gateway: c.Gateway.Unmap(), Aux: maps.Clone(c.AuxAddress)}
	if !c.Subnet.IsValid() {
		return Subnet{}, invalid("invalid network config: a gateway, a range or auxiliary addresses need a subnet")
	}
	longest := 30 // room for the bridge and a container
	if c.Subnet.Addr().Is6() {
		longest = 126
	}
	switch {
	case c.Subnet.Addr().Is4In6(), c.Subnet.Bits() < 8, c.Subnet.Bits() > longest:
		return Subnet{}, invalid("invalid subnet %s: the length of its prefix must be 8 to %d", c.Subnet, longest)
	case s.Subnet.Addr().IsLoopback(), s.Subnet.Addr().IsMulticast(), s.Subnet.Addr().IsLinkLocalUnicast():
		return Subnet{}, invalid("invalid subnet %s: not addresses that hosts of a network have", c.Subnet)
	case s.Subnet != c.Subnet:
		return Subnet{}, invalid("invalid subnet %s: it should be %s", c.Subnet, s.Subnet)
	}
	if r := c.IPRange; r.IsValid() {
		s.IPRange = r.Masked()
		if !s.Subnet.Contains(r.Addr()) || r.Bits() < s.Subnet.Bits() {
			return Subnet{}, invalid("invalid ip-range %s: it is not part of the subnet %s", r, s.Subnet)
		}
	}
	if !s.Gateway.IsValid() {
		s.Gateway = firstFree(s)
	}
	taken := map[netip.Addr]string{s.Gateway: "the gateway"}
	if err := checkInside(s.Subnet, "gateway", s.Gateway); err != nil {
		return Subnet{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.Aux)) {
		a := s.Aux[name].Unmap()
		if err := checkInside(s.Subnet, "auxiliary address "+name, a); err != nil {
			return Subnet{}, err
		}
		if other := taken[a]; other != "" {
			return Subnet{}, invalid("invalid auxiliary address %s: %s is %s", name, a, other)
		}
		s.Aux[name], taken[a] = a, "the auxiliary address "+name
	}
	return s, nil
}

// firstFree is the first address of a subnet's range that is nobody else's.
func firstFree(s Subnet) netip.Addr {
	first, _ := hostRange(s.Subnet)
	if s.IPRange.IsValid() && s.IPRange.Bits() > s.Subnet.Bits() && first.Less(s.IPRange.Addr()) {
		first = s.IPRange.Addr()
	}
	aux := slices.Collect(maps.Values(s.Aux))
	for slices.Contains(aux, first) {
		first = first.Next()
	}
	return first
}

func checkInside(subnet netip.Prefix, what string, a netip.Addr) error {
	if first, last := hostRange(subnet); !subnet.Contains(a) || a.Less(first) || last.Less(a) {
		return invalid("invalid %s %s: it is not an address that a host of %s can have", what, a, subnet)
	}
	return nil
}

// interfacePrefix begins the names of interfaces in containers.
func (n Network) interfacePrefix() string {
	if n.IfPrefix != "" {
		return n.IfPrefix
	}
	return "eth"
}

// String names a network in messages.
func (n Network) String() string { return n.Name + " (" + n.ID[:min(12, len(n.ID))] + ")" }

// matches says whether a reference means a network: its name, its ID, or the beginning of that.
func (n Network) matches(ref string) (whole, partly bool) {
	return n.Name == ref || n.ID == ref, ref != "" && strings.HasPrefix(n.ID, ref)
}
