package networks

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"lrd/internal/names"
)

const (
	idC = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	idD = "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"
)

// create makes a network of a user.
func (w *world) create(name string, change func(*network.CreateRequest)) Network {
	w.t.Helper()
	req := network.CreateRequest{Name: name}
	if change != nil {
		change(&req)
	}
	n, err := w.m.Create(w.t.Context(), req)
	assert.NilError(w.t, err)
	return n
}

func option(key, value string) func(*network.CreateRequest) {
	return func(r *network.CreateRequest) { r.Options = map[string]string{key: value} }
}

func TestNetworksAreApart(t *testing.T) {
	w := newWorld(t)
	w.create("one", nil)
	w.create("two", nil)
	a := w.join(idA, nil, Join{Network: "one"})
	b := w.join(idB, []PortBinding{tcp(8080, 80)}, Join{Network: "two"})
	c := w.join(idC, nil, Join{Network: "one"}, Join{Network: "two"})
	for _, s := range []Sandbox{a, b, c} {
		w.serve(s.NetNS, s.ContainerID[:1], 80)
	}
	w.serve(w.outside, "world", 7)
	address := func(s Sandbox, i int) string { return s.Endpoints[i].IP.String() + ":80" }
	w.fails(a.NetNS, "tcp", address(b, 0))
	w.reaches(c.NetNS, "tcp", address(a, 0), "a "+c.Endpoints[0].IP.String())
	w.reaches(c.NetNS, "tcp", address(b, 0), "b "+c.Endpoints[1].IP.String())
	w.reaches(a.NetNS, "tcp", address(c, 0), "c")
	w.fails(a.NetNS, "tcp", address(c, 1))
	// What is published is for everybody.
	w.reaches(a.NetNS, "tcp", hostAddress+":8080", "b")
	w.reaches(w.outside, "tcp", hostAddress+":8080", "b")
	w.reaches("", "tcp", "127.0.0.1:8080", "b")
	w.reaches(c.NetNS, "tcp", outsideAddress+":7", "world "+hostAddress)
}

func TestInternalLeadsNowhere(t *testing.T) {
	w := newWorld(t)
	w.create("inner", func(r *network.CreateRequest) { r.Internal = true })
	a := w.join(idA, []PortBinding{tcp(8080, 80)}, Join{Network: "inner"})
	b := w.join(idB, nil, Join{Network: "inner"})
	w.serve(a.NetNS, "A", 80)
	w.serve(w.outside, "world", 7)
	w.reaches(b.NetNS, "tcp", a.Endpoints[0].IP.String()+":80", "A")
	w.reaches("", "tcp", a.Endpoints[0].IP.String()+":80", "A")
	w.fails(a.NetNS, "tcp", outsideAddress+":7")
	w.fails(w.outside, "tcp", hostAddress+":8080")
	// Not even for who sets a route of its own.
	w.inNS(a.NetNS, func() { ip(t, "route", "add", "default", "via", a.Endpoints[0].Gateway.String()) })
	w.fails(a.NetNS, "tcp", outsideAddress+":7")

	// With a second network there is a way out, and in.
	w.create("outer", nil)
	w.inNS(a.NetNS, func() { ip(t, "route", "del", "default") })
	_, err := w.m.Connect(t.Context(), idA, Join{Network: "outer"})
	assert.NilError(t, err)
	w.reaches(a.NetNS, "tcp", outsideAddress+":7", "world")
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
}

func TestOptionsOfANetwork(t *testing.T) {
	w := newWorld(t)
	w.create("apart", option(optionICC, "false"))
	a, b := w.join(idA, nil, Join{Network: "apart"}), w.join(idB, nil, Join{Network: "apart"})
	w.serve(a.NetNS, "A", 80)
	w.fails(b.NetNS, "tcp", a.Endpoints[0].IP.String()+":80")
	w.reaches("", "tcp", a.Endpoints[0].IP.String()+":80", "A")

	named := w.create("named", func(r *network.CreateRequest) {
		r.Options = map[string]string{optionBridge: "mine0", optionMTU: "1400", optionIfPrefix: "net", optionHostIP: "127.0.0.1"}
	})
	c := w.join(idC, []PortBinding{tcp(8080, 80)}, Join{Network: named.ID[:10], MAC: "02:00:00:00:00:07"})
	w.serve(c.NetNS, "C", 80)
	link, err := netlink.LinkByName("mine0")
	assert.NilError(t, err)
	assert.Equal(t, link.Attrs().MTU, 1400)
	w.inNS(c.NetNS, func() {
		link, err := netlink.LinkByName("net0")
		assert.Check(t, err)
		assert.Check(t, cmp.Equal(link.Attrs().MTU, 1400))
		assert.Check(t, cmp.Equal(link.Attrs().HardwareAddr.String(), "02:00:00:00:00:07"))
	})
	w.reaches("", "tcp", "127.0.0.1:8080", "C")
	w.fails(w.outside, "tcp", hostAddress+":8080")

	plain := w.create("plain", option(optionMasq, "false"))
	d := w.join(idD, nil, Join{Network: "plain"})
	w.serve(w.outside, "world", 7)
	w.inNS(w.outside, func() { ip(t, "route", "add", plain.Subnet4().Subnet.String(), "via", hostAddress) })
	w.reaches(d.NetNS, "tcp", outsideAddress+":7", "world "+d.Endpoints[0].IP.String())
}

func TestIPv6(t *testing.T) {
	w := newWorld(t)
	yes := true
	w.create("six", func(r *network.CreateRequest) {
		r.EnableIPv6 = &yes
		r.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("fd42::/64")}}}
	})
	a := w.join(idA, []PortBinding{tcp(8080, 80), {Proto: "udp", HostPort: 8080, ContainerPort: 80}, {Proto: "tcp", HostIP: netip.MustParseAddr("fd42::1"), HostPort: 8081, ContainerPort: 80}},
		Join{Network: "six", IPv6: netip.MustParseAddr("fd42::77")})
	b := w.join(idB, nil, Join{Network: "six"})
	assert.Equal(t, b.Endpoints[0].IP6.String(), "fd42::2")
	w.serve(a.NetNS, "A", 80)
	w.serve(w.outside, "world", 7)
	for _, proto := range []string{"tcp", "udp"} {
		w.reaches(b.NetNS, proto, "[fd42::77]:80", "A fd42::2")
		w.reaches(a.NetNS, proto, "["+outsideAddress6+"]:7", "world "+hostAddress6)
		w.reaches(w.outside, proto, "["+hostAddress6+"]:8080", "A "+outsideAddress6)
		w.reaches(w.outside, proto, hostAddress+":8080", "A")
		w.reaches("", proto, "["+hostAddress6+"]:8080", "A")
		w.reaches("", proto, "[fd42::1]:8080", "A")
		w.fails("", proto, "[::1]:8080")
		w.reaches(b.NetNS, proto, "["+hostAddress6+"]:8080", "A")
		w.reaches(a.NetNS, proto, "["+hostAddress6+"]:8080", "A")
	}
	w.reaches("", "tcp", "[fd42::1]:8081", "A")
	w.fails(w.outside, "tcp", "["+hostAddress6+"]:8081")
	w.inNS(w.outside, func() { ip(t, "route", "add", "fd42::/64", "via", hostAddress6) })
	w.fails(w.outside, "tcp", "[fd42::77]:80")

	// Who tries localhost is refused there at once, and goes on to 127.0.0.1.
	begin := time.Now()
	_, err := w.ask("", "tcp", "[::1]:8080", patience)
	assert.ErrorContains(t, err, "connection refused", "%s", time.Since(begin))
	_, err = w.m.Attach(t.Context(), Request{ContainerID: idC, Joins: []Join{{Network: "bridge"}}, Ports: []PortBinding{{Proto: "tcp", HostIP: netip.IPv6Unspecified(), HostPort: 9, ContainerPort: 80}}})
	assert.ErrorContains(t, err, "the container has no IPv6 address")
	_, err = w.m.Attach(t.Context(), Request{ContainerID: idC, Joins: []Join{{Network: "six", IPv6: netip.MustParseAddr("fd42::77")}}})
	assert.ErrorContains(t, err, "Address already in use")

	// A restart of the daemon.
	w.open()
	assert.NilError(t, w.m.Restore(t.Context(), []Sandbox{a, b}))
	w.reaches(w.outside, "tcp", "["+hostAddress6+"]:8080", "A")
	_, err = w.m.Attach(t.Context(), Request{ContainerID: idC, Joins: []Join{{Network: "six", IPv6: netip.MustParseAddr("fd42::77")}}})
	assert.ErrorContains(t, err, "Address already in use")
}

func TestConnectAndDisconnect(t *testing.T) {
	w := newWorld(t)
	back := w.create("back", nil)
	a := w.join(idA, []PortBinding{tcp(8080, 80)}, Join{Network: "bridge"})
	b := w.join(idB, nil, Join{Network: "back", Names: []string{"b"}})
	w.serve(a.NetNS, "A", 80)
	assert.Check(t, !names.Has(w.options.NamesDir, idA))
	s, err := w.m.Connect(t.Context(), idA, Join{Network: "back", IPv4: back.Subnet4().Gateway.Next().Next().Next(), Names: []string{"a", "alias"}})
	assert.NilError(t, err)
	e, ok := s.Endpoint("back")
	assert.Check(t, ok && e.Interface == "eth1")
	w.reaches(b.NetNS, "tcp", e.IP.String()+":80", "A")
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
	file, err := names.Read(w.options.NamesDir, idA)
	assert.NilError(t, err)
	assert.DeepEqual(t, file.Networks[0].Names, []string{"a", "alias"})
	_, err = w.m.Connect(t.Context(), idA, Join{Network: "back"})
	assert.ErrorContains(t, err, "already attached")

	_, err = w.m.Remove(t.Context(), "back")
	assert.ErrorContains(t, err, "error while removing network: network back has active endpoints (name:\"a\" id:\"aaaaaaaaaaaa\"")
	assert.Check(t, errdefs.IsPermissionDenied(err))
	s, _ = w.m.Rename(t.Context(), idA, "a", "renamed")
	assert.DeepEqual(t, s.Endpoints[1].Names, []string{"renamed", "alias"})

	// The way out moves to the network that is left, and the published port with it.
	s, err = w.m.Disconnect(t.Context(), idA, "bridge", false)
	assert.NilError(t, err)
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
	w.serve(w.outside, "world", 7)
	w.reaches(a.NetNS, "tcp", outsideAddress+":7", "world")
	_, err = w.m.Disconnect(t.Context(), idA, "bridge", false)
	assert.ErrorContains(t, err, "is not connected to network bridge")

	// A restart of the daemon, with the bridge gone.
	assert.NilError(t, removeLink(back.Bridge))
	assert.NilError(t, os.RemoveAll(w.options.NamesDir))
	w.open()
	assert.NilError(t, w.m.Restore(t.Context(), []Sandbox{s, b}))
	w.reaches(b.NetNS, "tcp", e.IP.String()+":80", "A")
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
	assert.Check(t, names.Has(w.options.NamesDir, idA))

	for _, id := range []string{idA, idB} {
		assert.NilError(t, w.m.Detach(t.Context(), id))
		assert.Check(t, !names.Has(w.options.NamesDir, id))
	}
	_, err = w.m.Remove(t.Context(), "back")
	assert.NilError(t, err)
	_, err = netlink.LinkByName(back.Bridge)
	assert.Check(t, err != nil, "the bridge is left")
	left, err := os.ReadDir(w.options.DataDir)
	assert.NilError(t, err)
	assert.Check(t, cmp.Len(left, 0))
	rules, err := runProgram(t.Context(), "", "nft", "list", "table", "inet", "lrd")
	assert.NilError(t, err)
	assert.Check(t, !strings.Contains(string(rules), back.Bridge))
}

// TestNetworkThatIsLost: what was saved of a network is gone, its containers go on.
func TestNetworkThatIsLost(t *testing.T) {
	w := newWorld(t)
	n := w.create("lost", nil)
	a := w.join(idA, []PortBinding{tcp(8080, 80)}, Join{Network: "lost"})
	w.serve(a.NetNS, "A", 80)
	w.serve(w.outside, "world", 7)
	assert.NilError(t, forget(w.options.DataDir, n))
	w.open()
	t.Cleanup(func() { assert.Check(t, removeLink(n.Bridge)) })
	err := w.m.Restore(t.Context(), []Sandbox{a})
	assert.ErrorContains(t, err, "network lost no longer exists")
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
	w.reaches(a.NetNS, "tcp", outsideAddress+":7", "world "+hostAddress)
	// Nobody gets its addresses.
	other := w.create("other", nil)
	assert.Check(t, other.Subnet4().Subnet != n.Subnet4().Subnet)
}

func TestCreateRefuses(t *testing.T) {
	w := newWorld(t)
	w.create("taken", nil)
	yes, no := true, false
	subnet := func(texts ...string) *network.IPAM {
		c := network.IPAMConfig{Subnet: netip.MustParsePrefix(texts[0])}
		if len(texts) > 1 {
			c.Gateway = netip.MustParseAddr(texts[1])
		}
		if len(texts) > 2 {
			c.IPRange = netip.MustParsePrefix(texts[2])
		}
		return &network.IPAM{Config: []network.IPAMConfig{c}}
	}
	for want, req := range map[string]network.CreateRequest{
		"network with name taken already exists":                  {Name: "taken"},
		"network name is required":                                {},
		"operation is not permitted on predefined bridge network": {Name: "bridge"},
		"invalid network name \"a b\"":                            {Name: "a b"},
		"only one instance of \"host\" network is allowed":        {Name: "x", Driver: "host"},
		"plugin not found":                                        {Name: "x", Driver: "macvlan"},
		"Pool overlaps with other one on this address space":      {Name: "x", IPAM: subnet("172.30.4.0/24")},
		"it should be 10.0.0.0/24":                                {Name: "x", IPAM: subnet("10.0.0.1/24")},
		"invalid gateway 10.0.1.1":                                {Name: "x", IPAM: subnet("10.0.0.0/24", "10.0.1.1")},
		"invalid ip-range 10.0.1.0/25":                            {Name: "x", IPAM: subnet("10.0.0.0/24", "10.0.0.1", "10.0.1.0/25")},
		"must be 8 to 30":                                         {Name: "x", IPAM: subnet("10.0.0.0/31")},
		"not addresses that hosts of a network have":              {Name: "x", IPAM: subnet("127.0.0.0/24")},
		"IPv6 is not enabled for it":                              {Name: "x", IPAM: subnet("fd00::/64")},
		"no networks without IPv4":                                {Name: "x", EnableIPv4: &no, EnableIPv6: &yes},
		"true or false":                                           {Name: "x", Options: map[string]string{optionICC: "maybe"}},
		"the link lo exists already":                              {Name: "x", Options: map[string]string{optionBridge: "lo"}},
		"invalid MTU 5":                                           {Name: "x", Options: map[string]string{optionMTU: "5"}},
		"lrd has the mode nat only":                               {Name: "x", Options: map[string]string{optionGateway4: "routed"}},
		"the driver default only":                                 {Name: "x", IPAM: &network.IPAM{Driver: "dhcp"}},
	} {
		_, err := w.m.Create(t.Context(), req)
		assert.Check(t, cmp.ErrorContains(err, want))
	}
	assert.Check(t, cmp.Len(w.m.Networks(), 2))
	_, err := w.m.Remove(t.Context(), "bridge")
	assert.ErrorContains(t, err, "bridge is a pre-defined network and cannot be removed")
	_, err = w.m.Remove(t.Context(), "nobody")
	assert.Check(t, errdefs.IsNotFound(err))
	assert.ErrorContains(t, err, "network nobody not found")
	ip(t, "route", "add", "172.19.0.0/24", "dev", "out0")
	assert.Equal(t, w.create("next", nil).Subnet4().Subnet.String(), "172.20.0.0/16", "next to a route of the host")
}

func TestPools(t *testing.T) {
	p := func(text string) netip.Prefix { return netip.MustParsePrefix(text) }
	pools := []Pool{{p("10.0.0.0/30"), 31}, {p("10.1.0.0/16"), 24}}
	for _, tc := range []struct {
		taken []netip.Prefix
		want  string
	}{
		{nil, "10.0.0.0/31"},
		{[]netip.Prefix{p("10.0.0.0/31")}, "10.0.0.2/31"},
		{[]netip.Prefix{p("10.0.0.0/24"), p("10.1.0.0/23")}, "10.1.2.0/24"},
		{[]netip.Prefix{p("10.0.0.0/8")}, ""},
		{[]netip.Prefix{p("10.0.0.1/32"), p("10.0.0.3/32"), p("10.1.0.0/17"), p("10.1.128.5/32")}, "10.1.129.0/24"},
	} {
		got, err := choose(pools, tc.taken)
		if tc.want == "" {
			assert.Check(t, errdefs.IsResourceExhausted(err))
			continue
		}
		assert.NilError(t, err)
		assert.Check(t, cmp.Equal(got.String(), tc.want))
	}
	_, err := choose([]Pool{{p("255.255.255.0/24"), 25}}, []netip.Prefix{p("255.255.255.0/24")})
	assert.Check(t, errdefs.IsResourceExhausted(err), "the end of the address space")
	assert.Check(t, p("fd00::/8").Contains(chooseUnique().Addr()))
}

func TestManyNames(t *testing.T) {
	w := newWorld(t)
	w.create("n", nil)
	w.join(idA, nil, Join{Network: "n", Names: []string{"a"}})
	w.join(idB, nil, Join{Network: "bridge"})
	// What was left of a container that nobody knows.
	assert.NilError(t, names.Write(w.options.NamesDir, names.Container{ID: idC, NetNS: "/gone"}))
	s, _ := w.m.Sandbox(idA)
	w.open()
	assert.NilError(t, w.m.Restore(t.Context(), []Sandbox{s}))
	listed, _, err := names.Listed(w.options.NamesDir)
	assert.NilError(t, err)
	assert.DeepEqual(t, listed, []string{idA})
	// The stranger keeps its address.
	c := w.join(idC, nil, Join{Network: "bridge"})
	assert.Equal(t, c.Endpoints[0].IP.String(), "172.30.0.3")
	assert.NilError(t, w.m.Detach(t.Context(), idB))
}

// TestDisconnectThatFails: what the kernel refuses leaves a container where it was, for another try, and force leaves it out.
func TestDisconnectThatFails(t *testing.T) {
	w := newWorld(t)
	refused := errors.New("refused")
	var refusing bool
	w.options.Run = func(ctx context.Context, input, name string, args ...string) ([]byte, error) {
		if refusing {
			return nil, refused
		}
		return runProgram(ctx, input, name, args...)
	}
	w.open()
	assert.NilError(t, w.m.Restore(t.Context(), nil))
	n := w.create("net", nil)
	s := w.join(idA, nil, Join{Network: "bridge"}, Join{Network: "net", Names: []string{"a"}})
	had := s.Endpoints[1].IP

	refusing = true
	_, err := w.m.Disconnect(t.Context(), idA, "net", false)
	assert.ErrorIs(t, err, refused)
	in, _ := w.m.Sandbox(idA)
	assert.DeepEqual(t, in.Endpoints[1].Names, []string{"a"})
	assert.Check(t, names.Has(w.options.NamesDir, idA))
	out, err := w.m.Disconnect(t.Context(), idA, "net", true)
	assert.NilError(t, err)
	assert.Check(t, cmp.Len(out.Endpoints, 1))
	refusing = false
	assert.Check(t, !names.Has(w.options.NamesDir, idA))
	assert.Check(t, !linkExists(hostLink(idA, n.ID)))
	_, err = w.m.Attach(t.Context(), Request{ContainerID: idB, Joins: []Join{{Network: "net", IPv4: had}}})
	assert.NilError(t, err)

	// A port whose rule could not be taken away is nobody's after another try.
	w.join(idC, []PortBinding{tcp(8080, 80)}, Join{Network: "net"})
	refusing = true
	assert.ErrorIs(t, w.m.Detach(t.Context(), idC), refused)
	refusing = false
	assert.NilError(t, w.m.Detach(t.Context(), idC))
	rules, err := runProgram(t.Context(), "", "nft", "list", "table", "inet", "lrd")
	assert.NilError(t, err)
	assert.Check(t, !strings.Contains(string(rules), "8080"))

	// A network whose removal fails is still there, for another try.
	assert.NilError(t, w.m.Detach(t.Context(), idB))
	refusing = true
	_, err = w.m.Remove(t.Context(), "net")
	assert.ErrorIs(t, err, refused)
	refusing = false
	_, err = w.m.Remove(t.Context(), "net")
	assert.NilError(t, err)
}

// TestEvict: what is left in a network of a container that nobody knows can be taken out of it, and its address be given again.
func TestEvict(t *testing.T) {
	w := newWorld(t)
	n := w.create("net", nil)
	a := w.join(idA, nil, Join{Network: "net", Names: []string{"a"}})
	b := w.join(idB, nil, Join{Network: "net", Names: []string{"b"}})
	// A daemon that has not been told of them.
	w.open()
	t.Cleanup(func() { assert.Check(t, w.m.Detach(context.Background(), idB)) })
	for _, id := range []string{idA, idB} {
		assert.NilError(t, names.Write(w.options.NamesDir, map[string]Sandbox{idA: a, idB: b}[id].file()))
	}
	assert.NilError(t, w.m.Restore(t.Context(), nil))
	join := Request{ContainerID: idC, Joins: []Join{{Network: "net", IPv4: a.Endpoints[0].IP, Names: []string{"c"}}}}
	_, err := w.m.Attach(t.Context(), join)
	assert.ErrorContains(t, err, "Address already in use")

	assert.ErrorContains(t, w.m.Evict(t.Context(), "nobody", "net"), "endpoint nobody not found")
	assert.ErrorContains(t, w.m.Evict(t.Context(), "a", "none-such"), "network none-such not found")
	assert.NilError(t, w.m.Evict(t.Context(), "a", "net"))
	assert.NilError(t, w.m.Evict(t.Context(), idB, "net"))
	assert.Check(t, !linkExists(hostLink(idA, n.ID)) && !linkExists(hostLink(idB, n.ID)))
	c, err := names.Read(w.options.NamesDir, idA)
	assert.NilError(t, err)
	assert.Check(t, cmp.Len(c.Networks, 0))
	_, err = w.m.Attach(t.Context(), join)
	assert.NilError(t, err)
	for _, ref := range []string{idA, idC, "c"} { // nothing is left of the first, and the other is known
		err = w.m.Evict(t.Context(), ref, "net")
		assert.Check(t, errdefs.IsNotFound(err), "%v", err)
	}
	assert.NilError(t, w.m.Detach(t.Context(), idA))
}

// TestPortsOfAContainerInNoNetwork are published when it gets into one.
func TestPortsOfAContainerInNoNetwork(t *testing.T) {
	w := newWorld(t)
	w.create("net", nil)
	s := w.join(idA, []PortBinding{tcp(8080, 80)})
	assert.Check(t, s.EndedMark != "")
	w.serve(s.NetNS, "A", 80)
	w.fails(w.outside, "tcp", hostAddress+":8080")
	_, err := w.m.Attach(t.Context(), Request{ContainerID: idB, Joins: []Join{{Network: "net"}}, Ports: []PortBinding{tcp(8080, 80)}})
	assert.ErrorContains(t, err, "port is already allocated")
	_, err = w.m.Connect(t.Context(), idA, Join{Network: "net"})
	assert.NilError(t, err)
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
}
