package networks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
)

// The defaults of Options.
const (
	DefaultBridge = "lrd0"
	// DefaultBip lies in the part of 172.16.0.0/12 that Docker's own pools
	// reach last and that home routers and clouds rarely use.
	DefaultBip = "172.30.0.1/16"
	// DefaultMTU is Ethernet's.
	DefaultMTU = 1500
)

// Options say how the default network looks.
type Options struct {
	// Bridge is the name of the link; "" is DefaultBridge.
	Bridge string
	// Bip is the bridge's address and subnet; the zero value is DefaultBip.
	Bip netip.Prefix
	// MTU of the bridge and of containers' interfaces, in bytes; 0 is
	// DefaultMTU.
	MTU int
	// RunDir holds the network namespaces. It is made if it does not exist,
	// and must be on a mount that containers' units see: their runtime opens
	// the paths.
	RunDir string
	// Log may be nil.
	Log *slog.Logger
	// Run runs a program (nft, iptables) with an input and gives its standard
	// output; nil runs the real one.
	Run Runner
}

// Runner runs a program to its end.
type Runner func(ctx context.Context, input, name string, args ...string) ([]byte, error)

// Manager is the default network. See the package's comment for locks and
// lifecycle.
type Manager struct {
	bridge string
	bip    netip.Prefix
	mtu    int
	runDir string
	log    *slog.Logger
	run    Runner

	// applyMu lets one nft run at a time; it is taken before mu. applied is the
	// change that the kernel has seen, and belongs to it.
	applyMu sync.Mutex
	applied uint64

	// mu guards what follows; it is not held over anything that waits.
	mu        sync.Mutex
	endpoints map[string]Endpoint // by container
	addresses *ipam
	ports     *portTable
	changed   uint64 // counts changes of what rules depend on
	warnings  []string
}

// Open makes the bridge and its address, or finds them as they are; the rules
// are left as they are until Restore. A bridge with other addresses keeps them until Restore has told which
// containers live by them. A link of the bridge's name that is no bridge is
// ErrFailedPrecondition; a bip that cannot be one is ErrInvalidArgument.
func Open(ctx context.Context, o Options) (*Manager, error) {
	m := &Manager{
		bridge:    cmp.Or(o.Bridge, DefaultBridge),
		bip:       o.Bip,
		mtu:       cmp.Or(o.MTU, DefaultMTU),
		runDir:    o.RunDir,
		log:       o.Log,
		run:       o.Run,
		endpoints: map[string]Endpoint{},
	}
	if m.bip == (netip.Prefix{}) {
		m.bip = netip.MustParsePrefix(DefaultBip)
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.run == nil {
		m.run = runProgram
	}
	if err := errors.Join(checkBip(m.bip), checkBridgeName(m.bridge), checkMTU(m.mtu)); err != nil {
		return nil, err
	}
	if m.runDir == "" {
		return nil, invalid("no directory for network namespaces")
	}
	first, last := ephemeralPorts()
	m.addresses = newIPAM(m.bip)
	m.ports = newPortTable(first, last, bindProbe)
	if err := m.ensureHost(); err != nil {
		return nil, err
	}
	// Not the rules: nobody's ports are known yet, and those that the last
	// daemon left must work until Restore says what they should be.
	m.changed++
	m.examine(ctx)
	return m, nil
}

func checkMTU(mtu int) error {
	// 576 is what every IPv4 host must take (RFC 791), 65535 what a datagram
	// can be.
	if mtu < 576 || mtu > 65535 {
		return invalid("invalid MTU %d: 576 to 65535", mtu)
	}
	return nil
}

// Gateway is the bridge's address: the host, as containers see it.
func (m *Manager) Gateway() netip.Addr { return m.bip.Addr() }

// Subnet is the default network's.
func (m *Manager) Subnet() netip.Prefix { return m.bip.Masked() }

// Bridge is the name of the bridge's link.
func (m *Manager) Bridge() string { return m.bridge }

// Warnings are what an administrator should know about the host's network,
// as of the last Open or Reapply: each a sentence with what to do.
func (m *Manager) Warnings() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.warnings)
}

// Endpoint is a container's, as Attach or Restore registered it.
func (m *Manager) Endpoint(containerID string) (Endpoint, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.endpoints[containerID]
	return e, ok
}

// Reapply puts everything back that somebody else may have taken away: the
// bridge and its addresses, the containers' places at it, the host's settings
// and the rules. It changes nothing where nothing is missing, and connections
// stay up. It is for a reload and for after a restart of nftables.service.
func (m *Manager) Reapply(ctx context.Context) error {
	if err := m.ensureHost(); err != nil {
		return err
	}
	for _, e := range m.live() {
		if e.isolated() {
			continue
		}
		// A container whose link is gone is no reason to leave the others
		// without rules.
		if err := m.repair(e); err != nil {
			m.log.WarnContext(ctx, "a container's network cannot be repaired", "container", e.ContainerID, "error", err)
		}
	}
	// Somebody may have flushed the rules: they count as changed.
	m.mu.Lock()
	m.changed++
	m.mu.Unlock()
	if err := m.apply(ctx); err != nil {
		return err
	}
	m.examine(ctx)
	return nil
}

// ensureHost makes what is there without any container.
func (m *Manager) ensureHost() error {
	if err := ensureBridge(m.bridge, m.bip, m.mtu); err != nil {
		return err
	}
	return hostSettings(m.bridge)
}

// examine renews the warnings.
func (m *Manager) examine(ctx context.Context) {
	warnings := m.checkForward(ctx)
	if w := m.checkRoutes(); w != "" {
		warnings = append(warnings, w)
	}
	m.mu.Lock()
	m.warnings = warnings
	m.mu.Unlock()
	for _, w := range warnings {
		m.log.WarnContext(ctx, w)
	}
}

// Attach makes a container's network: a namespace, an address, published
// ports. On an error nothing is left of it. A container that has one already
// is ErrConflict, as is a port that is in use; ErrResourceExhausted when there
// is no free address.
func (m *Manager) Attach(ctx context.Context, r Request) (_ Endpoint, err error) {
	if err := checkID(r.ContainerID); err != nil {
		return Endpoint{}, err
	}
	e, err := m.register(r)
	if err != nil {
		return Endpoint{}, err
	}
	defer func() {
		if err != nil {
			// The caller's context may be what ended it.
			err = errors.Join(err, m.Detach(context.WithoutCancel(ctx), r.ContainerID))
		}
	}()
	// What a daemon that was killed in here left behind.
	if err := removeLeftovers(e); err != nil {
		return Endpoint{}, err
	}
	if err := makeNetNS(e.NetNS); err != nil {
		return Endpoint{}, err
	}
	if e.isolated() {
		return e, nil
	}
	if err := connect(e, m.mtu); err != nil {
		return Endpoint{}, err
	}
	if err := m.apply(ctx); err != nil {
		return Endpoint{}, err
	}
	m.forgetFlows(e)
	return e, nil
}

// register allocates what an endpoint needs.
func (m *Manager) register(r Request) (Endpoint, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, exists := m.endpoints[r.ContainerID]; exists {
		return Endpoint{}, &kindError{fmt.Sprintf("container %s is attached to a network already", r.ContainerID), errdefs.ErrConflict}
	}
	e := Endpoint{ContainerID: r.ContainerID, NetNS: netNSPath(m.runDir, r.ContainerID)}
	if r.Isolated {
		if len(r.Ports) > 0 {
			return Endpoint{}, invalid("a container without a network cannot publish ports")
		}
		m.endpoints[r.ContainerID] = e
		return e, nil
	}
	var err error
	if e.IP, err = m.addresses.allocate(r.ContainerID); err != nil {
		return Endpoint{}, err
	}
	if e.Ports, err = m.ports.allocate(r.ContainerID, r.Ports); err != nil {
		m.addresses.release(e.IP, r.ContainerID)
		return Endpoint{}, err
	}
	e.PrefixLen, e.Gateway = m.bip.Bits(), m.bip.Addr()
	e.MAC = macOf(e.IP).String()
	e.Bridge, e.HostLink = m.bridge, hostLink(r.ContainerID)
	m.endpoints[r.ContainerID] = e
	m.changed++
	return e, nil
}

// Detach takes a container's network away: rules, link, namespace. A container
// that has none is no error.
func (m *Manager) Detach(ctx context.Context, containerID string) error {
	if err := checkID(containerID); err != nil {
		return err
	}
	m.mu.Lock()
	e, known := m.endpoints[containerID]
	if known {
		// Addresses and ports stay taken until the rules are gone, or the next
		// owner would share them with this one.
		delete(m.endpoints, containerID)
		m.changed++
	} else {
		e = Endpoint{ContainerID: containerID, NetNS: netNSPath(m.runDir, containerID), HostLink: hostLink(containerID)}
	}
	m.mu.Unlock()

	var rulesErr error
	if known && !e.isolated() {
		rulesErr = m.apply(ctx)
	}
	err := errors.Join(rulesErr, removeLeftovers(e))
	if !known || e.isolated() {
		return err
	}
	m.forgetFlows(e)
	m.mu.Lock()
	m.addresses.release(e.IP, containerID)
	m.ports.release(containerID, e.Ports)
	m.mu.Unlock()
	return errors.Join(err, m.trimAddresses())
}

func (m *Manager) live() []Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	live := make([]Endpoint, 0, len(m.endpoints))
	for _, e := range m.endpoints {
		live = append(live, e)
	}
	return live
}

// apply brings the kernel's rules up to every change that was recorded before
// the call. Callers that wait here together are served by one run of nft.
func (m *Manager) apply(ctx context.Context) error {
	m.mu.Lock()
	want := m.changed
	m.mu.Unlock()
	m.applyMu.Lock()
	defer m.applyMu.Unlock()
	if m.applied >= want {
		return nil
	}
	m.mu.Lock()
	now, script := m.changed, m.rulesLocked().script()
	m.mu.Unlock()
	if _, err := m.run(ctx, script, "nft", "-f", "-"); err != nil {
		return fmt.Errorf("cannot apply the network's rules: %w", err)
	}
	m.applied = now
	return nil
}

func (m *Manager) rulesLocked() rules {
	r := rules{bridge: m.bridge, subnets: []netip.Prefix{m.bip.Masked()}}
	for _, e := range m.endpoints {
		if e.isolated() {
			continue
		}
		if s := e.gatewayPrefix().Masked(); !slices.Contains(r.subnets, s) {
			r.subnets = append(r.subnets, s)
		}
		for _, p := range e.Ports {
			r.published = append(r.published, publishedPort{p, e.IP})
		}
	}
	return r
}
