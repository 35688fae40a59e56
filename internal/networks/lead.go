package networks

import (
	"context"
	"fmt"

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
