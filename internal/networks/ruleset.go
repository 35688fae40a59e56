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
	bridge string
	// subnets are the bridge's own and those of endpoints from before it
	// changed.
	subnets []netip.Prefix
	// published are the published ports of live endpoints.
	published []publishedPort
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
//	container → outside      forward: accept → postrouting: masquerade
//	outside → container      forward: drop, unless DNAT or an answer
//	container → 127.0.0.1    guard: drop. route_localnet on the bridge, which the
//	  of the host              second line needs, would let it in
//
// prerouting leaves 127.0.0.0/8 alone: a neighbour's packet to that address
// must not become one for a container.

// script is the transaction that puts the table in place of whatever table of
// that name is there.
func (r rules) script() string {
	var b strings.Builder
	// Adding before deleting makes the deletion work when there is no table.
	fmt.Fprintf(&b, "table inet %[1]s {\n}\ndelete table inet %[1]s\ntable inet %[1]s {\n", tableName)
	r.writeMap(&b, "published_at", "ipv4_addr . inet_proto . inet_service", func(p publishedPort) (string, bool) {
		return fmt.Sprintf("%s . %s . %d", p.hostIP(), p.Proto, p.HostPort), !p.hostIP().IsUnspecified()
	})
	r.writeMap(&b, "published_any", "inet_proto . inet_service", func(p publishedPort) (string, bool) {
		return fmt.Sprintf("%s . %d", p.Proto, p.HostPort), p.hostIP().IsUnspecified()
	})
	subnets := make([]string, len(r.subnets))
	for i, s := range r.subnets {
		subnets[i] = s.Masked().String()
	}
	slices.Sort(subnets)
	b.WriteString(strings.NewReplacer(
		"$bridge", quote(r.bridge),
		"$subnets", "{ "+strings.Join(slices.Compact(subnets), ", ")+" }",
	).Replace(chains))
	b.WriteString("}\n")
	return b.String()
}

const chains = `	chain guard {
		type filter hook prerouting priority -300; policy accept;
		iifname $bridge ip daddr 127.0.0.0/8 drop
	}
	chain published {
		fib daddr type != local return
		dnat ip to ip daddr . meta l4proto . th dport map @published_at
		dnat ip to meta l4proto . th dport map @published_any
	}
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		ip daddr 127.0.0.0/8 return
		meta l4proto { tcp, udp } jump published
	}
	chain output {
		type nat hook output priority -100; policy accept;
		meta l4proto { tcp, udp } jump published
	}
	chain postrouting {
		type nat hook postrouting priority 100; policy accept;
		ip saddr $subnets oifname != $bridge masquerade
		oifname $bridge ct status dnat ip saddr 127.0.0.0/8 masquerade
		oifname $bridge ct status dnat ip saddr $subnets masquerade
	}
	chain forward {
		type filter hook forward priority 0; policy accept;
		oifname $bridge jump to_containers
	}
	chain to_containers {
		ct state established,related accept
		iifname $bridge accept
		ct status dnat accept
		drop
	}
`

// writeMap writes a map from a published port to the container's address and
// port. key gives an entry's key and whether it belongs into this map.
func (r rules) writeMap(b *strings.Builder, name, keyType string, key func(publishedPort) (string, bool)) {
	fmt.Fprintf(b, "\tmap %s {\n\t\ttype %s : ipv4_addr . inet_service\n", name, keyType)
	var elements []string
	for _, p := range r.published {
		if k, ok := key(p); ok {
			elements = append(elements, fmt.Sprintf("%s : %s . %d", k, p.container, p.ContainerPort))
		}
	}
	// Sorted, so that the same state is the same text.
	slices.Sort(elements)
	if len(elements) > 0 {
		fmt.Fprintf(b, "\t\telements = {\n\t\t\t%s\n\t\t}\n", strings.Join(elements, ",\n\t\t\t"))
	}
	b.WriteString("\t}\n")
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
