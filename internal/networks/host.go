package networks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// programTimeout ends an nft or iptables that does not come back; both take
// some ten milliseconds, and wait for each other's locks.
const programTimeout = 30 * time.Second

// runProgram is the Runner that runs.
func runProgram(ctx context.Context, input, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if said := strings.TrimSpace(errs.String()); err != nil && said != "" {
		err = fmt.Errorf("%s: %w: %s", name, err, said)
	} else if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return out.Bytes(), err
}

// ensureHost makes the host forward packets.
func ensureHost() error { return setSysctl("net/ipv4/ip_forward", "1") }

// bridgeSettings lets the answers to what
// the host sent from 127.0.0.1 come back over a network's bridge, and, where the network has IPv6, makes the host forward
// that.
func bridgeSettings(n Network) error {
	err := setSysctl("net/ipv4/conf/"+n.Bridge+"/route_localnet", "1")
	if _, v6 := n.Subnet6(); err != nil || !v6 {
		return err
	}
	return errors.Join(
		setSysctl("net/ipv6/conf/"+n.Bridge+"/accept_ra", "0"),
		setSysctl("net/ipv6/conf/"+n.Bridge+"/disable_ipv6", "0"),
		forwardIPv6(),
	)
}

// forwardIPv6 makes the host forward IPv6. A host that forwards no longer listens to routers, and would so lose its own
// way out: interfaces that do are told to go on (accept_ra=2, Documentation/networking/ip-sysctl).
func forwardIPv6() error {
	const all = "net/ipv6/conf/all/forwarding"
	if have, err := os.ReadFile(sysctlPath(all)); err == nil && strings.TrimSpace(string(have)) == "1" {
		return nil
	}
	links, err := os.ReadDir(sysctlPath("net/ipv6/conf"))
	if err != nil {
		return fmt.Errorf("cannot make the host forward IPv6: %w", err)
	}
	for _, l := range links {
		name := "net/ipv6/conf/" + l.Name() + "/accept_ra"
		if have, err := os.ReadFile(sysctlPath(name)); err == nil && strings.TrimSpace(string(have)) == "1" {
			if err := setSysctl(name, "2"); err != nil {
				return err
			}
		}
	}
	return setSysctl(all, "1")
}

func sysctlPath(name string) string { return "/proc/sys/" + name }

// setSysctl writes a setting, unless it is so already: writing is not free, ip_forward resets others each time.
func setSysctl(name, value string) error {
	if have, err := os.ReadFile(sysctlPath(name)); err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	if err := os.WriteFile(sysctlPath(name), []byte(value), 0); err != nil {
		return fmt.Errorf("cannot set up the host's network: %w", err)
	}
	return nil
}

// ephemeralPorts is the range that the kernel takes free ports from (ip(7)).
func ephemeralPorts() (first, last uint16) {
	content, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if _, err := fmt.Sscan(string(content), &first, &last); err == nil && 0 < first && first <= last {
			return first, last
		}
	}
	// The range of RFC 6335.
	return 49152, 65535
}

// bindProbe tries whether a port is free by binding it for a moment.
func bindProbe(proto string, at netip.AddrPort) error {
	family := "4"
	if at.Addr().Is6() {
		family = "6" // and not IPv4 at the same time: Go sets IPV6_V6ONLY
	}
	var err error
	switch proto {
	case "udp":
		var c *net.UDPConn
		if c, err = net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(at)); err == nil {
			return c.Close()
		}
	case "tcp":
		var l *net.TCPListener
		if l, err = net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(at)); err == nil {
			return l.Close()
		}
	default:
		return nil // sctp: a host that has no such module has nobody listening either
	}
	// The address is in the caller's sentence.
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// forgetFlows makes the kernel forget what conntrack knows about a container's
// published udp ports. A udp client that goes on sending would otherwise be
// sent to the old place for ever; tcp ends and begins anew. The rules are right
// either way, so a failure is only told.
func (m *Manager) forgetFlows(s Sandbox) {
	for _, family := range []netlink.InetFamily{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		var filters []netlink.CustomConntrackFilter
		for _, p := range s.Ports {
			if p.Proto != "udp" || p.hostIP().Is6() != (family == netlink.FAMILY_V6) {
				continue
			}
			f := &netlink.ConntrackFilter{}
			if errors.Join(f.AddProtocol(unix.IPPROTO_UDP), f.AddPort(netlink.ConntrackOrigDstPort, p.HostPort)) == nil {
				filters = append(filters, f)
			}
		}
		// Looking for them reads the whole table, which is large on a busy host.
		if len(filters) == 0 {
			continue
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, filters...); err != nil {
			m.log.Debug("cannot clear tracked connections", "container", s.ContainerID, "error", err)
		}
	}
}

// checkRoutes warns of a route of the host that the default network's subnet
// hides, or is hidden by.
func (m *Manager) checkRoutes() string {
	bridge, err := bridgeLink(m.builtin.Bridge)
	if err != nil {
		return ""
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return ""
	}
	for _, r := range routes {
		p, ok := toPrefix(r.Dst)
		if ok && p.Bits() > 0 && r.LinkIndex != bridge.Attrs().Index && p.Overlaps(m.builtin.Subnet4().Subnet) {
			return fmt.Sprintf("the subnet %s of %s overlaps the host's route to %s: set bip to another address", m.builtin.Subnet4().Subnet, m.builtin.Bridge, p)
		}
	}
	return ""
}
