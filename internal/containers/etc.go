package containers

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"lrd/internal/config"
	"lrd/internal/networks"
	"lrd/internal/oci"
)

// networkOf is the path of the network namespace of a running container.
func (m *Manager) networkOf(ref string) (string, error) {
	other, err := m.find(ref)
	if err != nil {
		return "", err
	}
	r, s := other.snapshot()
	if !s.Running() {
		return "", refused(errdefs.ErrConflict, "cannot join network of a non running container: %s", other.id)
	}
	if r.Run != nil && r.Run.Sandbox != nil {
		return r.Run.Sandbox.NetNS, nil
	}
	return processNamespace(s, "net"), nil
}

// joinNamespaces finds the other namespaces that are shared with containers.
func (m *Manager) joinNamespaces(r *Record, in *oci.Input) error {
	join := func(ref, kind string, to *string) error {
		if ref == "" {
			return nil
		}
		other, err := m.find(ref)
		if err != nil {
			return err
		}
		s := other.Status()
		if !s.Running() || s.Pid == 0 {
			return refused(errdefs.ErrConflict, "cannot join %s namespace of a non running container: %s", kind, other.id)
		}
		*to = processNamespace(s, kind)
		return nil
	}
	if p := r.HostConfig.PidMode; p.IsContainer() {
		if err := join(p.Container(), "pid", &in.PidNS); err != nil {
			return err
		}
	}
	if i := r.HostConfig.IpcMode; i.IsContainer() {
		return join(i.Container(), "ipc", &in.IpcNS)
	}
	return nil
}

func processNamespace(s Status, kind string) string {
	return filepath.Join("/proc", fmt.Sprint(s.Pid), "ns", kind)
}

// writeEtc writes the container's hostname, hosts and resolv.conf. They are
// made anew for each start, as the address may be another one.
func (m *Manager) writeEtc(r *Record, run *Run, cfg *config.Config, in *oci.Input) error {
	mode := r.HostConfig.NetworkMode
	if mode.IsContainer() {
		return m.shareEtc(mode.ConnectedContainer(), in)
	}
	in.Hostname, in.Domainname = r.Config.Hostname, r.Config.Domainname
	name := in.Hostname
	if r.HostConfig.UTSMode.IsHost() || mode.IsHost() && name == "" {
		in.Hostname, in.Domainname = "", ""
		name, _ = os.Hostname()
	}
	hosts := networks.HostsOptions{Hostname: name, Domainname: in.Domainname, ExtraHosts: r.HostConfig.ExtraHosts, HostGateway: cfg.Bip.Addr()}
	if run.Sandbox != nil {
		for _, e := range run.Sandbox.Endpoints {
			hosts.IPs = append(hosts.IPs, e.IP, e.IP6)
		}
	}
	hostsFile, err := networks.Hosts(hosts)
	if err != nil {
		return err
	}
	resolv := networks.ResolvOptions{
		Servers: nameServers(r, cfg), Search: cfg.DNSSearch, Options: cfg.DNSOpts, HostNetwork: mode.IsHost(),
		Named: run.Sandbox != nil && run.Sandbox.Named(),
	}
	if h := r.HostConfig; len(h.DNSSearch) > 0 {
		resolv.Search = h.DNSSearch
	}
	if h := r.HostConfig; len(h.DNSOptions) > 0 {
		resolv.Options = h.DNSOptions
	}
	dir := m.dataDir(r.ID)
	in.HostnameFile, in.HostsFile, in.ResolvConf = filepath.Join(dir, "hostname"), filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")
	for path, data := range map[string][]byte{
		in.HostnameFile: []byte(name + "\n"),
		in.HostsFile:    hostsFile,
		in.ResolvConf:   networks.ResolvConf(networks.HostResolvConf(), resolv),
	} {
		// Readable for everybody: the container's user may be anybody.
		if err := overwrite(path, data); err != nil {
			return err
		}
	}
	return nil
}

// overwrite writes a file that a container may have mounted, and may be reading: it stays the same file, and is never an
// empty one.
func overwrite(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Truncate(int64(len(data)))
}

// nameServers are those that the container is given for what is not a container's name; none: the host's.
func nameServers(r *Record, cfg *config.Config) []netip.Addr {
	if len(r.HostConfig.DNS) > 0 {
		return r.HostConfig.DNS
	}
	return cfg.DNS
}

// shareEtc makes a container that is in another one's network see that one's files.
func (m *Manager) shareEtc(ref string, in *oci.Input) error {
	other, err := m.find(ref)
	if err != nil {
		return err
	}
	dir := m.dataDir(other.id)
	r, _ := other.snapshot()
	in.Hostname, in.Domainname = r.Config.Hostname, r.Config.Domainname
	for name, to := range map[string]*string{"hostname": &in.HostnameFile, "hosts": &in.HostsFile, "resolv.conf": &in.ResolvConf} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			*to = path
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
