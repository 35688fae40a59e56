package networks

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"lrd/internal/names"
)

// fallbackServers are asked when the host has only servers of its own loopback
// interface, which a container cannot reach. Docker's choice.
var fallbackServers = []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("8.8.4.4")}

// ResolvOptions are what a container's resolv.conf depends on besides the
// host's.
type ResolvOptions struct {
	// Servers, Search and Options replace the host's where they are not empty.
	// A search list of "." alone is an empty one.
	Servers []netip.Addr
	Search  []string
	Options []string
	// HostNetwork keeps servers that only the host reaches: the container is in
	// its network namespace.
	HostNetwork bool
	// Named makes the resolver of containers' names the only server; it asks the others.
	Named bool
}

// ResolvConf makes a container's /etc/resolv.conf (resolv.conf(5)) from the
// host's.
func ResolvConf(host []byte, o ResolvOptions) []byte {
	servers, search, options := parseResolvConf(host)
	if o.Named {
		servers = []string{names.Server.String()}
	} else if len(o.Servers) > 0 {
		servers = make([]string, 0, len(o.Servers))
		for _, s := range o.Servers {
			servers = append(servers, s.String())
		}
	} else if !o.HostNetwork {
		servers = slices.DeleteFunc(servers, unreachable)
		if len(servers) == 0 {
			for _, s := range fallbackServers {
				servers = append(servers, s.String())
			}
		}
	}
	if len(o.Search) > 0 {
		search = o.Search
	}
	if len(search) == 1 && search[0] == "." {
		search = nil
	}
	if len(o.Options) > 0 {
		options = o.Options
	}
	// Containers' names have no dots: they are to be asked for as they are, before the search list is tried.
	if o.Named && !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
		options = append(slices.Clone(options), "ndots:0")
	}
	var b bytes.Buffer
	b.WriteString("# Made by lrd from the host's resolv.conf and the container's settings.\n")
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.Bytes()
}

// unreachable says that a container on the bridge cannot ask a server: it is
// the host's loopback interface, or needs IPv6.
func unreachable(server string) bool {
	addr, err := netip.ParseAddr(server)
	return err != nil || addr.IsLoopback() || addr.IsUnspecified() || addr.Is6()
}

// parseResolvConf reads the three directives that there is a use for; the last
// search or domain line counts, options add up.
func parseResolvConf(content []byte) (servers, search, options []string) {
	for line := range strings.Lines(string(content)) {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			servers = append(servers, fields[1])
		case "search", "domain":
			search = fields[1:]
		case "options":
			options = append(options, fields[1:]...)
		}
	}
	return servers, search, options
}

// systemd-resolved's stub listens on the host's loopback interface; the
// servers behind it are in a file of its own (systemd-resolved.service(8)).
const (
	resolvConf         = "/etc/resolv.conf"
	resolvedResolvConf = "/run/systemd/resolve/resolv.conf"
)

var resolvedStub = []string{"127.0.0.53", "127.0.0.54"}

// HostResolvConf reads the host's resolv.conf, or, where that names nothing
// but systemd-resolved's stub, the one with the servers behind it. A host
// without one has an empty one.
func HostResolvConf() []byte {
	content, err := os.ReadFile(resolvConf)
	if err != nil {
		return nil
	}
	servers, _, _ := parseResolvConf(content)
	for _, s := range servers {
		if !slices.Contains(resolvedStub, s) {
			return content
		}
	}
	if behind, err := os.ReadFile(resolvedResolvConf); err == nil && len(servers) > 0 {
		return behind
	}
	return content
}

// HostsOptions are what a container's hosts file depends on.
type HostsOptions struct {
	Hostname, Domainname string
	// IPs are the container's own addresses; those that are not valid are passed over.
	IPs []netip.Addr
	// ExtraHosts are "name:address" or "name=address"; the address
	// "host-gateway" stands for HostGateway.
	ExtraHosts  []string
	HostGateway netip.Addr
}

const baseHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// Hosts makes a container's /etc/hosts (hosts(5)).
func Hosts(o HostsOptions) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(baseHosts)
	for _, entry := range o.ExtraHosts {
		sep := strings.IndexAny(entry, ":=")
		if sep <= 0 || strings.ContainsAny(entry, " \t\r\n") {
			return nil, invalid("bad format for add-host: %q", entry)
		}
		name, address := entry[:sep], strings.Trim(entry[sep+1:], "[]")
		addr, err := netip.ParseAddr(address)
		if address == "host-gateway" {
			if addr, err = o.HostGateway, nil; !addr.IsValid() {
				return nil, invalid("unable to derive the IP value for host-gateway")
			}
		}
		if err != nil {
			return nil, invalid("invalid IP address in add-host: %q", address)
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, name)
	}
	own := o.Hostname
	if o.Domainname != "" {
		own = o.Hostname + "." + o.Domainname + " " + o.Hostname
	}
	for _, ip := range o.IPs {
		if ip.IsValid() && o.Hostname != "" {
			fmt.Fprintf(&b, "%s\t%s\n", ip, own)
		}
	}
	return b.Bytes(), nil
}
