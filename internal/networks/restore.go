package networks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"lrd/internal/names"
)

// Restore registers the networks of containers that are alive, once, before
// the first Attach, and puts their rules in place in one transaction: a port
// that was published stays so without a gap. Without live containers it is
// called with none. It makes
// nothing new and takes nothing from a running container; it does put a link
// back to the bridge if the bridge was lost, and an old address back on it.
//
// A *RestoreError names the containers whose networks are not as they were. They stay
// registered, so that nobody gets their address, and are given up by Detach
// like the others. Any other error is of the whole.
func (m *Manager) Restore(ctx context.Context, sandboxes []Sandbox) error {
	verdicts := map[string]error{}
	named := false
	for _, s := range sandboxes {
		if err := m.restoreOne(s); err != nil {
			verdicts[s.ContainerID] = err
		}
		if s, kept := m.Sandbox(s.ContainerID); kept {
			m.tell(ctx, s)
			named = named || s.Named()
		}
	}
	m.dropOldNames(ctx)
	m.reserveStrangers(ctx)
	if named {
		m.sync(ctx)
	}
	if err := m.apply(ctx); err != nil {
		return err
	}
	for _, n := range m.Networks() {
		if err := m.trimAddresses(n.Bridge); err != nil {
			// The address of an old bip too many disturbs nobody here.
			m.log.WarnContext(ctx, "cannot remove an old address of the bridge", "bridge", n.Bridge, "error", err)
		}
	}
	if len(verdicts) > 0 {
		return &RestoreError{Containers: verdicts}
	}
	return nil
}

// dropOldNames makes the resolver forget containers that nobody knows and that have no network any more.
func (m *Manager) dropOldNames(ctx context.Context) {
	if m.o.NamesDir == "" {
		return
	}
	files, ended, err := names.Listed(m.o.NamesDir)
	for id := range ended {
		files = append(files, id)
	}
	for _, id := range files {
		if _, known := m.Sandbox(id); !known && !isNetNS(netNSPath(m.o.RunDir, id)) {
			err = errors.Join(err, names.Remove(m.o.NamesDir, id))
		}
	}
	if err != nil {
		m.log.WarnContext(ctx, "Names of containers that are gone may be left", "error", err)
	}
}

func (m *Manager) restoreOne(s Sandbox) error {
	if err := checkSandbox(s); err != nil {
		return err
	}
	if err := m.reserve(&s); err != nil {
		return err
	}
	if !isNetNS(s.NetNS) {
		return &EndpointGoneError{s.ContainerID, "its network namespace " + s.NetNS}
	}
	var errs []error
	for _, e := range s.Endpoints {
		errs = append(errs, m.restorePlace(s, e))
	}
	return errors.Join(errs...)
}

func (m *Manager) restorePlace(s Sandbox, e Endpoint) error {
	m.mu.Lock()
	p := m.networks[e.NetworkID]
	m.mu.Unlock()
	switch {
	case p == nil:
		return &kindError{
			fmt.Sprintf("network %s no longer exists: the container keeps its place in it until it is restarted", e.Network),
			errdefs.ErrFailedPrecondition,
		}
	case e.Bridge != p.Bridge:
		return &kindError{
			fmt.Sprintf("the container is at the bridge %s, its network is now at %s: it keeps its place until it is restarted", e.Bridge, p.Bridge),
			errdefs.ErrFailedPrecondition,
		}
	}
	if err := m.repair(s, e); err != nil {
		return err
	}
	if had, have := e.gateway4(), p.Subnet4().address(); had != have {
		return &BridgeChangedError{Bridge: p.Bridge, Had: had, Have: have}
	}
	return nil
}

// reserve registers a container's network with its addresses and ports. Ports that are
// another's are left out of the rules and are an error; an address that is
// another's leaves the container unregistered.
func (m *Manager) reserve(s *Sandbox) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, twice := m.sandboxes[s.ContainerID]; twice {
		return &kindError{fmt.Sprintf("container %s is attached to a network already", s.ContainerID), errdefs.ErrConflict}
	}
	for _, e := range s.Endpoints {
		if err := m.reservePlaceLocked(s.ContainerID, e); err != nil {
			m.releaseLocked(*s)
			return err
		}
	}
	kept, lost := m.ports.reserve(s.ContainerID, s.Ports)
	s.Ports = kept
	m.sandboxes[s.ContainerID] = *s
	m.changed++
	if len(lost) > 0 {
		texts := make([]string, len(lost))
		for i, p := range lost {
			texts[i] = p.String()
		}
		return &kindError{"published ports belong to another container now: " + strings.Join(texts, ", "), errdefs.ErrConflict}
	}
	return nil
}

func (m *Manager) reservePlaceLocked(containerID string, e Endpoint) error {
	p := m.networks[e.NetworkID]
	if p == nil {
		return nil
	}
	if err := p.v4.reserve(e.IP, containerID); err != nil {
		return err
	}
	if p.v6 == nil || !e.IP6.IsValid() {
		return nil
	}
	return p.v6.reserve(e.IP6, containerID)
}

// checkSandbox refuses a saved network that makes no sense, so that what is
// on disk can never reach nft's input or a path unchecked.
func checkSandbox(s Sandbox) error {
	if err := checkID(s.ContainerID); err != nil {
		return err
	}
	// Detach removes what these name.
	if !filepath.IsAbs(s.NetNS) || filepath.Base(s.NetNS) != s.ContainerID {
		return invalid("the saved network of container %s is damaged: its namespace is %q", s.ContainerID, s.NetNS)
	}
	for _, e := range s.Endpoints {
		if e.HostLink != hostLink(s.ContainerID, e.NetworkID) {
			return invalid("the saved network of container %s is damaged: its link is %q", s.ContainerID, e.HostLink)
		}
		if !e.IP.Is4() || !e.Gateway.Is4() || e.PrefixLen < 8 || e.PrefixLen > 30 {
			return invalid("the saved network of container %s is damaged: %s/%d by way of %s", s.ContainerID, e.IP, e.PrefixLen, e.Gateway)
		}
		if v6 := e.IP6.IsValid(); v6 != e.Gateway6.IsValid() || v6 && (!e.IP6.Is6() || !e.Gateway6.Is6() || e.PrefixLen6 < 8 || e.PrefixLen6 > 126) {
			return invalid("the saved network of container %s is damaged: %s/%d by way of %s", s.ContainerID, e.IP6, e.PrefixLen6, e.Gateway6)
		}
		if err := errors.Join(checkBridgeName(e.Bridge), checkBridgeName(e.Interface)); err != nil {
			return fmt.Errorf("the saved network of container %s is damaged: %w", s.ContainerID, err)
		}
	}
	return nil
}

// repair makes sure that an endpoint's link is at the bridge and that the
// bridge has the addresses that it lives by.
func (m *Manager) repair(s Sandbox, e Endpoint) error {
	for _, g := range e.gateways() {
		if err := addBridgeAddress(e.Bridge, g); err != nil {
			return err
		}
	}
	return reconnect(s.ContainerID, e)
}

// trimAddresses takes addresses off a bridge that lrd put there and that
// neither its network nor a live container uses any more.
func (m *Manager) trimAddresses(bridge string) error {
	m.mu.Lock()
	keep := map[netip.Prefix]bool{}
	for _, p := range m.networks {
		if p.Bridge == bridge {
			for _, a := range p.addresses() {
				keep[a] = true
			}
		}
	}
	for _, s := range m.sandboxes {
		for _, e := range s.Endpoints {
			if e.Bridge == bridge {
				for _, g := range e.gateways() {
					keep[g] = true
				}
			}
		}
	}
	m.mu.Unlock()
	err := removeBridgeAddresses(bridge, keep)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	return err
}
