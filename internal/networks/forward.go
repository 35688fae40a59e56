package networks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// checkForward looks for tables of others that drop what the host forwards:
// Docker's and ufw's iptables, firewalld's or an administrator's own. No table
// of ours can accept what another one drops, so for iptables two rules for each bridge are put
// into its own chain, and firewalld has a zone for the bridges; the rest is told.
func (m *Manager) checkForward(ctx context.Context) []string {
	out, err := m.run(ctx, "", "nft", "-j", "list", "chains")
	if err != nil {
		m.log.DebugContext(ctx, "cannot list the host's chains", "error", err)
	}
	chains, all := listedChains(out), m.Networks()
	var warnings []string
	drops := map[string]bool{"ip": iptablesLegacyLoaded("ip"), "ip6": iptablesLegacyLoaded("ip6")}
	for _, c := range droppingForward(chains) {
		if c.Family != "inet" && c.Table == "filter" && c.Name == "FORWARD" {
			drops[c.Family] = true
			continue
		}
		if passing := inFamily(all, c.Family); len(passing) > 0 {
			warnings = append(warnings, fmt.Sprintf(
				"the nftables chain %s %s %s drops forwarded packets: containers' published ports and connections need rules there that accept iifname and oifname %s",
				c.Family, c.Table, c.Name, bridgeNames(passing)))
		}
	}
	for _, t := range iptables {
		if passing := inFamily(all, t.family); drops[t.family] && len(passing) > 0 {
			warnings = appendSaid(warnings, m.acceptInIptables(ctx, t.program, passing))
		}
	}
	if slices.ContainsFunc(chains, func(c chain) bool { return c.Family == "inet" && c.Table == firewalldTable }) {
		warnings = appendSaid(warnings, m.checkFirewalld(ctx, all))
	}
	return warnings
}

func appendSaid(warnings []string, w string) []string {
	if w == "" {
		return warnings
	}
	return append(warnings, w)
}

// inFamily are the networks whose packets a table of an address family sees.
func inFamily(all []Network, family string) []Network {
	if family != "ip6" {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(n Network) bool { _, v6 := n.Subnet6(); return !v6 })
}

// bridgeNames are the links that somebody else's rules have to accept.
func bridgeNames(all []Network) string {
	list := make([]string, len(all))
	for i, n := range all {
		list[i] = strconv.Quote(n.Bridge)
	}
	return strings.Join(list, ", ")
}

// firewalldTable is firewalld's, of the family inet.
const firewalldTable = "firewalld"

// checkFirewalld looks for bridges that no zone of firewalld's names, so that they are in the default one, which usually
// rejects what comes from them. Those with lrd's own names are in the zone that lrd is installed with (packaging/firewalld).
func (m *Manager) checkFirewalld(ctx context.Context, all []Network) string {
	out, err := m.run(ctx, "", "nft", "list", "table", "inet", firewalldTable)
	if err != nil {
		m.log.DebugContext(ctx, "cannot list the rules of firewalld", "error", err)
		return ""
	}
	rules := string(out)
	inZone := strings.Contains(rules, `iifname "lrd*"`)
	left := slices.DeleteFunc(slices.Clone(all), func(n Network) bool {
		return inZone && strings.HasPrefix(n.Bridge, "lrd") || strings.Contains(rules, "iifname "+quote(n.Bridge))
	})
	if len(left) == 0 {
		return ""
	}
	return fmt.Sprintf("firewalld has the bridges %s in no zone, and may reject what containers send: `firewall-cmd --reload` makes it read the zone lrd, to which `firewall-cmd --permanent --zone=lrd --add-interface=BRIDGE` adds those of other names",
		bridgeNames(left))
}

// iptables are the two programs of that name, and the family of each.
var iptables = []struct{ program, family string }{{"iptables", "ip"}, {"ip6tables", "ip6"}}

// acceptInIptables puts two rules for each bridge in front of the FORWARD chain, if its policy
// is to drop and they are not there.
func (m *Manager) acceptInIptables(ctx context.Context, program string, all []Network) string {
	advice := fmt.Sprintf("%[1]s drops forwarded packets: containers' published ports and connections need `%[1]s -I FORWARD -i BRIDGE -j ACCEPT` and `%[1]s -I FORWARD -o BRIDGE -j ACCEPT` for each of %[2]s",
		program, bridgeNames(all))
	listed, err := m.run(ctx, "", program, "-w", "-S", "FORWARD")
	if err != nil {
		return advice
	}
	if !strings.Contains(string(listed), "-P FORWARD DROP") {
		return ""
	}
	for _, n := range all {
		for _, direction := range []string{"-i", "-o"} {
			rule := fmt.Sprintf("-A FORWARD %s %s -j ACCEPT\n", direction, n.Bridge)
			m.mu.Lock()
			m.inIptables[program+" "+n.Bridge] = true
			m.mu.Unlock()
			if strings.Contains(string(listed), rule) {
				continue
			}
			if _, err := m.run(ctx, "", program, "-w", "-I", "FORWARD", direction, n.Bridge, "-j", "ACCEPT"); err != nil {
				return advice
			}
			m.log.InfoContext(ctx, program+" drops forwarded packets: a rule for the bridge was put first", "rule", strings.TrimSpace(rule))
		}
	}
	return ""
}

// forgetIptables takes the rules of a bridge that is gone out of iptables again, if they were put there.
func (m *Manager) forgetIptables(ctx context.Context, n Network) error {
	var errs []error
	for _, t := range iptables {
		m.mu.Lock()
		had := m.inIptables[t.program+" "+n.Bridge]
		delete(m.inIptables, t.program+" "+n.Bridge)
		m.mu.Unlock()
		if !had {
			continue
		}
		for _, direction := range []string{"-i", "-o"} {
			_, err := m.run(ctx, "", t.program, "-w", "-D", "FORWARD", direction, n.Bridge, "-j", "ACCEPT")
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// iptablesLegacyLoaded says whether the old iptables of a family, which nft does not show,
// has a filter table.
func iptablesLegacyLoaded(family string) bool {
	names, err := os.ReadFile("/proc/net/" + family + "_tables_names")
	return err == nil && strings.Contains(string(names), "filter")
}

// chain is a base chain as `nft -j list chains` tells it (libnftables-json(5)).
type chain struct {
	Family, Table, Name, Hook, Policy string
}

// listedChains are the chains of IPv4 and IPv6 that tables other than lrd's have.
func listedChains(listed []byte) []chain {
	var all struct {
		Nftables []struct{ Chain *chain }
	}
	if json.Unmarshal(listed, &all) != nil {
		return nil
	}
	var found []chain
	for _, object := range all.Nftables {
		c := object.Chain
		if c == nil || c.Family == "inet" && c.Table == tableName {
			continue
		}
		if c.Family == "ip" || c.Family == "ip6" || c.Family == "inet" {
			found = append(found, *c)
		}
	}
	return found
}

// droppingForward are those that drop forwarded packets by their policy.
func droppingForward(all []chain) []chain {
	return slices.DeleteFunc(slices.Clone(all), func(c chain) bool { return c.Hook != "forward" || c.Policy != "drop" })
}
