package networks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"
)

func testIPAM(gateway string) *ipam {
	g := netip.MustParsePrefix(gateway)
	return newIPAM("test", Subnet{Subnet: g.Masked(), Gateway: g.Addr()})
}

func TestIPAMGivesEachAddressOnce(t *testing.T) {
	a := testIPAM("10.0.0.2/29")
	given := map[netip.Addr]bool{}
	for range 5 {
		addr, err := a.allocate("x")
		assert.NilError(t, err)
		assert.Check(t, !given[addr] && addr != netip.MustParseAddr("10.0.0.2"), "%s", addr)
		given[addr] = true
	}
	_, err := a.allocate("x")
	assert.Check(t, errdefs.IsResourceExhausted(err), "%v", err)
	a.release(netip.MustParseAddr("10.0.0.4"), "somebody else")
	_, err = a.allocate("x")
	assert.Check(t, err != nil, "an address was released by who did not own it")
	a.release(netip.MustParseAddr("10.0.0.4"), "x")
	addr, err := a.allocate("y")
	assert.NilError(t, err)
	assert.Equal(t, addr.String(), "10.0.0.4")
	assert.Check(t, errdefs.IsConflict(a.reserve(addr, "z")))
	assert.NilError(t, a.reserve(addr, "y"))
}

func TestIPAMGoesAround(t *testing.T) {
	a := testIPAM("172.30.0.1/16")
	first, err := a.allocate("x")
	assert.NilError(t, err)
	assert.Equal(t, first.String(), "172.30.0.2")
	a.release(first, "x")
	second, err := a.allocate("x")
	assert.NilError(t, err)
	assert.Equal(t, second.String(), "172.30.0.3")
	assert.Equal(t, macOf(second).String(), "02:42:ac:1e:00:03")
}

func TestIPAMKeepsToItsRange(t *testing.T) {
	s := Subnet{
		Subnet: netip.MustParsePrefix("10.0.0.0/24"), IPRange: netip.MustParsePrefix("10.0.0.252/30"), Gateway: netip.MustParseAddr("10.0.0.1"),
		Aux: map[string]netip.Addr{"printer": netip.MustParseAddr("10.0.0.253")},
	}
	a := newIPAM("test", s)
	for _, want := range []string{"10.0.0.252", "10.0.0.254"} {
		got, err := a.allocate("x")
		assert.NilError(t, err)
		assert.Equal(t, got.String(), want)
	}
	_, err := a.allocate("x")
	assert.Check(t, errdefs.IsResourceExhausted(err))
	// Somebody may ask for one outside of the range.
	assert.NilError(t, a.take(netip.MustParseAddr("10.0.0.9"), "y"))
	assert.ErrorContains(t, a.take(netip.MustParseAddr("10.0.0.9"), "z"), "Address already in use")
	assert.ErrorContains(t, a.take(netip.MustParseAddr("10.0.0.253"), "z"), "Address already in use")
	for _, outside := range []string{"10.0.0.0", "10.0.0.255", "10.0.1.1"} {
		assert.ErrorContains(t, a.take(netip.MustParseAddr(outside), "z"), "no configured subnet contains IP address "+outside)
	}
	six := newIPAM("test", Subnet{Subnet: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParseAddr("fd00::1")})
	got, err := six.allocate("x")
	assert.NilError(t, err)
	assert.Equal(t, got.String(), "fd00::2")
}

func TestCheckBip(t *testing.T) {
	for bip, ok := range map[string]bool{
		DefaultBip: true, "10.0.0.1/8": true, "192.168.1.254/24": true, "10.1.1.1/30": true,
		"10.0.0.0/24": false, "10.0.0.255/24": false, "10.0.0.1/31": false, "10.0.0.1/7": false,
		"127.0.0.1/8": false, "224.0.0.1/24": false, "fd00::1/64": false,
	} {
		err := checkBip(netip.MustParsePrefix(bip))
		assert.Check(t, cmp.Equal(err == nil, ok), "%s: %v", bip, err)
		assert.Check(t, ok || errdefs.IsInvalidArgument(err))
	}
	assert.Check(t, checkBip(netip.Prefix{}) != nil)
}

func TestCheckBridgeName(t *testing.T) {
	for name, ok := range map[string]bool{
		"lrd0": true, "br-a_b.1": true, "": false, ".": false, "..": false,
		"sixteen-letters0": false, `a"b`: false, "a b": false, "a/b": false, "a;b": false,
	} {
		assert.Check(t, cmp.Equal(checkBridgeName(name) == nil, ok), name)
	}
}

func on(address string, hostPort uint16) PortBinding {
	b := PortBinding{Proto: "tcp", HostPort: hostPort, ContainerPort: 80}
	if address != "" {
		b.HostIP = netip.MustParseAddr(address)
	}
	return b
}

func TestPortsConflict(t *testing.T) {
	for _, tc := range []struct {
		first, second PortBinding
		conflict      bool
	}{
		{on("", 80), on("", 80), true},
		{on("", 80), on("127.0.0.1", 80), true},
		{on("127.0.0.1", 80), on("0.0.0.0", 80), true},
		{on("127.0.0.1", 80), on("127.0.0.1", 80), true},
		{on("::ffff:127.0.0.1", 80), on("127.0.0.1", 80), true},
		{on("127.0.0.1", 80), on("10.0.0.1", 80), false},
		{on("", 80), on("::", 80), false},
		{on("fd00::1", 80), on("::", 80), true},
		{on("", 80), on("", 81), false},
		{on("", 80), PortBinding{Proto: "udp", HostPort: 80, ContainerPort: 80}, false},
	} {
		table := newPortTable(1, 2, nil)
		tc.first.HostIP = tc.first.HostIP.Unmap()
		given, err := table.allocate("a", []PortBinding{tc.first})
		assert.NilError(t, err)
		_, err = table.allocate("b", []PortBinding{tc.second})
		assert.Check(t, cmp.Equal(errdefs.IsConflict(err), tc.conflict), "%v %v: %v", tc.first, tc.second, err)
		table.release("b", given)
		assert.Check(t, table.conflict(given[0]), "released by who did not own it")
		table.release("a", given)
		assert.Check(t, !table.conflict(given[0]))
	}
}

func TestPortsAllOrNone(t *testing.T) {
	table := newPortTable(1, 2, nil)
	_, err := table.allocate("a", []PortBinding{on("", 80), on("", 80)})
	assert.ErrorContains(t, err, "Bind for 0.0.0.0:80 failed: port is already allocated")
	assert.Check(t, cmp.Len(table.used, 0))
}

func TestPortsChosenFreely(t *testing.T) {
	busy := map[uint16]bool{40001: true}
	table := newPortTable(40000, 40003, func(_ string, at netip.AddrPort) error {
		if busy[at.Port()] {
			return syscall.EADDRINUSE
		}
		return nil
	})
	seen := map[uint16]bool{}
	for range 3 {
		given, err := table.allocate("a", []PortBinding{on("", 0)})
		assert.NilError(t, err)
		p := given[0].HostPort
		assert.Check(t, !seen[p] && !busy[p] && p >= 40000 && p <= 40003, "%d", p)
		seen[p] = true
	}
	_, err := table.allocate("a", []PortBinding{on("", 0)})
	assert.Check(t, errdefs.IsConflict(err))

	ranged := on("", 40001)
	ranged.HostPortEnd = 40010
	given, err := table.allocate("a", []PortBinding{ranged})
	assert.NilError(t, err)
	assert.Equal(t, given[0].HostPort, uint16(40004))
	assert.Equal(t, given[0].HostPortEnd, uint16(0))

	_, err = table.allocate("a", []PortBinding{on("", 40001)})
	assert.Error(t, err, "failed to bind host port 0.0.0.0:40001/tcp: address already in use")
}

// TestPortsOfBothFamilies: one number, on IPv4 and on IPv6, or neither.
func TestPortsOfBothFamilies(t *testing.T) {
	table := newPortTable(40000, 40001, nil)
	_, err := table.allocate("a", []PortBinding{on("::", 40000)})
	assert.NilError(t, err)
	both := on("", 0)
	both.Both = true
	given, err := table.allocate("b", []PortBinding{both})
	assert.NilError(t, err)
	assert.Equal(t, fmt.Sprint(given), "[0.0.0.0:40001->80/tcp [::]:40001->80/tcp]")
	_, err = table.allocate("c", []PortBinding{both})
	assert.Check(t, errdefs.IsConflict(err))
	assert.Check(t, !table.conflict(on("", 40000)), "half of a pair was kept")
}

func TestPortsToTheLast(t *testing.T) {
	table := newPortTable(65535, 65535, nil)
	given, err := table.allocate("a", []PortBinding{on("", 0)})
	assert.NilError(t, err)
	assert.Equal(t, given[0].HostPort, uint16(65535))
}

func TestPortsReserved(t *testing.T) {
	table := newPortTable(1, 2, func(string, netip.AddrPort) error { return errors.New("must not be probed") })
	kept, lost := table.reserve("a", []PortBinding{on("", 80), on("fd00::1", 80), on("", 80)})
	assert.Check(t, cmp.Len(kept, 2))
	assert.Check(t, cmp.Len(lost, 1))
	_, lost = table.reserve("b", []PortBinding{on("127.0.0.1", 80)})
	assert.Check(t, cmp.Len(lost, 1))
}

func TestParsePortBindings(t *testing.T) {
	port := network.MustParsePort
	bindings := network.PortMap{
		port("80/tcp"):  {{HostPort: "8080"}, {HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: "8081"}},
		port("53/udp"):  {{HostPort: "5300-5310"}},
		port("22/tcp"):  {{}},
		port("443/tcp"): nil,
	}
	exposed := network.PortSet{port("443/tcp"): {}, port("80/tcp"): {}, port("9/tcp"): {}}
	for _, tc := range []struct {
		all  bool
		want string
	}{
		{false, "0.0.0.0:0->22/tcp 0.0.0.0:5300->53/udp 0.0.0.0:8080->80/tcp 127.0.0.1:8081->80/tcp"},
		{true, "0.0.0.0:0->9/tcp 0.0.0.0:0->22/tcp 0.0.0.0:5300->53/udp 0.0.0.0:8080->80/tcp 127.0.0.1:8081->80/tcp 0.0.0.0:0->443/tcp"},
	} {
		got, err := ParsePortBindings(bindings, exposed, tc.all)
		assert.NilError(t, err)
		var words []string
		for _, b := range got {
			words = append(words, b.String())
		}
		assert.Equal(t, strings.Join(words, " "), tc.want)
	}
	for want, m := range map[string]network.PortMap{
		"on [::1]: the kernel leads nothing":  {port("80/tcp"): {{HostIP: netip.MustParseAddr("::1")}}},
		`invalid port specification: "x"`:     {port("80/tcp"): {{HostPort: "x"}}},
		`invalid port specification: "90-80"`: {port("80/tcp"): {{HostPort: "90-80"}}},
		`invalid port specification: "70000"`: {port("80/tcp"): {{HostPort: "70000"}}},
		`invalid port specification: "0/tcp"`: {port("0/tcp"): {{}}},
	} {
		_, err := ParsePortBindings(m, nil, false)
		assert.Check(t, cmp.ErrorContains(err, want))
		assert.Check(t, errdefs.IsInvalidArgument(err) || errdefs.IsNotImplemented(err))
	}
}

func TestRuleset(t *testing.T) {
	a, b, six := netip.MustParseAddr("172.30.0.2"), netip.MustParseAddr("10.9.0.3"), netip.MustParseAddr("fd00::2")
	first := bridgeRules{name: "lrd0", subnets: []netip.Prefix{netip.MustParsePrefix("172.30.0.1/16"), netip.MustParsePrefix("10.9.0.1/24")}}
	r := rules{
		bridges: []bridgeRules{
			first,
			{name: "lrd-inner", subnets: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/24")}, internal: true},
			{name: "lrd-apart", subnets: []netip.Prefix{netip.MustParsePrefix("10.11.0.0/24"), netip.MustParsePrefix("fd00::/64")}, apart: true},
			{name: "lrd-plain", subnets: []netip.Prefix{netip.MustParsePrefix("10.12.0.0/24")}, unmasked: true},
		},
		published: []publishedPort{
			{on("", 8080), a},
			{PortBinding{Proto: "udp", HostPort: 53, ContainerPort: 5353}, b},
			{on("127.0.0.1", 8081), a},
			{on("::", 8080), six},
			{on("fd00::99", 8080), six},
		},
	}
	golden.Assert(t, r.script(), "published.nft")
	r.published[0], r.published[1] = r.published[1], r.published[0]
	r.bridges[0], r.bridges[2] = r.bridges[2], r.bridges[0]
	golden.Assert(t, r.script(), "published.nft")
	golden.Assert(t, rules{bridges: []bridgeRules{first}}.script(), "empty.nft")
}

func testSandbox() Sandbox {
	id := strings.Repeat("a", 64)
	return Sandbox{
		ContainerID: id, NetNS: "/run/lrd/" + id,
		Endpoints: []Endpoint{
			{
				NetworkID: BuiltinID("bridge"), Network: "bridge", Bridge: "lrd0", HostLink: "lrdaaaaaaaaaaaa", Interface: "eth0",
				IP: netip.MustParseAddr("172.30.0.2"), PrefixLen: 16, Gateway: netip.MustParseAddr("172.30.0.1"), MAC: "02:42:ac:1e:00:02",
			},
			{
				NetworkID: strings.Repeat("b", 64), Network: "back", Bridge: "lrd-bbbbbbbbbbb", HostLink: hostLink(id, strings.Repeat("b", 64)), Interface: "eth1",
				IP: netip.MustParseAddr("172.18.0.2"), PrefixLen: 16, Gateway: netip.MustParseAddr("172.18.0.1"), MAC: "02:42:ac:12:00:02",
				IP6: netip.MustParseAddr("fd00::2"), PrefixLen6: 64, Gateway6: netip.MustParseAddr("fd00::1"), Names: []string{"web"}, Internal: true,
			},
		},
		Ports: []PortBinding{on("0.0.0.0", 80)},
	}
}

func TestSandboxSurvivesJSON(t *testing.T) {
	s := testSandbox()
	for _, want := range []Sandbox{s, s.without(0), s.without(1), {ContainerID: s.ContainerID, NetNS: s.NetNS}} {
		data, err := json.Marshal(want)
		assert.NilError(t, err)
		var got Sandbox
		assert.NilError(t, json.Unmarshal(data, &got))
		again, err := json.Marshal(got)
		assert.NilError(t, err)
		assert.Check(t, cmp.Equal(string(again), string(data)))
		assert.Check(t, cmp.Equal(fmt.Sprintf("%+v", got.Endpoints), fmt.Sprintf("%+v", want.Endpoints)))
	}
}

// TestSandboxOfBefore reads what was saved when there was the default network alone, and writes what that version reads.
func TestSandboxOfBefore(t *testing.T) {
	s := testSandbox().without(1)
	before := fmt.Sprintf(`{"ContainerID":%q,"NetNS":%q,"IP":"172.30.0.2","PrefixLen":16,"Gateway":"172.30.0.1","MAC":"02:42:ac:1e:00:02",`+
		`"Bridge":"lrd0","HostLink":"lrdaaaaaaaaaaaa","Ports":[{"Proto":"tcp","HostIP":"0.0.0.0","HostPort":80,"ContainerPort":80}]}`, s.ContainerID, s.NetNS)
	var got Sandbox
	assert.NilError(t, json.Unmarshal([]byte(before), &got))
	assert.Check(t, cmp.Equal(fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", s)))
	now, err := json.Marshal(testSandbox())
	assert.NilError(t, err)
	var was, is map[string]any
	assert.NilError(t, json.Unmarshal([]byte(before), &was))
	assert.NilError(t, json.Unmarshal(now, &is))
	for key, value := range was {
		assert.Check(t, cmp.DeepEqual(is[key], value), key)
	}
	assert.NilError(t, json.Unmarshal([]byte(`{"ContainerID":"x","NetNS":"/x","IP":"","Gateway":""}`), &got))
	assert.Check(t, cmp.Len(got.Endpoints, 0))
}

func TestCheckSandbox(t *testing.T) {
	assert.NilError(t, checkSandbox(testSandbox()))
	for _, damage := range []func(*Sandbox){
		func(s *Sandbox) { s.ContainerID = "../../etc" },
		func(s *Sandbox) { s.NetNS = "/etc/passwd" },
		func(s *Sandbox) { s.NetNS = s.ContainerID },
		func(s *Sandbox) { s.Endpoints[0].HostLink = "eth0" },
		func(s *Sandbox) { s.Endpoints[0].IP = netip.MustParseAddr("fd00::1") },
		func(s *Sandbox) { s.Endpoints[0].Gateway = netip.Addr{} },
		func(s *Sandbox) { s.Endpoints[0].PrefixLen = 40 },
		func(s *Sandbox) { s.Endpoints[1].Gateway6 = netip.Addr{} },
		func(s *Sandbox) { s.Endpoints[1].Bridge = `x" drop` },
		func(s *Sandbox) { s.Endpoints[1].Interface = "../x" },
	} {
		s := testSandbox()
		damage(&s)
		assert.Check(t, errdefs.IsInvalidArgument(checkSandbox(s)), "%+v", s)
	}
}

// TestWay: by which network a container's packets leave.
func TestWay(t *testing.T) {
	place := func(name string, priority int, internal, v6 bool) Endpoint {
		e := Endpoint{Network: name, Priority: priority, Internal: internal}
		if v6 {
			e.IP6 = netip.MustParseAddr("fd00::2")
		}
		return e
	}
	for _, tc := range []struct {
		endpoints []Endpoint
		four, six string
	}{
		{nil, "", ""},
		{[]Endpoint{place("b", 0, false, false), place("a", 0, false, false)}, "a", ""},
		{[]Endpoint{place("b", 1, false, false), place("a", 0, false, true)}, "b", "a"},
		{[]Endpoint{place("a", 9, true, true), place("b", 0, false, true)}, "b", "b"},
		{[]Endpoint{place("a", 9, true, true)}, "", ""},
	} {
		s := Sandbox{Endpoints: tc.endpoints}
		four, _ := s.way(false)
		six, _ := s.way(true)
		assert.Check(t, cmp.Equal(four.Network+","+six.Network, tc.four+","+tc.six))
	}
}

// fakeIptables plays a host where iptables drops what it forwards, and where firewalld is.
type fakeIptables struct {
	listed string
	ran    []string
	err    error
	chains string // more of them, in JSON
	zones  string // what firewalld's table says
}

func (f *fakeIptables) run(_ context.Context, _, name string, args ...string) ([]byte, error) {
	line := name + " " + strings.Join(args, " ")
	switch line {
	case "nft -j list chains":
		data, err := os.ReadFile("testdata/chains.json")
		return []byte(strings.Replace(string(data), "]}", f.chains+"]}", 1)), err
	case "nft list table inet firewalld":
		return []byte(f.zones), nil
	case "iptables -w -S FORWARD", "ip6tables -w -S FORWARD":
		return []byte(f.listed), f.err
	}
	f.ran = append(f.ran, line)
	return nil, f.err
}

func TestForwardPolicyOfOthers(t *testing.T) {
	const in, out = "iptables -w -I FORWARD -i lrd0 -j ACCEPT", "iptables -w -I FORWARD -o lrd0 -j ACCEPT"
	four := Network{Name: "bridge", Bridge: "lrd0", Subnets: []Subnet{{Gateway: netip.MustParseAddr("10.0.0.1")}}}
	both := four
	both.Subnets = append(slices.Clone(four.Subnets), Subnet{Gateway: netip.MustParseAddr("fd00::1")})
	for _, tc := range []struct {
		name    string
		fake    fakeIptables
		network Network
		ran     []string
		advised bool
	}{
		{name: "drop", fake: fakeIptables{listed: "-P FORWARD DROP\n"}, ran: []string{in, out}},
		{name: "half", fake: fakeIptables{listed: "-P FORWARD DROP\n-A FORWARD -i lrd0 -j ACCEPT\n"}, ran: []string{out}},
		{name: "done", fake: fakeIptables{listed: "-P FORWARD DROP\n-A FORWARD -i lrd0 -j ACCEPT\n-A FORWARD -o lrd0 -j ACCEPT\n"}},
		{name: "no iptables", fake: fakeIptables{err: errors.New("not found")}, advised: true},
		{name: "IPv6", fake: fakeIptables{listed: "-P FORWARD DROP\n"}, network: both, ran: []string{in, out, "ip6tables" + in[8:], "ip6tables" + out[8:]}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.network.Name == "" {
				tc.network = four
			}
			m := &Manager{run: tc.fake.run, log: discard(), inIptables: map[string]bool{}, networks: map[string]*pool{"x": {Network: tc.network}}}
			warnings := strings.Join(m.checkForward(t.Context()), "\n")
			assert.Check(t, cmp.DeepEqual(tc.fake.ran, tc.ran))
			assert.Check(t, cmp.Contains(warnings, "inet firewall fwd drops forwarded packets"))
			assert.Check(t, cmp.Equal(strings.Contains(warnings, "iptables -I FORWARD"), tc.advised))
			tc.fake.ran = nil
			assert.Check(t, tc.advised || m.forgetIptables(t.Context(), tc.network) == nil)
			assert.Check(t, tc.advised || len(tc.fake.ran) == 2*len(tc.network.Subnets), "its rules stay behind: %q", tc.fake.ran)
		})
	}
}

func TestBridgesInNoZoneOfFirewalld(t *testing.T) {
	const chains = `, {"chain": {"family": "inet", "table": "firewalld", "name": "filter_FORWARD", "handle": 9, "type": "filter", "hook": "forward", "prio": 10, "policy": "accept"}}`
	for _, tc := range []struct{ chains, zones, left string }{
		{"", "", ""},
		{chains, `iifname "eth0" jump filter_FWD_public`, `"br-own", "lrd0"`},
		{chains, `iifname "lrd*" jump filter_FWD_lrd`, `"br-own"`},
		{chains, "iifname \"lrd*\" jump filter_FWD_lrd\niifname \"br-own\" jump filter_FWD_lrd", ""},
	} {
		fake := fakeIptables{chains: tc.chains, zones: tc.zones}
		m := &Manager{run: fake.run, log: discard(), inIptables: map[string]bool{}, networks: map[string]*pool{
			"x": {Network: Network{Name: "x", Bridge: "lrd0"}}, "a": {Network: Network{Name: "a", Bridge: "br-own"}},
		}}
		warnings := strings.Join(m.checkForward(t.Context()), "\n")
		assert.Check(t, cmp.Equal(strings.Contains(warnings, "firewalld has the bridges "+tc.left+" in no zone"), tc.left != ""), warnings)
		assert.Check(t, cmp.Equal(strings.Contains(warnings, "firewalld has"), tc.left != ""), warnings)
	}
}
