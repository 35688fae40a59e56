package networks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
)

// Restore registers the endpoints of containers that are alive, once, before
// the first Attach, and puts their rules in place in one transaction: a port
// that was published stays so without a gap. Without live containers it is
// called with none. It makes
// nothing new and takes nothing from a running container; it does put a link
// back to the bridge if the bridge was lost, and an old address back on it.
//
// A *RestoreError names the endpoints that are not as they were. They stay
// registered, so that nobody gets their address, and are given up by Detach
// like the others. Any other error is of the whole.
func (m *Manager) Restore(ctx context.Context, endpoints []Endpoint) error {
	verdicts := map[string]error{}
	for _, e := range endpoints {
		if err := m.restoreOne(e); err != nil {
			verdicts[e.ContainerID] = err
		}
	}
	m.reserveStrangers(ctx)
	if err := m.apply(ctx); err != nil {
		return err
	}
	if err := m.trimAddresses(); err != nil {
		// The address of an old bip too many disturbs nobody here.
		m.log.WarnContext(ctx, "cannot remove an old address of the bridge", "bridge", m.bridge, "error", err)
	}
	if len(verdicts) > 0 {
		return &RestoreError{Endpoints: verdicts}
	}
	return nil
}

func (m *Manager) restoreOne(e Endpoint) error {
	if err := checkEndpoint(e); err != nil {
		return err
	}
	if err := m.reserve(&e); err != nil {
		return err
	}
	if !isNetNS(e.NetNS) {
		return &EndpointGoneError{e.ContainerID, "its network namespace " + e.NetNS}
	}
	if e.isolated() {
		return nil
	}
	if e.Bridge != m.bridge {
		return &kindError{
			fmt.Sprintf("the container is at the bridge %s, the network is now at %s: its published ports do not work until it is restarted", e.Bridge, m.bridge),
			errdefs.ErrFailedPrecondition,
		}
	}
	if err := m.repair(e); err != nil {
		return err
	}
	if had := e.gatewayPrefix(); had != m.bip {
		return &BridgeChangedError{Bridge: m.bridge, Had: had, Have: m.bip}
	}
	return nil
}

// reserve registers an endpoint with its address and ports. Ports that are
// another's are left out of the rules and are an error; an address that is
// another's leaves the endpoint unregistered.
func (m *Manager) reserve(e *Endpoint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, twice := m.endpoints[e.ContainerID]; twice {
		return &kindError{fmt.Sprintf("container %s is attached to a network already", e.ContainerID), errdefs.ErrConflict}
	}
	if e.isolated() {
		m.endpoints[e.ContainerID] = *e
		return nil
	}
	if err := m.addresses.reserve(e.IP, e.ContainerID); err != nil {
		return err
	}
	kept, lost := m.ports.reserve(e.ContainerID, e.Ports)
	e.Ports = kept
	m.endpoints[e.ContainerID] = *e
	m.changed++
	if len(lost) > 0 {
		names := make([]string, len(lost))
		for i, p := range lost {
			names[i] = p.String()
		}
		return &kindError{"published ports belong to another container now: " + strings.Join(names, ", "), errdefs.ErrConflict}
	}
	return nil
}

// checkEndpoint refuses a saved endpoint that makes no sense, so that what is
// on disk can never reach nft's input or a path unchecked.
func checkEndpoint(e Endpoint) error {
	if err := checkID(e.ContainerID); err != nil {
		return err
	}
	// Detach removes what these name.
	if !filepath.IsAbs(e.NetNS) || filepath.Base(e.NetNS) != e.ContainerID {
		return invalid("the saved network of container %s is damaged: its namespace is %q", e.ContainerID, e.NetNS)
	}
	if e.isolated() {
		return nil
	}
	if e.HostLink != hostLink(e.ContainerID) {
		return invalid("the saved network of container %s is damaged: its link is %q", e.ContainerID, e.HostLink)
	}
	if !e.IP.Is4() || !e.Gateway.Is4() || e.PrefixLen < 8 || e.PrefixLen > 30 {
		return invalid("the saved network of container %s is damaged: %s/%d by way of %s", e.ContainerID, e.IP, e.PrefixLen, e.Gateway)
	}
	return nil
}

// repair makes sure that an endpoint's link is at the bridge and that the
// bridge has the address that it lives by.
func (m *Manager) repair(e Endpoint) error {
	if had := e.gatewayPrefix(); had != m.bip {
		if err := addBridgeAddress(m.bridge, had); err != nil {
			return err
		}
	}
	return reconnect(e)
}

// trimAddresses takes addresses off the bridge that lrd put there and that
// neither the configuration nor a live container uses any more.
func (m *Manager) trimAddresses() error {
	m.mu.Lock()
	keep := map[netip.Prefix]bool{m.bip: true}
	for _, e := range m.endpoints {
		if !e.isolated() {
			keep[e.gatewayPrefix()] = true
		}
	}
	m.mu.Unlock()
	err := removeBridgeAddresses(m.bridge, keep)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}
