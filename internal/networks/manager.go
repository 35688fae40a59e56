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
	"github.com/moby/moby/api/types/network"
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

// Options say how the default network looks, and where everything is.
type Options struct {
	// Bridge is the name of the default network's link; "" is DefaultBridge.
	Bridge string
	// Bip is its address and subnet; the zero value is DefaultBip.
	Bip netip.Prefix
	// FixedCIDR is the part of the subnet that containers get addresses from; the zero value is all of it.
	FixedCIDR netip.Prefix
	// MTU of the bridge and of containers' interfaces, in bytes; 0 is
	// DefaultMTU.
	MTU int
	// Pools are where networks that name no subnet get theirs; nil is DefaultPools.
	Pools []Pool
	// DataDir holds the networks that users made; "" for none.
	DataDir string
	// RunDir holds the network namespaces. It is made if it does not exist,
	// and must be on a mount that containers' units see: their runtime opens
	// the paths.
	RunDir string
	// NamesDir and NamesSocket are those of package names; "" for no names.
	NamesDir, NamesSocket string
	// Log may be nil.
	Log *slog.Logger
	// Run runs a program (nft, iptables) with an input and gives its standard
	// output; nil runs the real one.
	Run Runner
}

// Runner runs a program to its end.
type Runner func(ctx context.Context, input, name string, args ...string) ([]byte, error)

// Manager is all networks of this host. See the package's comment for locks and
// lifecycle.
type Manager struct {
	o       Options
	builtin Network // the default one
	log     *slog.Logger
	run     Runner

	// createMu lets one network be made at a time, since it looks for addresses that nobody has; it is taken first.
	createMu sync.Mutex
	// applyMu lets one nft run at a time; it is taken before mu. applied is the
	// change that the kernel has seen, and belongs to it.
	applyMu sync.Mutex
	applied uint64

	// mu guards what follows; it is not held over anything that waits.
	mu        sync.Mutex
	networks  map[string]*pool   // by ID
	sandboxes map[string]Sandbox // by container
	ports     *portTable
	changed   uint64 // counts changes of what rules depend on
	warnings  []string
	// inIptables are the bridges that have rules in iptables: "iptables lrd0", "ip6tables …".
	inIptables map[string]bool
}

// pool is a network with its addresses.
type pool struct {
	Network
	v4, v6 *ipam // v6 is nil in a network without
}

func newPool(n Network) *pool {
	p := &pool{Network: n, v4: newIPAM(n.Name, n.Subnet4())}
	if s, ok := n.Subnet6(); ok {
		p.v6 = newIPAM(n.Name, s)
	}
	return p
}

// releaseAll gives back all addresses of an owner.
func (p *pool) releaseAll(owner string) {
	p.v4.releaseAll(owner)
	if p.v6 != nil {
		p.v6.releaseAll(owner)
	}
}

// Open makes the bridges and their addresses, or finds them as they are; the rules
// are left as they are until Restore. A bridge with other addresses keeps them until Restore has told which
// containers live by them. A link of the default bridge's name that is no bridge is
// ErrFailedPrecondition; a bip that cannot be one is ErrInvalidArgument. What is wrong with one of the other networks is
// logged, and told again when somebody wants to be in it.
func Open(ctx context.Context, o Options) (*Manager, error) {
	m := &Manager{o: o, log: o.Log, run: o.Run, networks: map[string]*pool{}, sandboxes: map[string]Sandbox{}, inIptables: map[string]bool{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.run == nil {
		m.run = runProgram
	}
	if m.o.Pools == nil {
		m.o.Pools = DefaultPools()
	}
	var err error
	if m.builtin, err = builtin(o); err != nil {
		return nil, err
	}
	if o.RunDir == "" {
		return nil, invalid("no directory for network namespaces")
	}
	m.networks[m.builtin.ID] = newPool(m.builtin)
	if o.DataDir != "" {
		saved, failed, err := load(o.DataDir)
		if err != nil {
			return nil, err
		}
		for _, n := range saved {
			m.networks[n.ID] = newPool(n)
		}
		for file, err := range failed {
			m.log.ErrorContext(ctx, "Cannot read a network; its containers go on, and it cannot be joined", "file", file, "error", err)
		}
	}
	first, last := ephemeralPorts()
	m.ports = newPortTable(first, last, bindProbe)
	if err := ensureHost(); err != nil {
		return nil, err
	}
	if err := ensureBridge(m.builtin); err != nil {
		return nil, err
	}
	m.ensureOthers(ctx)
	// Not the rules: nobody's ports are known yet, and those that the last
	// daemon left must work until Restore says what they should be.
	m.changed++
	m.examine(ctx)
	return m, nil
}

// builtin is the default network.
func builtin(o Options) (Network, error) {
	bip := o.Bip
	if bip == (netip.Prefix{}) {
		bip = netip.MustParsePrefix(DefaultBip)
	}
	n := Network{
		ID: BuiltinID(network.NetworkBridge), Name: network.NetworkBridge,
		Bridge: cmp.Or(o.Bridge, DefaultBridge), MTU: cmp.Or(o.MTU, DefaultMTU),
	}
	if err := errors.Join(checkBip(bip), checkBridgeName(n.Bridge), checkMTU(n.MTU)); err != nil {
		return Network{}, err
	}
	s := Subnet{Subnet: bip.Masked(), Gateway: bip.Addr()}
	if r := o.FixedCIDR; r.IsValid() {
		if !s.Subnet.Contains(r.Addr()) || r.Bits() < s.Subnet.Bits() {
			return Network{}, invalid("invalid fixed-cidr %s: it is not part of the network of bip, %s", r, s.Subnet)
		}
		s.IPRange = r.Masked()
	}
	n.Subnets = []Subnet{s}
	n.Options = map[string]string{
		optionDefault: "true", optionICC: "true", optionMasq: "true", optionBridge: n.Bridge,
		optionMTU: fmt.Sprint(n.MTU), optionHostIP: netip.IPv4Unspecified().String(),
	}
	return n, nil
}

func checkMTU(mtu int) error {
	// 68 is the least that IPv4 allows (RFC 791), 65535 what a datagram
	// can be.
	if mtu < 68 || mtu > 65535 {
		return invalid("invalid MTU %d: 68 to 65535", mtu)
	}
	return nil
}

// Gateway is the default bridge's address: the host, as containers see it.
func (m *Manager) Gateway() netip.Addr { return m.builtin.Subnet4().Gateway }

// Warnings are what an administrator should know about the host's network,
// as of the last Open or Reapply: each a sentence with what to do.
func (m *Manager) Warnings() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.warnings)
}

// Sandbox is a container's, as the last change of it left it.
func (m *Manager) Sandbox(containerID string) (Sandbox, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.sandboxes[containerID]
	return s, ok
}

// Sandboxes are those of all containers that are alive.
func (m *Manager) Sandboxes() []Sandbox {
	m.mu.Lock()
	defer m.mu.Unlock()
	live := make([]Sandbox, 0, len(m.sandboxes))
	for _, s := range m.sandboxes {
		live = append(live, s)
	}
	return live
}

// Reapply puts everything back that somebody else may have taken away: the
// bridges and their addresses, the containers' places at them, the host's settings
// and the rules. It changes nothing where nothing is missing, and connections
// stay up. It is for a reload and for after a restart of nftables.service.
func (m *Manager) Reapply(ctx context.Context) error {
	if err := ensureHost(); err != nil {
		return err
	}
	if err := ensureBridge(m.builtin); err != nil {
		return err
	}
	m.ensureOthers(ctx)
	for _, s := range m.Sandboxes() {
		for _, e := range s.Endpoints {
			// A container whose link is gone is no reason to leave the others
			// without rules.
			if err := m.repair(s, e); err != nil {
				m.log.WarnContext(ctx, "a container's network cannot be repaired", "container", s.ContainerID, "network", e.Network, "error", err)
			}
		}
		m.tell(ctx, s)
	}
	m.sync(ctx)
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

// ensureOthers makes the bridges of users' networks, as far as it can.
func (m *Manager) ensureOthers(ctx context.Context) {
	for _, n := range m.Networks() {
		if n.Default() {
			continue
		}
		if err := ensureBridge(n); err != nil {
			m.log.ErrorContext(ctx, "Cannot make the bridge of a network", "network", n.Name, "error", err)
		}
	}
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

// Networks are all networks, the default one first and the others by name.
func (m *Manager) Networks() []Network {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Network, 0, len(m.networks))
	for _, p := range m.networks {
		all = append(all, p.Network)
	}
	slices.SortFunc(all, func(a, b Network) int {
		if a.Default() != b.Default() {
			if a.Default() {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// Network finds a network by its name, its ID or the beginning of exactly one. ErrNotFound, in Docker's words; ErrInvalidArgument
// for a beginning of several.
func (m *Manager) Network(ref string) (Network, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.findLocked(ref)
	if err != nil {
		return Network{}, err
	}
	return p.Network, nil
}

func (m *Manager) findLocked(ref string) (*pool, error) {
	var found []*pool
	for _, p := range m.networks {
		whole, partly := p.matches(ref)
		if whole {
			return p, nil
		}
		if partly {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, &kindError{fmt.Sprintf("network %s not found", ref), errdefs.ErrNotFound}
	}
	return nil, invalid("network %s is ambiguous (%d matches found based on ID prefix)", ref, len(found))
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

// behind says that the kernel's rules are those of an earlier time, because an apply has failed since Restore.
func (m *Manager) behind() bool {
	m.applyMu.Lock()
	defer m.applyMu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied > 0 && m.applied < m.changed
}

// rulesLocked is what the rules depend on. A network that is gone, or has another address now, is in them for as long as
// somebody lives by it.
func (m *Manager) rulesLocked() rules {
	bridges := map[string]*bridgeRules{}
	add := func(b bridgeRules, subnets ...netip.Prefix) {
		have := bridges[b.name]
		if have == nil {
			have = &b
			bridges[b.name] = have
		}
		for _, s := range subnets {
			if s = s.Masked(); !slices.Contains(have.subnets, s) {
				have.subnets = append(have.subnets, s)
			}
		}
	}
	for _, p := range m.networks {
		add(bridgeRules{name: p.Bridge, internal: p.Internal, apart: p.Apart, unmasked: p.Unmasked}, p.addresses()...)
	}
	var r rules
	for _, s := range m.sandboxes {
		for _, e := range s.Endpoints {
			add(bridgeRules{name: e.Bridge, internal: e.Internal, apart: e.Apart, unmasked: e.Unmasked}, e.gateways()...)
		}
		r.published = append(r.published, s.published()...)
	}
	for _, b := range bridges {
		r.bridges = append(r.bridges, *b)
	}
	return r
}

// published are the container's published ports with where they lead.
func (s Sandbox) published() []publishedPort {
	var list []publishedPort
	for _, p := range s.Ports {
		v6 := p.hostIP().Is6()
		e, ok := s.way(v6)
		if !ok {
			continue
		}
		to := e.IP
		if v6 {
			to = e.IP6
		}
		list = append(list, publishedPort{p, to})
	}
	return list
}
