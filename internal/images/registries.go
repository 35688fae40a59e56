package images

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/containerd/errdefs"
	"github.com/google/renameio/v2"
	"go.podman.io/image/v5/pkg/sysregistriesv2"
)

// Registries says how registries are reached. The words are those of Docker's
// daemon.json.
type Registries struct {
	// Mirrors are URLs ("https://mirror.example") that are asked before
	// docker.io, in this order, for what docker.io has. One with the scheme
	// http is spoken to without TLS.
	Mirrors []string
	// Insecure are registries ("host", "host:port") or networks
	// ("10.0.0.0/8") that may be spoken to without TLS, or with a
	// certificate that nobody vouches for. 127.0.0.0/8 and ::1 always are,
	// as with Docker.
	Insecure []string
}

// alwaysInsecure are Docker's own exceptions: nobody listens in on them.
var alwaysInsecure = []string{"127.0.0.0/8", "::1/128"}

// SetRegistries replaces what [Options].Registries said. Pulls that are under
// way go on as they began. An error leaves everything as it was.
func (s *Store) SetRegistries(r Registries) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.config.writeRegistries(r); err != nil {
		return err
	}
	s.registries = r
	return nil
}

// Check tells what in r is no mirror or no registry, as
// errdefs.ErrInvalidArgument.
func (r Registries) Check() error {
	for _, m := range r.Mirrors {
		if _, err := r.mirror(m); err != nil {
			return err
		}
	}
	for _, i := range r.Insecure {
		if _, err := netip.ParsePrefix(i); err == nil {
			continue
		}
		if i == "" || strings.ContainsAny(i, "/ ") {
			return newError(errdefs.ErrInvalidArgument, "insecure registry %q is neither host, host:port nor network", i)
		}
	}
	return nil
}

// registriesConf is the file that the image library reads, as far as it is
// needed here (containers-registries.conf(5)).
type registriesConf struct {
	Registry []registryConf `toml:"registry"`
}

type registryConf struct {
	Prefix   string       `toml:"prefix"`
	Location string       `toml:"location"`
	Insecure bool         `toml:"insecure"`
	Mirror   []mirrorConf `toml:"mirror,omitempty"`
}

type mirrorConf struct {
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
}

// mirror makes a mirror's URL into what registries.conf calls it.
func (r Registries) mirror(raw string) (mirrorConf, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return mirrorConf{}, newError(errdefs.ErrInvalidArgument, "registry mirror %q is not a URL like https://mirror.example", raw)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return mirrorConf{}, newError(errdefs.ErrInvalidArgument, "registry mirror %q may have host, port and path only", raw)
	}
	return mirrorConf{
		Location: u.Host + strings.TrimSuffix(u.Path, "/"),
		Insecure: u.Scheme == "http" || r.insecure(u.Host),
	}, nil
}

// writeRegistries writes registries.conf and has the library read it again.
func (c *hostConfig) writeRegistries(r Registries) error {
	if err := r.Check(); err != nil {
		return err
	}
	var conf registriesConf
	if len(r.Mirrors) > 0 {
		hub := registryConf{Prefix: "docker.io", Location: "docker.io"}
		for _, m := range r.Mirrors {
			mirror, err := r.mirror(m)
			if err != nil {
				return err
			}
			hub.Mirror = append(hub.Mirror, mirror)
		}
		conf.Registry = append(conf.Registry, hub)
	}
	var text bytes.Buffer
	if err := toml.NewEncoder(&text).Encode(conf); err != nil {
		return fmt.Errorf("cannot write registries.conf: %w", err)
	}
	if err := renameio.WriteFile(c.path("registries.conf"), text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("cannot write registries.conf: %w", err)
	}
	sysregistriesv2.InvalidateCache()
	return nil
}

// insecureRegistry tells whether a registry may be spoken to without TLS.
func (s *Store) insecureRegistry(host string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.registries.insecure(host)
}

// insecure tells whether host, with or without a port, is among the insecure
// ones. A network counts for hosts given as addresses and for "localhost";
// other names are not looked up, so that an answer from DNS cannot switch TLS
// off.
func (r Registries) insecure(host string) bool {
	bare := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		bare = h
	}
	addr, err := netip.ParseAddr(strings.Trim(bare, "[]"))
	if bare == "localhost" {
		addr, err = netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	for _, i := range slices.Concat(alwaysInsecure, r.Insecure) {
		if i == host || i == bare {
			return true
		}
		if network, perr := netip.ParsePrefix(i); perr == nil && err == nil && network.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}
