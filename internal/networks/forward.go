package networks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// checkForward looks for tables of others that drop what the host forwards:
// Docker's and ufw's iptables, firewalld's or an administrator's own. No table
// of ours can accept what another one drops, so for iptables two rules for each bridge are put
// into its own chain; the rest is told.
func (m *Manager) checkForward(ctx context.Context) []string {
	var warnings []string
	byIptables := iptablesLegacyLoaded()
	out, err := m.run(ctx, "", "nft", "-j", "list", "chains")
	if err != nil {
		m.log.DebugContext(ctx, "cannot list the host's chains", "error", err)
	}
	for _, c := range droppingForward(out) {
		if c.Family == "ip" && c.Table == "filter" && c.Name == "FORWARD" {
			byIptables = true
			continue
		}
		warnings = append(warnings, fmt.Sprintf(
			"the nftables chain %s %s %s drops forwarded packets: containers' published ports and connections need rules there that accept iifname and oifname %s",
			c.Family, c.Table, c.Name, bridgeNames(m.Networks())))
	}
	if byIptables {
		if w := m.acceptInIptables(ctx); w != "" {
			warnings = append(warnings, w)
		}
	}
	return warnings
}

// bridgeNames are the links that somebody else's rules have to accept.
func bridgeNames(all []Network) string {
	list := make([]string, len(all))
	for i, n := range all {
		list[i] = strconv.Quote(n.Bridge)
	}
	return strings.Join(list, ", ")
}

// acceptInIptables puts two rules for each bridge in front of the FORWARD chain, if its policy
// is to drop and they are not there.
func (m *Manager) acceptInIptables(ctx context.Context) string {
	advice := fmt.Sprintf("iptables drops forwarded packets: containers' published ports and connections need `iptables -I FORWARD -i BRIDGE -j ACCEPT` and `iptables -I FORWARD -o BRIDGE -j ACCEPT` for each of %s",
		bridgeNames(m.Networks()))
	listed, err := m.run(ctx, "", "iptables", "-w", "-S", "FORWARD")
	if err != nil {
		return advice
	}
	if !strings.Contains(string(listed), "-P FORWARD DROP") {
		return ""
	}
	for _, n := range m.Networks() {
		for _, direction := range []string{"-i", "-o"} {
			rule := fmt.Sprintf("-A FORWARD %s %s -j ACCEPT\n", direction, n.Bridge)
			m.mu.Lock()
			m.inIptables[n.Bridge] = true
			m.mu.Unlock()
			if strings.Contains(string(listed), rule) {
				continue
			}
			if _, err := m.run(ctx, "", "iptables", "-w", "-I", "FORWARD", direction, n.Bridge, "-j", "ACCEPT"); err != nil {
				return advice
			}
			m.log.InfoContext(ctx, "iptables drops forwarded packets: a rule for the bridge was put first", "rule", strings.TrimSpace(rule))
		}
	}
	return ""
}

// forgetIptables takes the rules of a bridge that is gone out of iptables again, if they were put there.
func (m *Manager) forgetIptables(ctx context.Context, n Network) error {
	m.mu.Lock()
	had := m.inIptables[n.Bridge]
	delete(m.inIptables, n.Bridge)
	m.mu.Unlock()
	if !had {
		return nil
	}
	var errs []error
	for _, direction := range []string{"-i", "-o"} {
		_, err := m.run(ctx, "", "iptables", "-w", "-D", "FORWARD", direction, n.Bridge, "-j", "ACCEPT")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// iptablesLegacyLoaded says whether the old iptables, which nft does not show,
// has a filter table.
func iptablesLegacyLoaded() bool {
	names, err := os.ReadFile("/proc/net/ip_tables_names")
	return err == nil && strings.Contains(string(names), "filter")
}

// chain is a base chain as `nft -j list chains` tells it (libnftables-json(5)).
type chain struct {
	Family, Table, Name, Hook, Policy string
}

// droppingForward are the chains, of tables other than lrd's, that drop
// forwarded IPv4 packets by their policy.
func droppingForward(listed []byte) []chain {
	var all struct {
		Nftables []struct{ Chain *chain }
	}
	if json.Unmarshal(listed, &all) != nil {
		return nil
	}
	var found []chain
	for _, object := range all.Nftables {
		c := object.Chain
		if c == nil || c.Hook != "forward" || c.Policy != "drop" || c.Family == "inet" && c.Table == tableName {
			continue
		}
		if c.Family == "ip" || c.Family == "inet" {
			found = append(found, *c)
		}
	}
	return found
}
