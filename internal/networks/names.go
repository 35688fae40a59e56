package networks

import (
	"context"
	"fmt"
	"slices"
	"time"

	"lrd/internal/names"
)

// lead leads a container's questions for names from the port where its resolver asks to the one where lrd-dns listens: two
// rules in the container's own namespace. Port 53 stays free there for who wants to be a name server.
func (m *Manager) lead(ctx context.Context, s Sandbox) error {
	if !s.Named() {
		return nil
	}
	return inNetNS(s.NetNS, func() error {
		if _, err := m.run(ctx, leadScript(), "nft", "-f", "-"); err != nil {
			return fmt.Errorf("cannot lead the container to its name server: %w", err)
		}
		return nil
	})
}

func leadScript() string {
	const table = "lrd-names"
	return fmt.Sprintf(`table ip %[1]s {
}
delete table ip %[1]s
table ip %[1]s {
	chain output {
		type nat hook output priority -100; policy accept;
		ip daddr %[2]s udp dport 53 dnat to %[2]s:%[3]d
		ip daddr %[2]s tcp dport 53 dnat to %[2]s:%[3]d
	}
}
`, table, names.Server, names.Port)
}

// syncTimeout bounds the wait for the resolver, which takes a millisecond, or some ten when it has to be started.
const syncTimeout = 10 * time.Second

// tell writes what the resolver is to know of a container. That it cannot be told is no reason for a container not to run.
func (m *Manager) tell(ctx context.Context, s Sandbox) {
	if m.o.NamesDir == "" {
		return
	}
	var err error
	if s.Named() {
		err = names.Write(m.o.NamesDir, s.file())
	} else if names.Has(m.o.NamesDir, s.ContainerID) {
		err = names.Remove(m.o.NamesDir, s.ContainerID)
	}
	if err != nil {
		m.log.ErrorContext(ctx, "Other containers are not told this one's names", "container", s.ContainerID, "error", err)
	}
}

// untell makes the resolver forget a container.
func (m *Manager) untell(ctx context.Context, containerID string) error {
	if m.o.NamesDir == "" {
		return nil
	}
	had := names.Has(m.o.NamesDir, containerID)
	if err := names.Remove(m.o.NamesDir, containerID); err != nil {
		return err
	}
	if had {
		m.sync(ctx)
	}
	return nil
}

// untellIn makes the resolver forget that a container is in a network.
func (m *Manager) untellIn(ctx context.Context, containerID string, n Network) error {
	c, err := names.Read(m.o.NamesDir, containerID)
	if err != nil {
		return err
	}
	c.Networks = slices.DeleteFunc(c.Networks, func(in names.Network) bool { return in.ID == n.ID })
	if err := names.Write(m.o.NamesDir, c); err != nil {
		return err
	}
	m.sync(ctx)
	return nil
}

// sync waits until the resolver has what it was told.
func (m *Manager) sync(ctx context.Context) {
	if m.o.NamesSocket == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	if err := names.Sync(ctx, m.o.NamesSocket); err != nil {
		m.log.WarnContext(ctx, "Containers' names are not up to date", "error", err)
	}
}
