package containers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"lrd/internal/networks"
	"lrd/internal/oci"
)

// ConnectNetwork puts a container into one more network, at once if it runs. Errors: ErrNotFound,
// ErrPermissionDenied when it is in that network already, ErrInvalidArgument when its network mode
// goes together with no other.
func (m *Manager) ConnectNetwork(ctx context.Context, ref, networkRef string, e *network.EndpointSettings) error {
	c, ctx, err := m.locked(ctx, ref)
	if err != nil {
		return err
	}
	defer c.unlock()
	n, err := m.o.Networks.Network(networkRef)
	if err != nil {
		return err
	}
	r, s := c.snapshot()
	if c.foreign {
		return refused(errdefs.ErrFailedPrecondition, "cannot connect container %s: %s", r.Name, s.Reason)
	}
	switch mode := r.HostConfig.NetworkMode; {
	case mode.IsHost(), mode.IsContainer():
		return errShared
	case mode.IsNone():
		return errNone
	}
	ms, err := m.membership(n.Name, e)
	if err != nil {
		return err
	}
	all := memberships(r)
	if slices.ContainsFunc(all, func(other Membership) bool { return other.Network == ms.Network }) {
		return refused(errdefs.ErrPermissionDenied, "endpoint with name %s already exists in network %s", r.Name, ms.Network)
	}
	all = append(slices.Clone(all), ms)
	if r.Run == nil || r.Run.Sandbox == nil {
		return c.update(func(r *Record, _ *Status) { r.Memberships = all })
	}
	sandbox, err := m.o.Networks.Connect(ctx, c.id, join(r, ms))
	if err != nil {
		return fmt.Errorf("cannot connect container %s to network %s: %w", r.Name, ms.Network, err)
	}
	if err := noteNetworks(c, sandbox, all); err != nil {
		_, undo := m.o.Networks.Disconnect(ctx, c.id, ms.ID, true)
		return errors.Join(err, undo)
	}
	if joined, ok := sandbox.Endpoint(ms.ID); ok {
		m.publishNetwork(c, events.ActionConnect, joined)
	}
	return m.rewriteEtc(c)
}

// DisconnectNetwork takes a container out of a network, at once if it runs. Errors: ErrNotFound, ErrPermissionDenied when
// it is not in that network. With force, what the kernel refuses is logged, and the container may be one that is not known any more.
func (m *Manager) DisconnectNetwork(ctx context.Context, ref, networkRef string, force bool) error {
	uncancelled := context.WithoutCancel(ctx)
	c, ctx, err := m.locked(ctx, ref)
	if force && errdefs.IsNotFound(err) {
		return m.o.Networks.Evict(uncancelled, ref, networkRef)
	}
	if err != nil {
		return err
	}
	defer c.unlock()
	r, s := c.snapshot()
	if c.foreign && force {
		return m.evict(ctx, c.id, networkRef)
	}
	if c.foreign {
		return refused(errdefs.ErrFailedPrecondition, "cannot disconnect container %s: %s", r.Name, s.Reason)
	}
	if r.HostConfig.NetworkMode.IsHost() {
		return refused(errdefs.ErrInvalidArgument, "container cannot be disconnected from host network or connected to host network")
	}
	name := networkRef
	if n, err := m.o.Networks.Network(networkRef); err == nil {
		name = n.Name // else it may be gone, and the container still name it
	}
	all := memberships(r)
	i := slices.IndexFunc(all, func(ms Membership) bool { return ms.Network == name || ms.ID == networkRef })
	if i < 0 {
		return refused(errdefs.ErrPermissionDenied, "container %s is not connected to network %s", c.id, name)
	}
	all = slices.Delete(slices.Clone(all), i, i+1)
	left, was := sandboxOf(r).Endpoint(name)
	if !was {
		return c.update(func(r *Record, _ *Status) { r.Memberships = all })
	}
	sandbox, err := m.o.Networks.Disconnect(ctx, c.id, left.NetworkID, force)
	if err != nil {
		return fmt.Errorf("cannot disconnect container %s from network %s: %w", r.Name, name, err)
	}
	if err := noteNetworks(c, sandbox, all); err != nil {
		return err
	}
	m.publishNetwork(c, events.ActionDisconnect, left)
	return m.rewriteEtc(c)
}

// evict takes a container whose Record is not lrd's to change out of a network: its place may be known from there all the same.
func (m *Manager) evict(ctx context.Context, id, networkRef string) error {
	n, err := m.o.Networks.Network(networkRef)
	if err != nil {
		return err
	}
	_, err = m.o.Networks.Disconnect(ctx, id, n.ID, true)
	if errdefs.IsFailedPrecondition(err) { // it is not
		return m.o.Networks.Evict(ctx, id, n.ID)
	}
	return err
}

// noteNetworks puts a running container's new place on record.
func noteNetworks(c *Container, sandbox networks.Sandbox, all []Membership) error {
	return c.update(func(r *Record, _ *Status) {
		run := *r.Run
		run.Sandbox = &sandbox
		r.Run, r.Memberships = &run, all
	})
}

// rewriteEtc brings a running container's files up to its new place.
func (m *Manager) rewriteEtc(c *Container) error {
	r, _ := c.snapshot()
	if err := m.writeEtc(&r, r.Run, m.o.Config(), &oci.Input{}); err != nil {
		return fmt.Errorf("the container's place in networks has changed, and its files in /etc are not up to date: %w", err)
	}
	return nil
}

// renameInNetworks makes others find a running container under its new name.
func (m *Manager) renameInNetworks(ctx context.Context, c *Container, old, name string) {
	sandbox, ok := m.o.Networks.Rename(context.WithoutCancel(ctx), c.id, old, name)
	if !ok {
		return
	}
	c.note(func(r *Record, _ *Status) {
		if r.Run != nil && r.Run.Sandbox != nil {
			run := *r.Run
			run.Sandbox = &sandbox
			r.Run = &run
		}
	})
}
