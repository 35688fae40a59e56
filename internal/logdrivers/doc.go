// Package logdrivers carries a container's output on from lrd's own store to
// where its log driver wants it: each line once, over a restart of the daemon
// and over its SIGKILL alike.
//
// # Words
//
// A Forwarder reads one container's output.Log and delivers it to a target: a
// file, the journal, a server. What it delivers are entries: lines, cut into
// pieces of 16 KiB as Docker cuts them. An entry's ordinal is its number, from
// 1, since the container was created. A batch is what is delivered between two
// writings of the state.
//
//	FIFO ─ drain ─► store ─ Reader ─► splitter ─ entries ─► target
//	                  ▲                                        │
//	                  └──────── position ◄── state file ◄──────┘
//
// The store is what `docker logs` and attached clients are served from,
// whatever the driver. A forwarder is one more reader of it: it never holds the
// container up, and a target that is slow or gone is caught up with later. While
// lrd is not there nothing is delivered; the next one goes on from the state.
//
// # Once
//
// What an entry looks like depends on nothing but the store: the bytes, the
// time at which they arrived, and what was said at the container's creation.
// The state says up to where a batch has been delivered for sure. A daemon that
// was killed may have delivered more, and the same entries, made again, find out how
// much more from the target:
//
//	json-file  what the file holds behind the size in the state is compared
//	           with what would be written, and not written again. The file never
//	           becomes shorter, so who follows it notices nothing.
//	journald   each entry has its ordinal in a field, and the journal is asked
//	           for the last one. It is asked only if there is something to send
//	           and the daemon before did not end in order.
//	syslog     nobody can be asked: the last batch may be sent twice after a
//	           SIGKILL. Over TCP a batch counts as delivered when the other
//	           side's kernel has confirmed it; over UDP when it has been sent.
//	fluentd    the server confirms each entry, but cannot be asked which it has,
//	           and takes what it has once more: the forward protocol's "chunk"
//	           is only what a confirmation answers to, and it promises "at least
//	           once". The one entry that was sent and not yet on record as
//	           confirmed comes twice after a SIGKILL; without confirmations
//	           (fluentd-request-ack=false) up to a hundred.
//
// # The state
//
// One small file for each container, two slots that are written in turn, each with a
// number and a checksum (state.go). A write that was cut short leaves the other
// slot. It holds the position in the store, the last ordinal, the
// beginnings of lines that are not complete yet, and what the target wants to find
// again. Nothing is synced: like the store, it is safe against the death of
// the process, and against power loss as safe as any file.
//
// # Files
//
//	<dir>/<id>-json.log      what is being written
//	<dir>/<id>-json.log.1    the one before (.1.gz if compressed), and so on
//	<dir>/<id>-json.log.1.gz.tmp  being compressed
//	<dir>/forward            the state
//
// A file is turned over in steps of which each can be repeated: the others
// move up from the first gap on, so that after a SIGKILL in the middle the rest
// of the steps is taken and none twice (jsonrotate.go).
//
// # Who does what
//
// A Forwarder is one goroutine, from Start to Stop, or until the Log is closed
// or, once retired, read to its end. It owns the target, the
// state file and the reader. When it has delivered everything, it saves the state, gives
// its buffers back and waits. A target that fails is tried again, with growing
// pauses, for as long as it takes; that is logged once, and once that it is over.
//
// Drivers holds what forwarders have in common: the counters, how many may ask
// the journal at a time, and how many of those that are behind may be busy, so
// that drains find a processor (yield.go). All its methods may be called by anybody.
package logdrivers
