package networks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/vishvananda/netlink"
)

// Create makes a network: saved, with its bridge. Errors, in Docker's words: ErrConflict when the name is taken,
// ErrPermissionDenied for a name or a driver of those that there always are and for a subnet that another network has,
// ErrResourceExhausted when the pools are, ErrInvalidArgument, ErrNotImplemented, ErrNotFound for another driver.
func (m *Manager) Create(ctx context.Context, req network.CreateRequest) (_ Network, err error) {
	if m.o.DataDir == "" {
		return Network{}, unsupported("there is no directory for networks")
	}
	n, err := parse(req)
	if err != nil {
		return Network{}, err
	}
	m.createMu.Lock()
	defer m.createMu.Unlock()
	if err := m.checkNew(n); err != nil {
		return Network{}, err
	}
	if err := m.findSubnets(&n, req.EnableIPv6 != nil && *req.EnableIPv6); err != nil {
		return Network{}, err
	}
	if err := checkLink(n.Bridge); err != nil {
		return Network{}, err
	}
	ctx = context.WithoutCancel(ctx)
	m.mu.Lock()
	m.networks[n.ID] = newPool(n)
	m.changed++
	m.mu.Unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, m.drop(ctx, n))
		}
	}()
	// On disk first: a bridge that nobody knows of would stay for ever.
	if err := save(m.o.DataDir, n); err != nil {
		return Network{}, err
	}
	if err := ensureBridge(n); err != nil {
		return Network{}, err
	}
	if err := m.apply(ctx); err != nil {
		return Network{}, err
	}
	m.examine(ctx)
	return n, nil
}

// checkNew refuses a network whose name or link another one has.
func (m *Manager) checkNew(n Network) error {
	for _, other := range m.Networks() {
		if other.Name == n.Name {
			return &kindError{fmt.Sprintf("network with name %s already exists", n.Name), errdefs.ErrConflict}
		}
		if other.Bridge == n.Bridge {
			return &kindError{fmt.Sprintf("cannot make network %s: the bridge %s is that of network %s", n.Name, n.Bridge, other.Name), errdefs.ErrConflict}
		}
	}
	return nil
}

// checkLink refuses a link that is there already: a network's bridge goes with it, and must not be somebody else's.
func checkLink(name string) error {
	_, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil
	case err != nil:
		return fmt.Errorf("cannot look up the link %s: %w", name, err)
	}
	return &kindError{fmt.Sprintf("the link %s exists already: choose another name with %s, or remove it", name, optionBridge), errdefs.ErrConflict}
}

// findSubnets checks the subnets that are asked for, and finds those that are not.
func (m *Manager) findSubnets(n *Network, v6 bool) error {
	ours := m.ourSubnets()
	for _, s := range n.Subnets {
		if err := checkOverlap(s.Subnet, ours); err != nil {
			return err
		}
	}
	if _, ok := n.subnet(false); !ok {
		routes, err := hostRoutes()
		if err != nil {
			return err
		}
		found, err := choose(m.o.Pools, slices.Concat(ours, routes))
		if err != nil {
			return err
		}
		first, _ := hostRange(found)
		n.Subnets = append(n.Subnets, Subnet{Subnet: found, Gateway: first})
	}
	if _, ok := n.subnet(true); v6 && !ok {
		found := chooseUnique()
		n.Subnets = append(n.Subnets, Subnet{Subnet: found, Gateway: found.Addr().Next()})
	}
	// IPv4 first, as everybody shows it.
	slices.SortFunc(n.Subnets, func(a, b Subnet) int { return a.Gateway.Compare(b.Gateway) })
	return nil
}

// ourSubnets are those of all networks, and those that a container lives by though its network has another one now.
func (m *Manager) ourSubnets() []netip.Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []netip.Prefix
	for _, p := range m.networks {
		for _, s := range p.Subnets {
			all = append(all, s.Subnet)
		}
	}
	for _, s := range m.sandboxes {
		for _, e := range s.Endpoints {
			for _, g := range e.gateways() {
				if g = g.Masked(); !slices.Contains(all, g) {
					all = append(all, g)
				}
			}
		}
	}
	return all
}

// hostRoutes are the parts of the IPv4 address space that the host has a way to already.
func hostRoutes() ([]netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("cannot list the host's routes: %w", err)
	}
	var taken []netip.Prefix
	for _, r := range routes {
		if p, ok := toPrefix(r.Dst); ok && p.Bits() > 0 {
			taken = append(taken, p)
		}
	}
	return taken, nil
}

// Remove removes a network. Errors, in Docker's words: ErrPermissionDenied for the default one and for one that a container
// that runs is in, ErrNotFound. After any other error it is still there, and the call can be repeated.
func (m *Manager) Remove(ctx context.Context, ref string) (Network, error) {
	m.mu.Lock()
	p, err := m.findLocked(ref)
	if err == nil && p.Default() {
		err = &kindError{p.Name + " is a pre-defined network and cannot be removed", errdefs.ErrPermissionDenied}
	}
	if err == nil {
		err = m.checkUnusedLocked(p.Network)
	}
	if err != nil {
		m.mu.Unlock()
		return Network{}, err
	}
	// From here on nobody can join it.
	delete(m.networks, p.ID)
	m.changed++
	m.mu.Unlock()
	if err := m.drop(context.WithoutCancel(ctx), p.Network); err != nil {
		// What is left of it has a name, and can be removed by another try.
		m.mu.Lock()
		m.networks[p.ID] = p
		m.changed++
		m.mu.Unlock()
		return Network{}, err
	}
	return p.Network, nil
}

func (m *Manager) checkUnusedLocked(n Network) error {
	var users []string
	for _, s := range m.sandboxes {
		if e, ok := s.Endpoint(n.ID); ok {
			users = append(users, fmt.Sprintf("name:%q id:%q", firstOf(e.Names, s.ContainerID[:12]), s.ContainerID[:12]))
		}
	}
	if len(users) == 0 {
		return nil
	}
	slices.Sort(users)
	return &kindError{
		fmt.Sprintf("error while removing network: network %s has active endpoints (%s)", n.Name, strings.Join(users, ", ")),
		errdefs.ErrPermissionDenied,
	}
}

func firstOf(list []string, otherwise string) string {
	if len(list) > 0 {
		return list[0]
	}
	return otherwise
}

// InUse says whether a container that runs is in a network.
func (m *Manager) InUse(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sandboxes {
		if _, ok := s.Endpoint(id); ok {
			return true
		}
	}
	return false
}

// drop removes what there is of a network that is no more. The file goes last: what could not be removed is found again
// by the next daemon, which has the network again then.
func (m *Manager) drop(ctx context.Context, n Network) error {
	m.mu.Lock()
	if _, there := m.networks[n.ID]; there {
		delete(m.networks, n.ID)
		m.changed++
	}
	m.mu.Unlock()
	if err := errors.Join(m.apply(ctx), removeLink(n.Bridge), m.forgetIptables(ctx, n)); err != nil {
		return err
	}
	return forget(m.o.DataDir, n)
}
