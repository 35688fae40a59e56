// Package networks gives containers their network: the default bridge with
// masquerade and published ports, all of it state of the kernel, so that it
// works on while the daemon is away.
//
// # Words
//
//   - Bridge: the host's side of the default network (lrd0). Its address, the
//     bip, is every container's gateway.
//   - Endpoint: one container's place in a network: a network namespace by
//     path, a veth pair with one end in it as eth0, an address, published ports.
//     It is plain data: the caller saves it and hands it back to
//     [Manager.Restore].
//   - Published port: a port of the host's addresses that the kernel's NAT sends
//     to a container. There is no proxy process.
//
// # What is where
//
//	<RunDir>/<container id>        the network namespace, bind-mounted there, so
//	                               that it exists without a process in it
//	link lrd0                      the bridge
//	link lrd<12 digits of the id>  the host's end of a container's veth pair
//	nftables table inet lrd        every rule lrd has; see ruleset.go for what a
//	                               packet meets there
//
// # The table is replaced, never edited
//
// Every change writes the whole table anew from the live endpoints and gives it
// to nft(8) as one transaction: the kernel shows the old rules or the new ones,
// nothing between, and a flush by somebody else is healed by any later change
// or by [Manager.Reapply]. Established connections do not notice: they follow
// conntrack(8), not the rules. Other tables are not touched, with one
// exception: where iptables(8) drops what it forwards, two rules that accept
// the bridge's traffic are put first, since no table can accept what another
// one drops; what cannot be cured is told by [Manager.Warnings].
//
// # Lifecycle
//
//	Open ─ bridge exists and is up, its address is there
//	  └─ Restore(live endpoints), once, before any Attach ─ rules apply
//	        └─ Attach ⇄ Detach of each container; Reapply at any time
//
// There is nothing to close: a Manager owns no goroutine and holds no
// descriptor between calls. Its maps of addresses and ports are rebuilt from
// the endpoints that Restore is given, so nothing that the daemon forgot can
// make it hand out an address or a port twice.
//
// # Concurrency
//
// All methods may be called at once for different containers. Calls for one
// container are the caller's to order. Two locks: Manager.mu guards what is
// allocated and is never held over a system call that waits; Manager.applyMu
// lets one nft run at a time and is taken before mu. Callers that queue for it
// share the next run: its script holds the state of all of them.
//
// # Testing
//
// Addresses (ipam.go), ports (ports.go), rules (ruleset.go) and files of /etc
// (etc.go) are functions of their arguments. The rest is tested as root inside
// a network namespace that the test makes; the machine's own is never touched.
package networks
