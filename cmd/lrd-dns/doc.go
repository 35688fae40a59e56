// Command lrd-dns answers containers that ask for each other by name. It is a unit of its own, lrd-dns.service, so that names
// work while the daemon is away, and small, because it stays.
//
// # Words
//
// Who is called what comes from the files of package names; that package's comment has the protocol. An index is what the
// directory says at one moment: it is made anew at each change and never changed, so that questions take no lock. A guest is
// one container that can ask: a file, and two sockets in its network namespace; what it can have of the resolver at once is bounded.
//
// # Life of a question
//
//	container ─ 127.0.0.11:53 ─ rule in its namespace ─ 127.0.0.11:61053 ─ guest.ServeDNS
//	  └─ a name or an address of a container in one of its networks? ─ yes: index.go answers
//	       └─ no: forward.go asks other name servers, unless all its networks are internal
//
// # Who owns what
//
//   - run owns the directory's watch and the control socket, and ends when its context does;
//   - resolver.scanMu serialises readings of the directory and guards the guests; resolver.index is an atomic pointer;
//   - a guest owns its sockets until close; the goroutines that serve them are in resolver.serving and end with them.
//
// Nothing is saved: after a crash the next process finds the same directory. A question that comes in between is refused by
// the kernel, and is asked again by the container's own resolver if that tries more than once.
package main
