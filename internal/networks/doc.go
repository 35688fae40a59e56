// Package networks gives containers their network: bridges with
// masquerade and published ports, all of it state of the kernel, so that it
// works on while the daemon is away.
//
// # Words
//
//   - Network: a bridge with its part of the address space. The default one (lrd0)
//     is made from the configuration, its address is the bip; users make others,
//     which are saved, and whose containers find each other by name.
//   - Sandbox: a container's network namespace with its endpoints and published ports.
//     It is plain data: the caller saves it and hands it back to
//     [Manager.Restore].
//   - Endpoint: a container's place in one network: a veth pair with one end in the
//     namespace, and addresses.
//   - Way: of a container's endpoints the one that its packets leave by, and that its
//     published ports lead to.
//   - Published port: a port of the host's addresses that the kernel's NAT sends
//     to a container. There is no proxy process.
//
// # What is where
//
//	<DataDir>/<network id>.json    a network that a user made
//	<RunDir>/<container id>        the network namespace, bind-mounted there, so
//	                               that it exists without a process in it
//	<NamesDir>/<container id>.json what the resolver knows of it; see package names
//	link lrd0, lrd-<11 digits>     the bridges; the digits are the network's ID
//	link lrd<12 digits>            the host's end of a veth pair; the digits are
//	                               the container's ID, or a sum of both IDs
//	nftables table inet lrd        every rule lrd has on the host; see ruleset.go
//	                               for what a packet meets there
//	table ip lrd-names             in a container's namespace: the way to the resolver
//
// # Names
//
// The resolver (cmd/lrd-dns) is a unit of its own and knows what is written for it. A
// container is in the directory of names before it is started, and Attach waits until
// the resolver has read it; a resolver that cannot be reached is logged, and no reason
// for a container not to run. That the container has ended is told by its unit, in
// a file beside (Sandbox.EndedMark), since nobody else may be there to do it.
//
// # The table is replaced, never edited
//
// Every change writes the whole table anew from the networks and the live endpoints and gives it
// to nft(8) as one transaction: the kernel shows the old rules or the new ones,
// nothing between, and a flush by somebody else is healed by any later change
// or by [Manager.Reapply]. Established connections do not notice: they follow
// conntrack(8), not the rules. Other tables are not touched, with one
// exception: where iptables(8) drops what it forwards, two rules for each bridge that accept
// its traffic are put first, since no table can accept what another
// one drops. firewalld knows the bridges by a file of its own (packaging/firewalld). What cannot be cured is told by [Manager.Warnings].
//
// # Lifecycle
//
//	Open ─ bridges exist and are up, their addresses are there
//	  └─ Restore(live sandboxes), once, before any Attach ─ rules apply
//	        ├─ Attach ⇄ Detach of each container; between them Connect ⇄ Disconnect
//	        └─ Create ⇄ Remove of networks; Reapply at any time
//
// There is nothing to close: a Manager owns no goroutine and holds no
// descriptor between calls. Its maps of addresses and ports are rebuilt from
// the sandboxes that Restore is given, so nothing that the daemon forgot can
// make it hand out an address or a port twice.
//
// # Concurrency
//
// All methods may be called at once for different containers. Calls for one
// container are the caller's to order. Three locks: Manager.mu guards what is
// allocated and is never held over a system call that waits; Manager.applyMu
// lets one nft run at a time and is taken before mu; Manager.createMu lets one
// network be made at a time and is taken first. Callers that queue for it
// share the next run: its script holds the state of all of them.
//
// # Testing
//
// Addresses (ipam.go, pools.go), ports (ports.go), rules (ruleset.go) and files of /etc
// (etc.go) are functions of their arguments. The rest is tested as root inside
// a network namespace that the test makes; the machine's own is never touched.
package networks
