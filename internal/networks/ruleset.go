package networks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// tableName is the one nftables table that lrd owns, of the family inet.
const tableName = "lrd"

// rules is everything that the table depends on.
type rules struct {
	bridges []bridgeRules
	// published are the published ports of live containers.
	published []publishedPort
}

// bridgeRules is what the table has of one network.
type bridgeRules struct {
	name string
	// subnets are the network's own and those of endpoints from before it
	// changed.
	subnets  []netip.Prefix
	internal bool // nothing leads in or out
	apart    bool // its containers do not reach each other
	unmasked bool // its packets leave with their own addresses
}

type publishedPort struct {
	PortBinding
	container netip.Addr
}

// What a packet meets, by where it comes from:
//
//	outside → host:8080      prerouting: published → DNAT → forward: dnat accept
//	host → 127.0.0.1:8080    output: published → DNAT → postrouting: masquerade,
//	  (or its own address)     since nobody outside can answer to 127.0.0.1
//	container → host:8080    prerouting: published → DNAT → postrouting:
//	  (its own port too)       masquerade, so that the answer comes back this way
//	container → outside      forward: accept → postrouting: masquerade;
//	                           drop if its network is internal
//	outside → container      forward: drop, unless DNAT or an answer
//	container → container    of the same network: forward: accept, if the frame
//	                           comes by here at all (br_netfilter); of another
//	                           one: drop, unless DNAT
//	container → 127.0.0.1    guard: drop. route_localnet on the bridges, which the
//	  of the host              second line needs, would let it in
//
// prerouting leaves 127.0.0.0/8 alone: a neighbour's packet to that address
// must not become one for a container. ::1 leads to no container from the host
// itself either: IPv6 has no route_localnet, the kernel would drop the packet on
// its way, and a client of "localhost" would wait instead of being refused there
// and trying 127.0.0.1.

// script is the transaction that puts the table in place of whatever table of
// that name is there.
func (r rules) script() string {
	slices.SortFunc(r.bridges, func(a, b bridgeRules) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	// Adding before deleting makes the deletion work when there is no table.
	fmt.Fprintf(&b, "table inet %[1]s {\n}\ndelete table inet %[1]s\ntable inet %[1]s {\n", tableName)
	r.writeSets(&b)
	r.writeMaps(&b)
	b.WriteString(chains)
	r.writePostrouting(&b)
	b.WriteString("}\n")
	return b.String()
}

const chains = `	chain guard {
		type filter hook prerouting priority -300; policy accept;
		iifname @bridges ip daddr 127.0.0.0/8 drop
	}
	chain published {
		fib daddr type != local return
		meta nfproto ipv6 goto published6
		dnat ip to ip daddr . meta l4proto . th dport map @published_at
		dnat ip to meta l4proto . th dport map @published_any
	}
	chain published6 {
		ip6 daddr ::1 return
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6_at
		dnat ip6 to meta l4proto . th dport map @published6_any
	}
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		ip daddr 127.0.0.0/8 return
		meta l4proto { tcp, udp, sctp } jump published
	}
	chain output {
		type nat hook output priority -100; policy accept;
		meta l4proto { tcp, udp, sctp } jump published
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		oifname @bridges goto to_containers
		iifname @internal drop
	}
	chain to_containers {
		iifname . oifname @same accept
		iifname @internal drop
		oifname @internal drop
		ct state established,related accept
		ct status dnat accept
		drop
	}
`

// writeSets writes the sets of bridges.
func (r rules) writeSets(b *strings.Builder) {
	var all, internal, same []string
	for _, br := range r.bridges {
		name := quote(br.name)
		all = append(all, name)
		if br.internal {
			internal = append(internal, name)
		}
		if !br.apart {
			same = append(same, name+" . "+name)
		}
	}
	writeNamed(b, "set bridges", "ifname", all)
	writeNamed(b, "set internal", "ifname", internal)
	writeNamed(b, "set same", "ifname . ifname", same)
}

// writeMaps writes the maps from a published port to the container's address and
// port: on one address of the host and on any, of IPv4 and of IPv6.
func (r rules) writeMaps(b *strings.Builder) {
	elements := map[string][]string{}
	for _, p := range r.published {
		name, host := "published", p.hostIP()
		if host.Is6() {
			name = "published6"
		}
		key := fmt.Sprintf("%s . %d", p.Proto, p.HostPort)
		if host.IsUnspecified() {
			name += "_any"
		} else {
			name += "_at"
			key = host.String() + " . " + key
		}
		elements[name] = append(elements[name], fmt.Sprintf("%s : %s . %d", key, p.container, p.ContainerPort))
	}
	for _, m := range []struct{ name, family string }{{"published", "ipv4_addr"}, {"published6", "ipv6_addr"}} {
		to := " : " + m.family + " . inet_service"
		writeNamed(b, "map "+m.name+"_at", m.family+" . inet_proto . inet_service"+to, elements[m.name+"_at"])
		writeNamed(b, "map "+m.name+"_any", "inet_proto . inet_service"+to, elements[m.name+"_any"])
	}
}

// writeNamed writes a set or a map; sorted, so that the same state is the same text.
func writeNamed(b *strings.Builder, head, kind string, elements []string) {
	fmt.Fprintf(b, "\t%s {\n\t\ttype %s\n", head, kind)
	slices.Sort(elements)
	if len(elements) > 0 {
		fmt.Fprintf(b, "\t\telements = {\n\t\t\t%s\n\t\t}\n", strings.Join(elements, ",\n\t\t\t"))
	}
	b.WriteString("\t}\n")
}

// writePostrouting writes whose packets get another source address on their way out.
func (r rules) writePostrouting(b *strings.Builder) {
	b.WriteString("\tchain postrouting {\n\t\ttype nat hook postrouting priority 100; policy accept;\n")
	b.WriteString("\t\toifname @bridges ct status dnat ip saddr 127.0.0.0/8 masquerade\n")
	for _, br := range r.bridges {
		for _, f := range []string{"ip", "ip6"} {
			set := subnetSet(br.subnets, f == "ip6")
			if set == "" {
				continue
			}
			if !br.unmasked && !br.internal {
				fmt.Fprintf(b, "\t\t%s saddr %s oifname != %s masquerade\n", f, set, quote(br.name))
			}
			fmt.Fprintf(b, "\t\toifname %s ct status dnat %s saddr %s masquerade\n", quote(br.name), f, set)
		}
	}
	b.WriteString("\t}\n")
}

// subnetSet is a set of the subnets of one address family; "" if there are none.
func subnetSet(subnets []netip.Prefix, v6 bool) string {
	var texts []string
	for _, s := range subnets {
		if s.Addr().Is6() == v6 {
			texts = append(texts, s.Masked().String())
		}
	}
	if len(texts) == 0 {
		return ""
	}
	slices.Sort(texts)
	return "{ " + strings.Join(slices.Compact(texts), ", ") + " }"
}

// quote is an interface name as nft takes it. checkBridgeName has seen to it
// that there is nothing in it to escape.
func quote(name string) string { return `"` + name + `"` }

// checkBridgeName allows what the kernel takes as an interface's name
// (dev_valid_name) without what means something to nft.
func checkBridgeName(name string) error {
	ok := name != "" && len(name) <= 15 && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
		})
	if !ok {
		return invalid("invalid bridge name %q: 1 to 15 letters, digits, dots, dashes and underscores", name)
	}
	return nil
}
