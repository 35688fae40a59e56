package networks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/containerd/errdefs"

	"lrd/internal/names"
)

// Attach makes a container's network: a namespace, its places in networks, published
// ports. On an error nothing is left of it. A container that has one already
// is ErrConflict, as is a port or an address that is in use; ErrResourceExhausted when there
// is no free address; ErrNotFound for a network that there is not.
func (m *Manager) Attach(ctx context.Context, r Request) (_ Sandbox, err error) {
	if err := checkID(r.ContainerID); err != nil {
		return Sandbox{}, err
	}
	s, err := m.register(r)
	if err != nil {
		return Sandbox{}, err
	}
	defer func() {
		if err != nil {
			// The caller's context may be what ended it.
			err = errors.Join(err, m.Detach(context.WithoutCancel(ctx), r.ContainerID))
		}
	}()
	// What a daemon that was killed in here left behind.
	if err := removeLeftovers(s); err != nil {
		return Sandbox{}, err
	}
	if err := makeNetNS(s.NetNS); err != nil {
		return Sandbox{}, err
	}
	for _, e := range s.Endpoints {
		if err := m.plug(s, e); err != nil {
			return Sandbox{}, err
		}
	}
	if err := setWays(s); err != nil {
		return Sandbox{}, err
	}
	if err := m.lead(ctx, s); err != nil {
		return Sandbox{}, err
	}
	m.tell(ctx, s)
	if s.Named() {
		m.sync(ctx)
	}
	if len(s.Endpoints) > 0 {
		if err := m.apply(ctx); err != nil {
			return Sandbox{}, err
		}
		m.forgetFlows(s)
	}
	return s, nil
}

// register allocates what a container needs.
func (m *Manager) register(r Request) (_ Sandbox, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, exists := m.sandboxes[r.ContainerID]; exists {
		return Sandbox{}, &kindError{fmt.Sprintf("container %s is attached to a network already", r.ContainerID), errdefs.ErrConflict}
	}
	s := Sandbox{ContainerID: r.ContainerID, NetNS: netNSPath(m.o.RunDir, r.ContainerID), Servers: slices.Clone(r.Servers)}
	if r.Isolated {
		if len(r.Ports)+len(r.Joins) > 0 {
			return Sandbox{}, invalid("a container without a network cannot publish ports")
		}
		m.sandboxes[r.ContainerID] = s
		return s, nil
	}
	// Also for one that is in no network yet: its unit is made now.
	if m.o.NamesDir != "" {
		s.EndedMark = names.EndedMark(m.o.NamesDir, r.ContainerID)
	}
	defer func() {
		if err != nil {
			m.releaseLocked(s)
		}
	}()
	for _, j := range r.Joins {
		e, err := m.placeLocked(s, j)
		if err != nil {
			return Sandbox{}, err
		}
		s = s.with(e)
	}
	hosts, err := m.hostsOfLocked(s, r.Ports)
	if err != nil {
		return Sandbox{}, err
	}
	if s.Ports, err = m.ports.allocate(r.ContainerID, hosts); err != nil {
		return Sandbox{}, err
	}
	m.sandboxes[r.ContainerID] = s
	m.changed++
	return s, nil
}

// placeLocked allocates a container's place in a network.
func (m *Manager) placeLocked(s Sandbox, j Join) (_ Endpoint, err error) {
	p, err := m.findLocked(j.Network)
	if err != nil {
		return Endpoint{}, err
	}
	if _, twice := s.Endpoint(p.ID); twice {
		return Endpoint{}, &kindError{fmt.Sprintf("container %s is already attached to network %s", s.ContainerID, p.Name), errdefs.ErrPermissionDenied}
	}
	e := Endpoint{
		NetworkID: p.ID, Network: p.Name, Bridge: p.Bridge, HostLink: hostLink(s.ContainerID, p.ID), Interface: s.freeInterface(p.interfacePrefix()),
		Names: slices.Clone(j.Names), Links: maps.Clone(j.Links), Priority: j.Priority, Internal: p.Internal, Apart: p.Apart, Unmasked: p.Unmasked,
	}
	if j.IPv6.IsValid() && p.v6 == nil {
		return Endpoint{}, invalid("invalid config for network %s: invalid endpoint settings: no configured subnet contains IP address %s", p.Name, j.IPv6)
	}
	if j.IPv4.IsValid() {
		e.IP, err = j.IPv4.Unmap(), p.v4.take(j.IPv4.Unmap(), s.ContainerID)
	} else {
		e.IP, err = p.v4.allocate(s.ContainerID)
	}
	if err != nil {
		return Endpoint{}, err
	}
	e.PrefixLen, e.Gateway = p.Subnet4().Subnet.Bits(), p.Subnet4().Gateway
	e.MAC = macOf(e.IP).String()
	if j.MAC != "" {
		if e.MAC, err = checkMAC(j.MAC); err != nil {
			p.v4.release(e.IP, s.ContainerID)
			return Endpoint{}, err
		}
	}
	if p.v6 == nil {
		return e, nil
	}
	if j.IPv6.IsValid() {
		e.IP6, err = j.IPv6, p.v6.take(j.IPv6, s.ContainerID)
	} else {
		e.IP6, err = p.v6.allocate(s.ContainerID)
	}
	if err != nil {
		p.v4.release(e.IP, s.ContainerID)
		return Endpoint{}, err
	}
	s6, _ := p.Subnet6()
	e.PrefixLen6, e.Gateway6 = s6.Subnet.Bits(), s6.Gateway
	return e, nil
}

func checkMAC(text string) (string, error) {
	mac, err := net.ParseMAC(text)
	// A group's address (the lowest bit) is nobody's own, nor is one of zeros alone.
	if err != nil || len(mac) != 6 || mac[0]&1 != 0 || slices.Equal(mac, make(net.HardwareAddr, 6)) {
		return "", invalid("invalid MAC address %q: six bytes like 02:42:ac:11:00:02, not that of a group", text)
	}
	return mac.String(), nil
}

// hostsOfLocked fills in where ports are published that name no address of the host: on all of its IPv4 addresses, or that of
// the network's option, and, where the container has IPv6, on those too.
func (m *Manager) hostsOfLocked(s Sandbox, ports []PortBinding) ([]PortBinding, error) {
	way, out := s.way(false)
	_, out6 := s.way(true)
	var hosts []PortBinding
	for _, b := range ports {
		switch {
		case !b.HostIP.IsValid():
			if p := m.networks[way.NetworkID]; out && p != nil && p.HostIP.IsValid() {
				b.HostIP = p.HostIP
			} else {
				b.Both = out6
			}
		case b.hostIP().Is6() && out && !out6:
			return nil, invalid("cannot publish port %s: the container has no IPv6 address; it needs a network that was made with --ipv6", b)
		}
		hosts = append(hosts, b)
	}
	return hosts, nil
}

// plug makes an endpoint's link.
func (m *Manager) plug(s Sandbox, e Endpoint) error {
	m.mu.Lock()
	p := m.networks[e.NetworkID]
	m.mu.Unlock()
	if p == nil {
		return &kindError{fmt.Sprintf("network %s not found", e.Network), errdefs.ErrNotFound}
	}
	// It may have been lost since the start, or not have come about then.
	if err := ensureBridge(p.Network); err != nil {
		return err
	}
	if err := removeLink(e.HostLink); err != nil {
		return err
	}
	return connect(s.NetNS, e, p.MTU)
}

// Detach takes a container's network away: rules, links, namespace. A container
// that has none is no error. What could not be removed keeps its addresses, and is tried again by the next Detach.
func (m *Manager) Detach(ctx context.Context, containerID string) error {
	if err := checkID(containerID); err != nil {
		return err
	}
	m.mu.Lock()
	s, known := m.sandboxes[containerID]
	if known {
		// Addresses and ports stay taken until the rules are gone, or the next
		// owner would share them with this one.
		delete(m.sandboxes, containerID)
		m.changed++
	} else {
		s = Sandbox{ContainerID: containerID, NetNS: netNSPath(m.o.RunDir, containerID)}
		for _, p := range m.networks {
			s.Endpoints = append(s.Endpoints, Endpoint{HostLink: hostLink(containerID, p.ID)})
		}
	}
	m.mu.Unlock()

	errs := []error{m.untell(ctx, containerID)}
	if known && len(s.Endpoints) > 0 || !known && m.behind() {
		errs = append(errs, m.apply(ctx))
	}
	left := removeLeftovers(s)
	m.forgetFlows(s)
	m.mu.Lock()
	m.ports.release(containerID, s.Ports)
	if left == nil {
		m.releaseAddressesLocked(containerID)
	}
	m.mu.Unlock()
	for _, e := range s.Endpoints {
		if known {
			errs = append(errs, m.trimAddresses(e.Bridge))
		}
	}
	return errors.Join(append(errs, left)...)
}

// releaseLocked gives back what is a container's.
func (m *Manager) releaseLocked(s Sandbox) {
	for _, e := range s.Endpoints {
		m.releasePlaceLocked(s.ContainerID, e)
	}
	m.ports.release(s.ContainerID, s.Ports)
}

func (m *Manager) releasePlaceLocked(containerID string, e Endpoint) {
	p := m.networks[e.NetworkID]
	if p == nil {
		return
	}
	p.v4.release(e.IP, containerID)
	if p.v6 != nil && e.IP6.IsValid() {
		p.v6.release(e.IP6, containerID)
	}
}

// releaseAddressesLocked gives back all addresses that are a container's, also those that it had when nobody knew it.
func (m *Manager) releaseAddressesLocked(containerID string) {
	for _, p := range m.networks {
		p.releaseAll(containerID)
	}
}
