package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"lrd/internal/config"
	"lrd/internal/networks"
	"lrd/internal/oci"
)

// joinNetwork gives the container its network: a place in the bridge, an empty
// namespace, the host's, or that of another container.
//
// Namespaces are named by a path and not by a process, so that they are there
// again when systemd restarts the container.
func (m *Manager) joinNetwork(ctx context.Context, r *Record, run *Run, in *oci.Input, undo *cleanup) error {
	mode := r.HostConfig.NetworkMode
	switch {
	case mode.IsHost():
		return nil
	case mode.IsContainer():
		path, err := m.networkOf(mode.ConnectedContainer())
		in.NetNS = path
		return err
	}
	ports, err := networks.ParsePortBindings(r.HostConfig.PortBindings, r.Config.ExposedPorts, r.HostConfig.PublishAllPorts)
	if err != nil {
		return err
	}
	isolated := mode.IsNone() || r.Config.NetworkDisabled
	if isolated {
		ports = nil
	}
	endpoint, err := m.o.Networks.Attach(ctx, networks.Request{ContainerID: r.ID, Ports: ports, Isolated: isolated})
	if err != nil {
		return fmt.Errorf("cannot set up the network: %w", err)
	}
	undo.add(func() { _ = m.o.Networks.Detach(ctx, r.ID) })
	run.Endpoint = &endpoint
	in.NetNS = endpoint.NetNS
	return nil
}

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
	if r.Run != nil && r.Run.Endpoint != nil {
		return r.Run.Endpoint.NetNS, nil
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
	if run.Endpoint != nil {
		hosts.IP = run.Endpoint.IP
	}
	hostsFile, err := networks.Hosts(hosts)
	if err != nil {
		return err
	}
	resolv := networks.ResolvOptions{
		Servers: cfg.DNS, Search: cfg.DNSSearch, Options: cfg.DNSOpts, HostNetwork: mode.IsHost(),
	}
	if h := r.HostConfig; len(h.DNS) > 0 {
		resolv.Servers = h.DNS
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
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
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
