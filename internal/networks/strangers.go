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

// reserveStrangers keeps the addresses of containers that are at the bridge and
// that Restore was not told of, since nobody can read what was saved of them:
// they run on, and no other may get in their way. Such an address is given up
// by the next start of the daemon.
func (m *Manager) reserveStrangers(ctx context.Context) {
	entries, err := os.ReadDir(m.runDir)
	if err != nil {
		return // there has never been a namespace
	}
	for _, entry := range entries {
		id := entry.Name()
		m.mu.Lock()
		_, known := m.endpoints[id]
		m.mu.Unlock()
		path := filepath.Join(m.runDir, id)
		if known || checkID(id) != nil || !isNetNS(path) {
			continue
		}
		if _, err := netlink.LinkByName(hostLink(id)); err != nil {
			continue // a rest, that is not at the bridge
		}
		found, err := addressesIn(path)
		if err != nil {
			m.log.WarnContext(ctx, "cannot find out the address of a container that is not known", "container", id, "error", err)
		}
		m.mu.Lock()
		for _, addr := range found {
			if err := m.addresses.reserve(addr, id); err != nil {
				m.log.WarnContext(ctx, "two containers have the same address", "container", id, "error", err)
			}
		}
		m.mu.Unlock()
	}
}

// addressesIn are the IPv4 addresses of a network namespace, but for the loopback's.
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
	list, err := h.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	var found []netip.Addr
	for _, a := range list {
		if p, ok := toPrefix(a.IPNet); ok && !p.Addr().IsLoopback() {
			found = append(found, p.Addr())
		}
	}
	return found, nil
}
