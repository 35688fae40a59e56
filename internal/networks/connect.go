package networks

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"lrd/internal/names"
)

// Connect gives a container that runs a place in one more network. On an error it is as it was. ErrPermissionDenied if it is
// in that network already, ErrFailedPrecondition if it has no namespace of its own.
func (m *Manager) Connect(ctx context.Context, containerID string, j Join) (_ Sandbox, err error) {
	m.mu.Lock()
	s, ok := m.sandboxes[containerID]
	if !ok {
		m.mu.Unlock()
		return Sandbox{}, noSandbox(containerID)
	}
	e, err := m.placeLocked(s, j)
	if err != nil {
		m.mu.Unlock()
		return Sandbox{}, err
	}
	s = s.with(e)
	m.sandboxes[containerID] = s
	m.changed++
	m.mu.Unlock()
	defer func() {
		if err != nil {
			_, undo := m.Disconnect(context.WithoutCancel(ctx), containerID, e.NetworkID, true)
			err = errors.Join(err, undo)
		}
	}()
	if err := m.plug(s, e); err != nil {
		return Sandbox{}, err
	}
	if err := setWays(s); err != nil {
		return Sandbox{}, err
	}
	if err := m.lead(ctx, s); err != nil {
		return Sandbox{}, err
	}
	m.tell(ctx, s)
	m.sync(ctx)
	return s, m.apply(ctx)
}

// Disconnect takes a container that runs out of a network. ErrPermissionDenied, in Docker's words, if it is not in it. On an
// error it is still in it, as far as is known here, and the call can be repeated. With force it is out of it whatever
// goes wrong, which is logged.
func (m *Manager) Disconnect(ctx context.Context, containerID, ref string, force bool) (Sandbox, error) {
	m.mu.Lock()
	had, ok := m.sandboxes[containerID]
	if !ok {
		m.mu.Unlock()
		return Sandbox{}, noSandbox(containerID)
	}
	i := had.index(ref)
	if i < 0 {
		m.mu.Unlock()
		return Sandbox{}, &kindError{fmt.Sprintf("container %s is not connected to network %s", containerID, ref), errdefs.ErrPermissionDenied}
	}
	e, s := had.Endpoints[i], had.without(i)
	m.setLocked(s)
	m.mu.Unlock()
	m.tell(ctx, s)
	m.sync(ctx)
	linked := removeLink(e.HostLink)
	if err := errors.Join(m.apply(ctx), linked, setWays(s)); err != nil {
		if !force {
			m.mu.Lock()
			m.setLocked(had)
			m.mu.Unlock()
			m.tell(ctx, had)
			m.sync(ctx)
			return Sandbox{}, err
		}
		m.log.WarnContext(ctx, "A container is out of a network by force, and something of it may be left", "container", containerID, "network", e.Network, "error", err)
	}
	m.forgetFlows(s)
	if linked == nil { // else it has its address still
		m.mu.Lock()
		m.releasePlaceLocked(containerID, e)
		m.mu.Unlock()
	}
	// An address of the bridge too many disturbs nobody.
	if err := m.trimAddresses(e.Bridge); err != nil {
		m.log.WarnContext(ctx, "cannot remove an old address of the bridge", "bridge", e.Bridge, "error", err)
	}
	return s, nil
}

// setLocked is a change of a container's network.
func (m *Manager) setLocked(s Sandbox) {
	m.sandboxes[s.ContainerID] = s
	m.changed++
}

// Evict takes out of a network what there is in it of a container that nobody knows, by its ID or by what it
// is called there. ErrNotFound, in Docker's words, if there is nothing.
func (m *Manager) Evict(ctx context.Context, ref, network string) error {
	n, err := m.Network(network)
	if err != nil {
		return err
	}
	id, err := m.stranger(ref, n)
	if err != nil {
		return err
	}
	if m.o.NamesDir != "" && names.Has(m.o.NamesDir, id) {
		if err := m.untellIn(ctx, id, n); err != nil {
			return err
		}
	}
	if err := removeLink(hostLink(id, n.ID)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.networks[n.ID]; p != nil {
		p.releaseAll(id)
	}
	return nil
}

// stranger finds the container that something in a network is of, and that Restore was not told of.
func (m *Manager) stranger(ref string, n Network) (string, error) {
	unknown := func(id string) bool { _, known := m.Sandbox(id); return !known }
	if checkID(ref) == nil && unknown(ref) && linkExists(hostLink(ref, n.ID)) {
		return ref, nil
	}
	var files []string
	if m.o.NamesDir != "" {
		var err error
		if files, _, err = names.Listed(m.o.NamesDir); err != nil {
			return "", err
		}
	}
	for _, id := range files {
		c, err := names.Read(m.o.NamesDir, id)
		called := func(in names.Network) bool { return in.ID == n.ID && (id == ref || slices.Contains(in.Names, ref)) }
		if err == nil && unknown(id) && slices.ContainsFunc(c.Networks, called) {
			return id, nil
		}
	}
	return "", &kindError{fmt.Sprintf("endpoint %s not found", ref), errdefs.ErrNotFound}
}

func noSandbox(containerID string) error {
	return &kindError{fmt.Sprintf("container %s has no network of its own", containerID), errdefs.ErrFailedPrecondition}
}

// Rename gives a container another name among its names. One without a network has none to change.
func (m *Manager) Rename(ctx context.Context, containerID, old, name string) (Sandbox, bool) {
	m.mu.Lock()
	s, ok := m.sandboxes[containerID]
	if ok {
		s.Endpoints = slices.Clone(s.Endpoints)
		for i, e := range s.Endpoints {
			e.Names = slices.Clone(e.Names)
			if at := slices.Index(e.Names, old); at >= 0 {
				e.Names[at] = name
			}
			s.Endpoints[i] = e
		}
		m.sandboxes[containerID] = s
	}
	m.mu.Unlock()
	if ok {
		m.tell(ctx, s)
		m.sync(ctx)
	}
	return s, ok
}
