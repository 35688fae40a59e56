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
	if s.EndedMark == "" && m.o.NamesDir != "" {
		s.EndedMark = names.EndedMark(m.o.NamesDir, containerID)
	}
	s = s.with(e)
	m.sandboxes[containerID] = s
	m.changed++
	m.mu.Unlock()
	defer func() {
		if err != nil {
			_, undo := m.Disconnect(context.WithoutCancel(ctx), containerID, e.NetworkID)
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

// Disconnect takes a container that runs out of a network. ErrPermissionDenied, in Docker's words, if it is not in it.
func (m *Manager) Disconnect(ctx context.Context, containerID, ref string) (Sandbox, error) {
	m.mu.Lock()
	s, ok := m.sandboxes[containerID]
	if !ok {
		m.mu.Unlock()
		return Sandbox{}, noSandbox(containerID)
	}
	i := s.index(ref)
	if i < 0 {
		m.mu.Unlock()
		return Sandbox{}, &kindError{fmt.Sprintf("container %s is not connected to network %s", containerID, ref), errdefs.ErrPermissionDenied}
	}
	e := s.Endpoints[i]
	s = s.without(i)
	m.sandboxes[containerID] = s
	m.changed++
	m.mu.Unlock()
	m.tell(ctx, s)
	m.sync(ctx)
	errs := []error{m.apply(ctx), removeLink(e.HostLink), setWays(s)}
	m.forgetFlows(s)
	m.mu.Lock()
	m.releasePlaceLocked(containerID, e)
	m.mu.Unlock()
	return s, errors.Join(append(errs, m.trimAddresses(e.Bridge))...)
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
