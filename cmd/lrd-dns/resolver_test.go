package main

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/names"
)

// container makes a network namespace with a process in it, and gives its path.
func container(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: needs root, to make network namespaces")
	}
	p := exec.Command("sh", "-c", "ip link set lo up && echo up && exec cat")
	p.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET}
	stdin, err := p.StdinPipe() // its end ends the process
	assert.NilError(t, err)
	out, err := p.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, p.Start())
	t.Cleanup(func() { stdin.Close(); _ = p.Wait() })
	up := make([]byte, 3)
	_, err = out.Read(up)
	assert.NilError(t, err)
	return filepath.Join("/proc", strconv.Itoa(p.Process.Pid), "ns/net")
}

// ask asks from inside of a container. The answer's records are sorted texts without the name asked for.
func ask(t *testing.T, netNS, network, name string, kind uint16) (rcode int, records []string) {
	t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	client := dns.Client{Net: network, Timeout: 10 * time.Second}
	var conn net.Conn
	assert.NilError(t, inNetNS(netNS, func() (err error) {
		conn, err = net.Dial(network, netip.AddrPortFrom(names.Server, names.Port).String())
		return err
	}))
	defer conn.Close()
	reply, _, err := client.ExchangeWithConn(q, &dns.Conn{Conn: conn})
	assert.NilError(t, err, "%s %s", network, name)
	assert.Check(t, reply.RecursionAvailable || reply.Rcode != dns.RcodeSuccess)
	for _, rr := range reply.Answer {
		fields := strings.Fields(rr.String())
		records = append(records, fields[len(fields)-1])
	}
	slices.Sort(records)
	return reply.Rcode, records
}

func testResolver(t *testing.T) *resolver {
	t.Helper()
	r := newResolver(t.TempDir(), slog.New(slog.DiscardHandler))
	t.Cleanup(r.close)
	return r
}

func place(network, address string, called ...string) names.Network {
	return names.Network{ID: network, Name: network, Names: called, IPv4: netip.MustParseAddr(address)}
}

func linked(n names.Network, links map[string]string) names.Network {
	n.Links = links
	return n
}

func TestContainersFindEachOther(t *testing.T) {
	r := testResolver(t)
	web, db, far := container(t), container(t), container(t)
	assert.NilError(t, names.Write(r.dir, names.Container{ID: "web", NetNS: web, Internal: true, Networks: []names.Network{
		place("front", "10.0.0.2", "web"), linked(place("back", "10.1.0.2", "web"), map[string]string{"Shop": "db", "lost": "far"}),
	}}))
	data := place("back", "10.1.0.3", "db", "Data.Base")
	data.IPv6 = netip.MustParseAddr("fd00::3")
	assert.NilError(t, names.Write(r.dir, names.Container{ID: "db", NetNS: db, Internal: true, Networks: []names.Network{data}}))
	assert.NilError(t, names.Write(r.dir, names.Container{ID: "far", NetNS: far, Internal: true, Networks: []names.Network{place("other", "10.2.0.2", "far", "db")}}))
	assert.NilError(t, r.scan())

	for _, network := range []string{"udp", "tcp"} {
		for _, tc := range []struct {
			from, name string
			kind       uint16
			rcode      int
			want       []string
		}{
			{web, "db", dns.TypeA, dns.RcodeSuccess, []string{"10.1.0.3"}},
			{web, "DB.back", dns.TypeA, dns.RcodeSuccess, []string{"10.1.0.3"}},
			{web, "data.base", dns.TypeA, dns.RcodeSuccess, []string{"10.1.0.3"}},
			{web, "db", dns.TypeAAAA, dns.RcodeSuccess, []string{"fd00::3"}},
			{web, "web", dns.TypeAAAA, dns.RcodeSuccess, nil}, // there is such a name, without such an address
			{web, "db", dns.TypeMX, dns.RcodeSuccess, nil},
			{web, "shop", dns.TypeA, dns.RcodeSuccess, []string{"10.1.0.3"}}, // its own word for db
			{db, "shop", dns.TypeA, dns.RcodeNameError, nil},                 // and nobody else's
			{web, "lost", dns.TypeA, dns.RcodeNameError, nil},
			{web, "db.front", dns.TypeA, dns.RcodeNameError, nil},
			{web, "far", dns.TypeA, dns.RcodeNameError, nil},
			{web, "example.com", dns.TypeA, dns.RcodeNameError, nil},
			{db, "web", dns.TypeA, dns.RcodeSuccess, []string{"10.1.0.2"}}, // not its address in front
			{far, "db", dns.TypeA, dns.RcodeSuccess, []string{"10.2.0.2"}},
			{far, "web", dns.TypeA, dns.RcodeNameError, nil},
			{web, "3.0.1.10.in-addr.arpa", dns.TypePTR, dns.RcodeSuccess, []string{"db.back."}},
			{web, "2.0.2.10.in-addr.arpa", dns.TypePTR, dns.RcodeNameError, nil},
			{db, "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", dns.TypePTR, dns.RcodeSuccess, []string{"db.back."}},
		} {
			rcode, got := ask(t, tc.from, network, tc.name, tc.kind)
			assert.Check(t, is.Equal(rcode, tc.rcode), "%s %s", network, tc.name)
			assert.Check(t, is.DeepEqual(got, tc.want), "%s %s", network, tc.name)
		}
	}
}

func TestNoStaleName(t *testing.T) {
	r := testResolver(t)
	asker := container(t)
	assert.NilError(t, names.Write(r.dir, names.Container{ID: "asker", NetNS: asker, Internal: true, Networks: []names.Network{place("n", "10.0.0.2", "asker")}}))
	// A service of two.
	for id, address := range map[string]string{"one": "10.0.0.3", "two": "10.0.0.4"} {
		assert.NilError(t, names.Write(r.dir, names.Container{ID: id, NetNS: asker + "/gone", Internal: true, Networks: []names.Network{place("n", address, id, "service")}}))
	}
	want := func(name string, addresses ...string) {
		t.Helper()
		_ = r.scan() // of the two that have no namespace any more; their names are good
		_, got := ask(t, asker, "udp", name, dns.TypeA)
		assert.DeepEqual(t, got, addresses)
	}
	want("service", "10.0.0.3", "10.0.0.4")
	first := map[string]bool{}
	for range 8 {
		first[r.reply("asker", new(dns.Msg).SetQuestion("service.", dns.TypeA), nil, false).Answer[0].(*dns.A).A.String()] = true
	}
	assert.Check(t, is.Len(first, 2), "they do not take turns")

	// What the unit of a container does when that ends, and when it begins again.
	mark := names.EndedMark(r.dir, "one")
	assert.NilError(t, os.WriteFile(mark, nil, 0o600))
	want("service", "10.0.0.4")
	want("one")
	assert.NilError(t, os.Remove(mark))
	want("service", "10.0.0.3", "10.0.0.4")
	// It comes back at another place.
	assert.NilError(t, names.Write(r.dir, names.Container{ID: "one", NetNS: asker + "/gone", Internal: true, Networks: []names.Network{place("n", "10.0.0.9", "one")}}))
	want("one", "10.0.0.9")
	want("service", "10.0.0.4")
	assert.NilError(t, names.Remove(r.dir, "two"))
	want("service")
}

// TestNamespaceIsAnotherOne: the same container, started again, has another namespace under the same path.
func TestNamespaceIsAnotherOne(t *testing.T) {
	r := testResolver(t)
	path := filepath.Join(t.TempDir(), "ns")
	for range 2 {
		ns := container(t)
		_ = os.Remove(path)
		assert.NilError(t, os.Symlink(ns, path))
		assert.NilError(t, names.Write(r.dir, names.Container{ID: "c", NetNS: path, Internal: true, Networks: []names.Network{place("n", "10.0.0.2", "c")}}))
		assert.NilError(t, r.scan())
		_, got := ask(t, ns, "tcp", "c", dns.TypeA)
		assert.DeepEqual(t, got, []string{"10.0.0.2"})
	}
}

// TestOtherNames has a name server on the host, and one in the container.
func TestOtherNames(t *testing.T) {
	r := testResolver(t)
	ns := container(t)
	serve := func(at string, answer string) string {
		pc, err := net.ListenPacket("udp4", at)
		assert.NilError(t, err)
		s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			m.RecursionAvailable = true
			rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A " + answer)
			m.Answer = append(m.Answer, rr)
			_ = w.WriteMsg(m)
		})}
		go func() { _ = s.ActivateAndServe() }()
		t.Cleanup(func() { pc.Close() })
		return pc.LocalAddr().String()
	}
	// On the host nobody may take port 53: only what the resolver would ask is looked at.
	r.up.path = filepath.Join(t.TempDir(), "resolv.conf")
	assert.NilError(t, os.WriteFile(r.up.path, []byte("search example\nnameserver 127.0.0.53\nnameserver ::1\n"), 0o600))
	hosts, err := r.up.hosts()
	assert.NilError(t, err)
	assert.Check(t, slices.Equal(hosts, []netip.Addr{netip.MustParseAddr("127.0.0.53"), netip.MustParseAddr("::1")}))
	assert.NilError(t, os.WriteFile(r.up.path, []byte("nameserver 192.0.2.1 # moved\n"), 0o600))
	hosts, err = r.up.hosts()
	assert.NilError(t, err)
	assert.Check(t, slices.Equal(hosts, []netip.Addr{netip.MustParseAddr("192.0.2.1")}))

	assert.NilError(t, inNetNS(ns, func() error { serve("127.0.0.1:53", "192.0.2.7"); return nil }))
	c := names.Container{ID: "c", NetNS: ns, Servers: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Networks: []names.Network{place("n", "10.0.0.2", "c")}}
	assert.NilError(t, names.Write(r.dir, c))
	assert.NilError(t, r.scan())
	_, got := ask(t, ns, "udp", "example.com", dns.TypeA)
	assert.DeepEqual(t, got, []string{"192.0.2.7"})
	_, got = ask(t, ns, "udp", "c", dns.TypeA)
	assert.DeepEqual(t, got, []string{"10.0.0.2"})
	// Nobody answers there.
	c.Servers = []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	assert.NilError(t, names.Write(r.dir, c))
	assert.NilError(t, r.scan())
	rcode, _ := ask(t, ns, "udp", "example.com", dns.TypeA)
	assert.Equal(t, rcode, dns.RcodeServerFailure)
}

// TestControl asks at the socket, as the daemon does, and changes files behind the resolver's back.
func TestControl(t *testing.T) {
	r := testResolver(t)
	socket := filepath.Join(t.TempDir(), "dns.sock")
	l, err := net.Listen("unix", socket)
	assert.NilError(t, err)
	changes, err := watch(r.dir)
	assert.NilError(t, err)
	done := make(chan struct{}, 2)
	go func() { r.answer(l); done <- struct{}{} }()
	go func() { r.follow(changes); done <- struct{}{} }()
	t.Cleanup(func() { l.Close(); changes.Close(); <-done; <-done })

	assert.NilError(t, names.Sync(t.Context(), socket))
	assert.NilError(t, names.Write(r.dir, names.Container{ID: "c", NetNS: container(t), Networks: []names.Network{place("n", "10.0.0.2", "c")}}))
	assert.NilError(t, names.Sync(t.Context(), socket))
	_, known := r.index.Load().lookup("c", "c.", false)
	assert.Check(t, known)
	assert.NilError(t, os.WriteFile(names.EndedMark(r.dir, "c"), nil, 0o600))
	for deadline := time.Now().Add(20 * time.Second); known; time.Sleep(time.Millisecond) {
		_, known = r.index.Load().lookup("c", "c.", false)
		assert.Assert(t, time.Now().Before(deadline), "the mark was not seen")
	}
	// One whose namespace is gone is no reason to make others wait; one that cannot be read is told.
	assert.NilError(t, names.Write(r.dir, names.Container{ID: "lost", NetNS: "/nowhere"}))
	assert.NilError(t, names.Sync(t.Context(), socket))
	assert.NilError(t, os.WriteFile(filepath.Join(r.dir, "broken.json"), []byte("{"), 0o600))
	assert.ErrorContains(t, names.Sync(t.Context(), socket), "cannot read the names of container broken")
}

// TestOneContainerCannotTakeAll: neither its questions nor its connections keep the resolver from others.
func TestOneContainerCannotTakeAll(t *testing.T) {
	r := testResolver(t)
	for _, id := range []string{"greedy", "other"} {
		ns := container(t)
		assert.NilError(t, names.Write(r.dir, names.Container{ID: id, NetNS: ns, Servers: []netip.Addr{netip.MustParseAddr("127.0.0.2")}, Networks: []names.Network{place("n", "10.0.0.2", id)}}))
	}
	assert.NilError(t, r.scan())
	greedy := r.guests["greedy"]
	for range maxForwardedGuest {
		assert.Assert(t, greedy.waiting.take())
	}
	q := new(dns.Msg).SetQuestion("example.com.", dns.TypeA)
	assert.Equal(t, r.reply("greedy", q, greedy.waiting, false).Rcode, dns.RcodeServerFailure)
	assert.Equal(t, r.reply("greedy", new(dns.Msg).SetQuestion("other.", dns.TypeA), greedy.waiting, false).Rcode, dns.RcodeSuccess)

	at := netip.AddrPortFrom(names.Server, names.Port).String()
	for range maxConnections {
		assert.NilError(t, inNetNS(greedy.spec.NetNS, func() error {
			c, err := net.Dial("tcp", at)
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		}))
	}
	_, got := ask(t, greedy.spec.NetNS, "udp", "other", dns.TypeA)
	assert.DeepEqual(t, got, []string{"10.0.0.2"})
	_, got = ask(t, r.guests["other"].spec.NetNS, "tcp", "greedy", dns.TypeA)
	assert.DeepEqual(t, got, []string{"10.0.0.2"})
}

// failingListener fails some times before it takes connections.
type failingListener struct {
	net.Listener
	fails atomic.Int32
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.fails.Add(-1) >= 0 {
		return nil, syscall.EMFILE
	}
	return l.Listener.Accept()
}

// TestControlAfterAFailure: a connection that could not be taken is no reason to answer nobody any more.
func TestControlAfterAFailure(t *testing.T) {
	r := testResolver(t)
	socket := filepath.Join(t.TempDir(), "dns.sock")
	l, err := net.Listen("unix", socket)
	assert.NilError(t, err)
	f := &failingListener{Listener: l}
	f.fails.Store(2)
	done := make(chan struct{})
	go func() { r.answer(f); close(done) }()
	t.Cleanup(func() { l.Close(); <-done })
	assert.NilError(t, names.Sync(t.Context(), socket))
}
