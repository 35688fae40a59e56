// Package names is what the daemon and the resolver of containers' names (cmd/lrd-dns) know of each other: a directory of
// small files, and a socket to ask whether they have been read.
//
// # Words
//
//   - Container: one file. It says where a container's network namespace is, which networks it is in, and what it is called
//     in each.
//   - Ended: a mark beside the file. While it is there, nobody is told the container's addresses: its run is over, and its
//     place in the network is kept for the next one, which systemd may begin by itself.
//
// # On disk
//
//	/run/lrd/dns/<container id>.json     a Container; written by the daemon, replaced atomically
//	/run/lrd/dns/<container id>.ended    the mark; made by ExecStopPost= of the container's unit and removed by its
//	                                     ExecStart=, so that it is right while the daemon is away
//	/run/lrd/dns.sock                    systemd's socket for the resolver
//
// The directory is the whole truth: the resolver keeps nothing that it could not read again, so it can be killed, replaced
// and started at any time, with or without a daemon.
//
// # The socket
//
// To connect is to ask: the resolver reads the directory, has everything in place that it says, and answers with one line,
// "ok". With that a container is started only when it can ask. The connection also starts a resolver that does not run.
//
// # In the container
//
// The container's resolv.conf names [Server]. The resolver listens inside the container's network namespace, at [Server] and
// [Port], and a rule in there leads port 53 of the address to it: port 53 stays free for name servers that are in a
// container.
package names
