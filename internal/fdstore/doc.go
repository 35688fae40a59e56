// Package fdstore keeps open descriptors alive while the process is not there: it is the client's side of systemd's file descriptor store.
//
// # Words
//
// The store is a list of (name, descriptor) pairs that PID 1 holds for one service. What is put into it is handed to the service's next
// main process next to the sockets of its socket units, marked with its name. The name (FDNAME) is the only key: names need not be unique, and
// the order in which descriptors come back means nothing (systemd prepends, and reverses at daemon-reexec). See sd_notify(3),
// sd_listen_fds(3), FileDescriptorStoreMax= in systemd.service(5), and https://systemd.io/FILE_DESCRIPTOR_STORE.
//
// # Life of a descriptor
//
//	Put ─────────► stored ──── the service restarts or crashes ───► Receive ─► Take
//	                │  ▲                                                        │
//	                │  └── it stays stored: receiving takes nothing out ◄───────┘
//	             Remove
//	                ▼
//	              gone (once every other copy is closed too)
//
// Closing one's own copy of a stored descriptor does not close the resource behind it: a peer sees no hang-up and a writer no EPIPE until the store
// lets go too. So what is done with is removed from the store, and names that a newer version does not know are removed at its start.
// When systemd itself drops the store: the service is stopped (not restarted) on systemd before 254, or fails for good.
//
// # What is certain
//
// A notification is a datagram without an answer. Two checks make one of it:
//
//   - a barrier (sd_notify_barrier(3)): systemd closes the write end of a pipe when it has come to that message, thus everything sent
//     before it has been processed. Every method that changes the store ends with one, unless the count proves as much, and a barrier that does not come is an error;
//   - a count (the unit's property NFileDescriptorStore): "processed" is not "kept". Over FileDescriptorStoreMax= systemd closes what it was sent and
//     says so in its own log only; a descriptor of an open file description that is already stored is skipped in silence, under whatever name. [Store.Put]
//     and [Store.PutAll] compare the count before and after, and report [ErrRefused].
//
// # Descriptors
//
// Receive sets CLOEXEC on all it finds: a container's console must not leak into the next child. It never changes O_NONBLOCK, which belongs to the open
// file description and thereby to the container at its other end too. A description that is already non-blocking gets an [os.File] that
// uses Go's poller (deadlines work, Close interrupts Read); a blocking one pins a thread while it is read.
//
// Put borrows its files: it sends a duplicate, the caller goes on owning what it passed. Nothing here calls (*os.File).Fd, which has changed blocking mode
// in some Go versions. FDPOLL=0 goes along with every descriptor, otherwise systemd would drop it by itself at the first hang-up or error.
//
// # Concurrency
//
// All methods of [Store] and [Set] may be called from several goroutines. Changes of the store are made one after the other (Store.mu), because the count
// before and after belongs to exactly one of them. The package starts no goroutine.
package fdstore
