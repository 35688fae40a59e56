package networks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// inside marks the test binary's second self, which runs in namespaces of its
// own: these tests make bridges and rules and must never make them on the
// machine's own network.
const inside = "LRD_TEST_OWN_NETNS"

func TestMain(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), inside+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	err := self.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "cannot run the tests in a network namespace, tests that need one are skipped:", err)
		os.Exit(m.Run())
	}
}

const (
	hostAddress    = "198.51.100.1"
	outsideAddress = "198.51.100.2"

	hostAddress6    = "2001:db8::1"
	outsideAddress6 = "2001:db8::2"

	idA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	idB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// world is a host, which is the test's own network namespace, and a machine
// outside of it.
type world struct {
	t       *testing.T
	m       *Manager
	options Options
	outside string // path of its namespace
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("SKIPPED: needs root, to make network namespaces")
	}
	for _, program := range []string{"nft", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: needs %s", program)
		}
	}
	w := &world{t: t, outside: filepath.Join(t.TempDir(), "outside")}
	assert.NilError(t, makeNetNS(w.outside))
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "out0", "type", "veth", "peer", "name", "world0")
	t.Cleanup(func() {
		ip(t, "link", "del", "out0")
		assert.Check(t, removeNetNS(w.outside))
	})
	ip(t, "address", "add", hostAddress+"/24", "dev", "out0")
	ip(t, "address", "add", hostAddress6+"/64", "dev", "out0", "nodad")
	ip(t, "link", "set", "out0", "up")
	ns, err := netns.GetFromPath(w.outside)
	assert.NilError(t, err)
	defer ns.Close()
	peer, err := netlink.LinkByName("world0")
	assert.NilError(t, err)
	assert.NilError(t, netlink.LinkSetNsFd(peer, int(ns)))
	w.inNS(w.outside, func() {
		assert.Check(t, os.WriteFile("/proc/sys/net/ipv6/conf/world0/disable_ipv6", []byte("0"), 0))
		ip(t, "address", "add", outsideAddress+"/24", "dev", "world0")
		ip(t, "address", "add", outsideAddress6+"/64", "dev", "world0", "nodad")
		ip(t, "link", "set", "world0", "up")
		// A neighbour that routes the containers' subnet by way of the host.
		ip(t, "route", "add", "172.30.0.0/16", "via", hostAddress)
	})
	w.options = Options{RunDir: filepath.Join(t.TempDir(), "netns"), DataDir: filepath.Join(t.TempDir(), "networks"), NamesDir: filepath.Join(t.TempDir(), "names")}
	w.open()
	t.Cleanup(func() {
		for _, s := range w.m.Sandboxes() {
			assert.Check(t, w.m.Detach(context.Background(), s.ContainerID))
		}
		for _, n := range w.m.Networks() {
			assert.Check(t, removeLink(n.Bridge))
		}
		_, err := runProgram(context.Background(), "flush ruleset\n", "nft", "-f", "-")
		assert.Check(t, err)
	})
	return w
}

// open is a start of the daemon.
func (w *world) open() {
	w.t.Helper()
	m, err := Open(w.t.Context(), w.options)
	assert.NilError(w.t, err)
	w.m = m
}

// at is a container's place in the default network, as most tests need no other.
type at struct {
	Sandbox
	Endpoint
}

func (w *world) attach(id string, ports ...PortBinding) at {
	w.t.Helper()
	s := w.join(id, ports, Join{Network: "bridge"})
	return at{s, s.Endpoints[0]}
}

func (w *world) join(id string, ports []PortBinding, joins ...Join) Sandbox {
	w.t.Helper()
	s, err := w.m.Attach(w.t.Context(), Request{ContainerID: id, Ports: ports, Joins: joins})
	assert.NilError(w.t, err)
	return s
}

// inNS runs f on a thread in a network namespace; "" is the host's.
func (w *world) inNS(path string, f func()) {
	w.t.Helper()
	if path == "" {
		f()
		return
	}
	assert.NilError(w.t, inNetNS(path, func() error { f(); return nil }))
}

// serve answers every tcp connection and udp datagram at a port of a namespace
// with a name, and echoes lines after it; the tcp answer begins with who
// asked.
func (w *world) serve(path, name string, port int) {
	w.t.Helper()
	var l net.Listener
	var p net.PacketConn
	var err error
	w.inNS(path, func() {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			p, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		}
	})
	assert.NilError(w.t, err)
	var served sync.WaitGroup
	w.t.Cleanup(func() { l.Close(); p.Close(); served.Wait() })
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
				fmt.Fprintf(c, "%s %s\n", name, from)
				_, _ = io.Copy(c, c)
			})
		}
	})
	served.Go(func() {
		buf := make([]byte, 512)
		for {
			_, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(from.String())
			_, _ = p.WriteTo([]byte(name+" "+host+"\n"), from)
		}
	})
}

// What is answered is waited for, on a busy machine too; what is dropped is
// given up soon, since an answer would come at once.
const (
	patience   = time.Minute
	impatience = 300 * time.Millisecond
)

// ask connects from a namespace and gives the first line of the answer.
func (w *world) ask(path, proto, address string, timeout time.Duration) (string, error) {
	c, err := w.dialFor(path, proto, address, timeout)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(timeout))
	if _, err := c.Write([]byte("?")); err != nil {
		return "", err
	}
	return readLine(c)
}

func (w *world) dial(path, proto, address string) (net.Conn, error) {
	return w.dialFor(path, proto, address, patience)
}

func (w *world) dialFor(path, proto, address string, timeout time.Duration) (c net.Conn, err error) {
	w.inNS(path, func() { c, err = net.DialTimeout(proto, address, timeout) })
	return c, err
}

func readLine(c net.Conn) (string, error) {
	buf := make([]byte, 256)
	n, err := c.Read(buf)
	line, _, _ := strings.Cut(string(buf[:n]), "\n")
	return line, err
}

func (w *world) reaches(from, proto, address, want string) {
	w.t.Helper()
	got, err := w.ask(from, proto, address, patience)
	assert.Check(w.t, err, "%s %s", proto, address)
	assert.Check(w.t, cmp.Contains(got, want), "%s %s", proto, address)
}

func (w *world) fails(from, proto, address string) {
	w.t.Helper()
	got, err := w.ask(from, proto, address, impatience)
	assert.Check(w.t, err != nil, "%s %s answered %q", proto, address, got)
}

// ip runs ip(8) in the calling thread's network namespace.
func ip(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	assert.Check(t, err, "ip %s: %s", strings.Join(args, " "), out)
}

func tcp(hostPort, containerPort uint16) PortBinding {
	return PortBinding{Proto: "tcp", HostPort: hostPort, ContainerPort: containerPort}
}
