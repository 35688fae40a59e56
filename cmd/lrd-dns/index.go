package main

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"lrd/internal/names"
)

// ttl is how long an answer may be kept, in seconds. A container that comes and goes takes its name along, so that there is
// next to nothing to gain by keeping it.
const ttl = 1

// index is what the directory of names says at one moment.
type index struct {
	containers map[string]names.Container // who can ask, by ID
	networks   map[string][]member        // who can be found, by network
}

// member is a container in one network.
type member struct {
	names.Network
	id string
}

// newIndex makes an index of the files; who has a mark can ask and is not found.
func newIndex(all []names.Container, ended map[string]bool) *index {
	x := &index{containers: map[string]names.Container{}, networks: map[string][]member{}}
	// In an order, so that the same directory gives the same answers.
	slices.SortFunc(all, func(a, b names.Container) int { return strings.Compare(a.ID, b.ID) })
	for _, c := range all {
		x.containers[c.ID] = c
		if ended[c.ID] {
			continue
		}
		for _, n := range c.Networks {
			x.networks[n.ID] = append(x.networks[n.ID], member{n, c.ID})
		}
	}
	return x
}

// lookup finds the addresses that a name has for a container: those of the first of its networks where somebody is called
// so. known says that it is a container's name, even if there are no addresses of that kind.
func (x *index) lookup(asker, name string, v6 bool) (addresses []netip.Addr, known bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, n := range x.containers[asker].Networks {
		linked := linkedName(n.Links, name)
		for _, m := range x.networks[n.ID] {
			if !m.called(name) && (linked == "" || !m.called(linked)) {
				continue
			}
			known = true
			if a := m.address(v6); a.IsValid() {
				addresses = append(addresses, a)
			}
		}
		if known {
			return addresses, true
		}
	}
	return nil, false
}

// linkedName is the name of the one whom a container has its own word for; "" if it has none.
func linkedName(links map[string]string, word string) string {
	for own, name := range links {
		if strings.ToLower(own) == word {
			return strings.ToLower(name)
		}
	}
	return ""
}

// reverse finds what an address is called, with the network's name behind it.
func (x *index) reverse(asker string, address netip.Addr) (name string, known bool) {
	for _, n := range x.containers[asker].Networks {
		for _, m := range x.networks[n.ID] {
			if (m.IPv4 == address || m.IPv6 == address) && len(m.Names) > 0 {
				return m.Names[0] + "." + m.Name, true
			}
		}
	}
	return "", false
}

// called says whether a member has a name, alone or with the network's name behind it.
func (m member) called(name string) bool {
	return slices.ContainsFunc(m.Names, func(n string) bool {
		n = strings.ToLower(n)
		rest, ok := strings.CutPrefix(name, n)
		return ok && (rest == "" || rest == "."+strings.ToLower(m.Name))
	})
}

func (m member) address(v6 bool) netip.Addr {
	if v6 {
		return m.IPv6
	}
	return m.IPv4
}

// answer answers what containers' names are enough for; nil says that it is somebody else's name.
func (x *index) answer(asker string, q dns.Question, rotate int) (records []dns.RR, known bool) {
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
	if q.Qclass != dns.ClassINET {
		return nil, false
	}
	if q.Qtype == dns.TypePTR {
		address, ok := addressOf(q.Name)
		if !ok {
			return nil, false
		}
		name, known := x.reverse(asker, address)
		if known {
			records = append(records, &dns.PTR{Hdr: header, Ptr: dns.Fqdn(name)})
		}
		return records, known
	}
	v6 := q.Qtype == dns.TypeAAAA
	addresses, known := x.lookup(asker, q.Name, v6)
	if !known || !v6 && q.Qtype != dns.TypeA {
		return nil, known
	}
	for i := range addresses {
		// Clients take the first: each question begins with another one.
		a := addresses[(i+rotate)%len(addresses)]
		if v6 {
			records = append(records, &dns.AAAA{Hdr: header, AAAA: a.AsSlice()})
		} else {
			records = append(records, &dns.A{Hdr: header, A: a.AsSlice()})
		}
	}
	return records, true
}

// addressOf is the address that a name below in-addr.arpa or ip6.arpa stands for (RFC 1035 3.5, RFC 3596 2.5).
func addressOf(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(rest, ".")
		if len(labels) != 4 {
			return netip.Addr{}, false
		}
		slices.Reverse(labels)
		a, err := netip.ParseAddr(strings.Join(labels, "."))
		return a, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	labels := strings.Split(rest, ".")
	if !ok || len(labels) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(labels)
	var b [16]byte
	for i, l := range labels {
		n, err := strconv.ParseUint(l, 16, 4)
		if err != nil || len(l) != 1 {
			return netip.Addr{}, false
		}
		b[i/2] = b[i/2]<<4 | byte(n)
	}
	return netip.AddrFrom16(b), true
}
