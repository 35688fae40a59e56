package networks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestPublishedPortIsReachedFromEverywhere(t *testing.T) {
	w := newWorld(t)
	udp := tcp(8080, 80)
	udp.Proto = "udp"
	a := w.attach(idA, tcp(8080, 80), udp)
	b := w.attach(idB)
	w.serve(a.NetNS, "A", 80)
	for _, proto := range []string{"tcp", "udp"} {
		w.reaches(w.outside, proto, hostAddress+":8080", "A "+outsideAddress)
		w.reaches("", proto, hostAddress+":8080", "A")
		w.reaches("", proto, "127.0.0.1:8080", "A "+w.m.Gateway().String())
		w.reaches("", proto, w.m.Gateway().String()+":8080", "A")
		w.reaches(b.NetNS, proto, hostAddress+":8080", "A")
		w.reaches(a.NetNS, proto, hostAddress+":8080", "A")
		w.reaches(b.NetNS, proto, a.IP.String()+":80", "A "+b.IP.String())
	}
}

func TestContainerReachesTheWorldMasqueraded(t *testing.T) {
	w := newWorld(t)
	a := w.attach(idA)
	w.serve(w.outside, "world", 7)
	w.reaches(a.NetNS, "tcp", outsideAddress+":7", "world "+hostAddress)
	w.reaches(a.NetNS, "udp", outsideAddress+":7", "world "+hostAddress)
}

func TestWhatIsNotPublishedIsNotReachedFromOutside(t *testing.T) {
	w := newWorld(t)
	local := tcp(8081, 80)
	local.HostIP = netip.MustParseAddr("127.0.0.1")
	a := w.attach(idA, tcp(8080, 80), local)
	w.serve(a.NetNS, "A", 80)
	w.serve(a.NetNS, "A", 81)
	w.serve("", "host", 9)
	w.fails(w.outside, "tcp", a.IP.String()+":81")
	// Not even a published one, by the container's own address: a binding to
	// one address of the host would otherwise protect nothing.
	w.fails(w.outside, "tcp", a.IP.String()+":80")
	w.fails(w.outside, "tcp", hostAddress+":8081")
	w.reaches("", "tcp", "127.0.0.1:8081", "A")
	w.reaches("", "tcp", a.IP.String()+":81", "A")

	// route_localnet must not open the host's 127.0.0.1 to containers.
	w.inNS(a.NetNS, func() {
		ip(t, "address", "del", "127.0.0.1/8", "dev", "lo")
		ip(t, "route", "add", "127.0.0.1/32", "via", a.Gateway.String(), "src", a.IP.String(), "onlink", "dev", "eth0")
		assert.Check(t, os.WriteFile("/proc/sys/net/ipv4/conf/eth0/route_localnet", []byte("1"), 0))
	})
	w.fails(a.NetNS, "tcp", "127.0.0.1:9")
	// It is the rule that stops it, not a mistake of this test.
	_, err := runProgram(t.Context(), "flush chain inet lrd guard\n", "nft", "-f", "-")
	assert.NilError(t, err)
	w.reaches(a.NetNS, "tcp", "127.0.0.1:9", "host")
}

func TestReapplyKeepsConnections(t *testing.T) {
	w := newWorld(t)
	a := w.attach(idA, tcp(8080, 80))
	w.serve(a.NetNS, "A", 80)
	conns := []net.Conn{}
	for from, address := range map[string]string{w.outside: hostAddress, "": "127.0.0.1"} {
		c, err := w.dial(from, "tcp", address+":8080")
		assert.NilError(t, err)
		defer c.Close()
		_, err = readLine(c)
		assert.NilError(t, err)
		conns = append(conns, c)
	}
	alive := func() {
		t.Helper()
		for _, c := range conns {
			_ = c.SetDeadline(time.Now().Add(patience))
			_, err := c.Write([]byte("again\n"))
			assert.NilError(t, err)
			line, err := readLine(c)
			assert.NilError(t, err)
			assert.Equal(t, line, "again")
		}
	}
	assert.NilError(t, w.m.Reapply(t.Context()))
	alive()
	w.attach(idB, tcp(8090, 80))
	alive()

	// What a restart of nftables.service does.
	_, err := runProgram(t.Context(), "flush ruleset\n", "nft", "-f", "-")
	assert.NilError(t, err)
	w.fails(w.outside, "tcp", hostAddress+":8080")
	assert.NilError(t, w.m.Reapply(t.Context()))
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
}

func TestDetachLeavesNothing(t *testing.T) {
	w := newWorld(t)
	a := w.attach(idA, tcp(8080, 80))
	assert.NilError(t, w.m.Detach(t.Context(), idA))
	assert.NilError(t, w.m.Detach(t.Context(), idA), "a second time")
	_, err := os.Stat(a.NetNS)
	assert.Check(t, os.IsNotExist(err))
	_, err = netlink.LinkByName(a.HostLink)
	assert.Check(t, err != nil)
	rules, err := runProgram(t.Context(), "", "nft", "list", "table", "inet", "lrd")
	assert.NilError(t, err)
	assert.Check(t, !strings.Contains(string(rules), "8080"))
	// The port is free, the address is not given again at once.
	again := w.attach(idA, tcp(8080, 80))
	assert.Check(t, again.IP != a.IP)
}

func TestUDPClientFollowsThePort(t *testing.T) {
	w := newWorld(t)
	udp := PortBinding{Proto: "udp", HostPort: 8080, ContainerPort: 80}
	a := w.attach(idA, udp)
	w.serve(a.NetNS, "A", 80)
	c, err := w.dial(w.outside, "udp", hostAddress+":8080")
	assert.NilError(t, err)
	defer c.Close()
	talk := func(want string) {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err := c.Write([]byte("?"))
		assert.NilError(t, err)
		line, err := readLine(c)
		assert.NilError(t, err)
		assert.Check(t, cmp.Contains(line, want))
	}
	talk("A")
	assert.NilError(t, w.m.Detach(t.Context(), idA))
	b := w.attach(idB, udp)
	w.serve(b.NetNS, "B", 80)
	talk("B")
}

func TestAttachUnwindsAndClearsLeftovers(t *testing.T) {
	w := newWorld(t)
	// A daemon that was killed between two steps left these.
	path := netNSPath(w.options.RunDir, idA)
	assert.NilError(t, makeNetNS(path))
	ip(t, "link", "add", hostLink(idA, BuiltinID("bridge")), "type", "veth", "peer", "name", "left0")
	a := w.attach(idA, tcp(8080, 80))
	_, err := w.m.Attach(t.Context(), Request{ContainerID: idA, Joins: []Join{{Network: "bridge"}}})
	assert.Check(t, errdefs.IsConflict(err), "%v", err)
	_, err = w.m.Attach(t.Context(), Request{ContainerID: idB, Joins: []Join{{Network: "bridge"}}, Ports: []PortBinding{tcp(8081, 80), tcp(8080, 80)}})
	assert.Check(t, errdefs.IsConflict(err))
	assert.ErrorContains(t, err, "Bind for 0.0.0.0:8080 failed: port is already allocated")

	l, err := net.Listen("tcp4", "127.0.0.1:8082")
	assert.NilError(t, err)
	defer l.Close()
	_, err = w.m.Attach(t.Context(), Request{ContainerID: idB, Joins: []Join{{Network: "bridge"}}, Ports: []PortBinding{tcp(8081, 80), tcp(8082, 80)}})
	assert.Check(t, errdefs.IsConflict(err))
	assert.ErrorContains(t, err, "address already in use")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.m.Attach(ctx, Request{ContainerID: idB, Joins: []Join{{Network: "bridge"}}})
	assert.Check(t, errors.Is(err, context.Canceled), "%v", err)
	_, known := w.m.Sandbox(idB)
	assert.Check(t, !known)
	assert.Check(t, !isNetNS(netNSPath(w.options.RunDir, idB)))
	w.serve(a.NetNS, "A", 80)
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
}

func TestIsolatedHasLoopbackAlone(t *testing.T) {
	w := newWorld(t)
	e, err := w.m.Attach(t.Context(), Request{ContainerID: idA})
	assert.NilError(t, err)
	w.serve(e.NetNS, "A", 80)
	w.reaches(e.NetNS, "tcp", "127.0.0.1:80", "A")
	w.fails(e.NetNS, "tcp", hostAddress+":80")
	w.open()
	assert.NilError(t, w.m.Restore(t.Context(), []Sandbox{e}))
}

func TestRestoreAfterARestart(t *testing.T) {
	w := newWorld(t)
	a := w.attach(idA, tcp(8080, 80), tcp(0, 81))
	w.serve(a.NetNS, "A", 80)
	c, err := w.dial(w.outside, "tcp", hostAddress+":8080")
	assert.NilError(t, err)
	defer c.Close()

	w.open()
	// There is no gap: until Restore the last daemon's rules are in force.
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
	assert.NilError(t, w.m.Restore(t.Context(), []Sandbox{a.Sandbox}))
	_ = c.SetDeadline(time.Now().Add(patience))
	_, err = readLine(c)
	assert.NilError(t, err)
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
	_, err = w.m.Attach(t.Context(), Request{ContainerID: idB, Joins: []Join{{Network: "bridge"}}, Ports: []PortBinding{tcp(8080, 80)}})
	assert.Check(t, errdefs.IsConflict(err))
	b := w.attach(idB)
	assert.Check(t, b.IP != a.IP)
}

func TestRestoreWithALostBridge(t *testing.T) {
	w := newWorld(t)
	a := w.attach(idA, tcp(8080, 80))
	w.serve(a.NetNS, "A", 80)
	assert.NilError(t, removeLink(w.m.builtin.Bridge))
	w.fails(w.outside, "tcp", hostAddress+":8080")
	w.open()
	assert.NilError(t, w.m.Restore(t.Context(), []Sandbox{a.Sandbox}))
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
	w.reaches("", "tcp", "127.0.0.1:8080", "A")
}

func TestRestoreWithALostEndpoint(t *testing.T) {
	w := newWorld(t)
	a, b := w.attach(idA), w.attach(idB)
	assert.NilError(t, removeNetNS(a.NetNS))
	assert.NilError(t, removeLink(b.HostLink))
	w.open()
	err := w.m.Restore(t.Context(), []Sandbox{a.Sandbox, b.Sandbox})
	var verdict *RestoreError
	assert.Assert(t, errors.As(err, &verdict))
	for _, id := range []string{idA, idB} {
		var gone *EndpointGoneError
		assert.Check(t, errors.As(verdict.Containers[id], &gone), "%v", verdict.Containers[id])
		_, known := w.m.Sandbox(id)
		assert.Check(t, known, "its address must stay taken")
	}
}

func TestRestoreWithAChangedBip(t *testing.T) {
	w := newWorld(t)
	a := w.attach(idA, tcp(8080, 80))
	w.serve(a.NetNS, "A", 80)
	w.serve(w.outside, "world", 7)
	old := w.m.builtin.Subnet4().address()

	w.options.Bip = netip.MustParsePrefix("10.77.0.1/24")
	w.open()
	err := w.m.Restore(t.Context(), []Sandbox{a.Sandbox})
	var verdict *RestoreError
	assert.Assert(t, errors.As(err, &verdict))
	var changed *BridgeChangedError
	assert.Assert(t, errors.As(verdict.Containers[idA], &changed))
	assert.Equal(t, changed.Had, old)
	assert.Equal(t, changed.Have, w.options.Bip)
	assert.Check(t, errdefs.IsFailedPrecondition(err))

	// The old container and a new one both work, and with each other.
	b := w.attach(idB, tcp(8090, 80))
	w.serve(b.NetNS, "B", 80)
	assert.Check(t, w.options.Bip.Contains(b.IP))
	w.reaches(w.outside, "tcp", hostAddress+":8080", "A")
	w.reaches(w.outside, "tcp", hostAddress+":8090", "B")
	w.reaches("", "tcp", "127.0.0.1:8080", "A")
	w.reaches(a.NetNS, "tcp", hostAddress+":8090", "B")
	w.reaches(a.NetNS, "tcp", outsideAddress+":7", "world "+hostAddress)

	// With its last container the old address goes, and nobody else's does.
	ip(t, "address", "add", "192.0.2.77/24", "dev", w.m.builtin.Bridge)
	assert.NilError(t, w.m.Detach(t.Context(), idA))
	link, err := bridgeLink(w.m.builtin.Bridge)
	assert.NilError(t, err)
	have, err := addresses(link)
	assert.NilError(t, err)
	assert.Check(t, !slices.Contains(have, old))
	assert.Check(t, slices.Contains(have, netip.MustParsePrefix("192.0.2.77/24")))
	w.reaches(w.outside, "tcp", hostAddress+":8090", "B")
}

func TestOpenRefusesALinkThatIsNoBridge(t *testing.T) {
	w := newWorld(t)
	ip(t, "link", "add", "dumb0", "type", "veth", "peer", "name", "dumb1")
	t.Cleanup(func() { ip(t, "link", "del", "dumb0") })
	o := w.options
	o.Bridge = "dumb0"
	_, err := Open(t.Context(), o)
	assert.Check(t, errdefs.IsFailedPrecondition(err), "%v", err)
	assert.ErrorContains(t, err, "is not a bridge but a veth")
}

func TestWarnings(t *testing.T) {
	w := newWorld(t)
	assert.Check(t, cmp.Len(w.m.Warnings(), 0))
	_, err := runProgram(t.Context(), "table inet firewall {\n chain onward {\n type filter hook forward priority 0; policy drop;\n }\n}\n", "nft", "-f", "-")
	assert.NilError(t, err)
	ip(t, "route", "add", "172.30.7.0/24", "dev", "out0")
	assert.NilError(t, w.m.Reapply(t.Context()))
	warnings := strings.Join(w.m.Warnings(), "\n")
	assert.Check(t, cmp.Contains(warnings, "inet firewall onward drops forwarded packets"))
	assert.Check(t, cmp.Contains(warnings, "overlaps the host's route to 172.30.7.0/24"))
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	const n = 24
	endpoints := make([]Sandbox, n)
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			id := fmt.Sprintf("%012x%052x", i, i)
			endpoints[i], errs[i] = w.m.Attach(t.Context(), Request{ContainerID: id, Joins: []Join{{Network: "bridge"}}, Ports: []PortBinding{tcp(0, 80)}})
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for i, e := range endpoints {
		assert.NilError(t, errs[i])
		for _, key := range []string{e.Endpoints[0].IP.String(), fmt.Sprint(e.Ports[0].HostPort), e.Endpoints[0].MAC} {
			assert.Check(t, !seen[key], "%s was given twice", key)
			seen[key] = true
		}
	}
	last := endpoints[n-1]
	w.serve(last.NetNS, "last", 80)
	w.reaches(w.outside, "tcp", fmt.Sprintf("%s:%d", hostAddress, last.Ports[0].HostPort), "last")
	for _, e := range endpoints {
		all.Go(func() { assert.Check(t, w.m.Detach(context.Background(), e.ContainerID)) })
	}
	all.Wait()
}
