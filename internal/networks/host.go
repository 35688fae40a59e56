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

// hostSettings makes the host forward packets, and lets the answers to what
// the host sent from 127.0.0.1 come back over the bridge.
func hostSettings(bridge string) error {
	for _, s := range []string{
		"/proc/sys/net/ipv4/ip_forward",
		"/proc/sys/net/ipv4/conf/" + bridge + "/route_localnet",
	} {
		// Writing what is there already is not free: ip_forward resets other
		// settings each time.
		if have, err := os.ReadFile(s); err == nil && strings.TrimSpace(string(have)) == "1" {
			continue
		}
		if err := os.WriteFile(s, []byte("1"), 0); err != nil {
			return fmt.Errorf("cannot set up the host's network: %w", err)
		}
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
	var err error
	if proto == "udp" {
		var c *net.UDPConn
		if c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err == nil {
			return c.Close()
		}
	} else {
		var l *net.TCPListener
		if l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at)); err == nil {
			return l.Close()
		}
	}
	// The address is in the caller's sentence.
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// forgetFlows makes the kernel forget what conntrack knows about an endpoint's
// published udp ports. A udp client that goes on sending would otherwise be
// sent to the old place for ever; tcp ends and begins anew. The rules are right
// either way, so a failure is only told.
func (m *Manager) forgetFlows(e Endpoint) {
	var filters []netlink.CustomConntrackFilter
	for _, p := range e.Ports {
		if p.Proto != "udp" {
			continue
		}
		f := &netlink.ConntrackFilter{}
		if errors.Join(f.AddProtocol(unix.IPPROTO_UDP), f.AddPort(netlink.ConntrackOrigDstPort, p.HostPort)) == nil {
			filters = append(filters, f)
		}
	}
	// Looking for them reads the whole table, which is large on a busy host.
	if len(filters) == 0 {
		return
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, filters...); err != nil {
		m.log.Debug("cannot clear tracked connections", "container", e.ContainerID, "error", err)
	}
}

// checkRoutes warns of a route of the host that the default network's subnet
// hides, or is hidden by.
func (m *Manager) checkRoutes() string {
	bridge, err := bridgeLink(m.bridge)
	if err != nil {
		return ""
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return ""
	}
	for _, r := range routes {
		p, ok := toPrefix(r.Dst)
		if ok && p.Bits() > 0 && r.LinkIndex != bridge.Attrs().Index && p.Overlaps(m.bip.Masked()) {
			return fmt.Sprintf("the subnet %s of %s overlaps the host's route to %s: set bip to another address", m.bip.Masked(), m.bridge, p)
		}
	}
	return ""
}
