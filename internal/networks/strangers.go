package networks

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// reserveStrangers keeps addresses that containers have and that Restore was not told of: those of containers of which
// nobody can read what was saved, and those of a connection that a daemon was killed over before it was saved.
// They run on, and no other may get in their way. Such an address is given up
// by Detach or Evict, or by the next start of the daemon.
func (m *Manager) reserveStrangers(ctx context.Context) {
	entries, err := os.ReadDir(m.o.RunDir)
	if err != nil {
		return // there has never been a namespace
	}
	for _, entry := range entries {
		id := entry.Name()
		path := filepath.Join(m.o.RunDir, id)
		if checkID(id) != nil || !isNetNS(path) {
			continue
		}
		found, err := addressesIn(path)
		if err != nil {
			m.log.WarnContext(ctx, "cannot find out the addresses of a container", "container", id, "error", err)
		}
		m.mu.Lock()
		for _, addr := range found {
			if err := m.reserveStrangerLocked(id, addr); err != nil {
				m.log.WarnContext(ctx, "two containers have the same address", "container", id, "error", err)
			}
		}
		m.mu.Unlock()
	}
}

// reserveStrangerLocked registers an address in the network that it lies in.
func (m *Manager) reserveStrangerLocked(containerID string, addr netip.Addr) error {
	for _, p := range m.networks {
		for _, a := range []*ipam{p.v4, p.v6} {
			if a != nil && a.subnet.Subnet.Contains(addr) {
				return a.reserve(addr, containerID)
			}
		}
	}
	return nil
}

// addressesIn are the addresses of a network namespace, but for the loopback's and those of one link only.
func addressesIn(path string) ([]netip.Addr, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	list, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	var found []netip.Addr
	for _, a := range list {
		if p, ok := toPrefix(a.IPNet); ok && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			found = append(found, p.Addr())
		}
	}
	return found, nil
}
