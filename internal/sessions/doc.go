// Package sessions holds the long-lived streams between a client and what it follows: what `docker attach`,
// `docker run -it`, `docker exec`, `docker logs`, `docker wait`, `docker stats` and `docker events` use once HTTP has done its part. They
// survive a restart and a SIGKILL of the daemon.
//
// # Words
//
// A [Conn] is a client's connection taken over from net/http, with what net/http had read of it already.
// [Streams] are what it is joined to. A session is the time between the two, over as many processes as it takes,
// and ends for a reason, an [End]. A piece is what is sent to the client at a time, with everything around it. A
// [Cursor] is a place in what the client gets to see, in the terms of its [Source].
//
//	client ── Conn ──┬── input pump ──▶ detach keys ──▶ Streams.Stdin
//	                 └◀─ output pump ◀─ frames, chunks ◀─ Streams.Output
//
// Output is sent raw (a container with a tty), multiplexed (frames of an 8-byte head, as the Docker Engine API
// defines under "Attach to a container"), chunked (HTTP, with a head that the caller makes), or both of the last.
//
// # What outlives the process
//
// From its start a session has two things that a crash does not reach: its connection in systemd's descriptor
// store, as "session." and an ID, and its state in a file of that ID on a tmpfs (state.go has the drawing), which
// is written in place before and after each step.
//
//	Serve ──► running ──────────────────────────────► ended: put away
//	            │  ▲
//	     Freeze │  │ Restore, which asks the caller to join
//	 or SIGKILL ▼  │ the session to its container again
//	          frozen
//
// A planned stop comes between two steps: every byte is passed on once, both ways, whatever was in flight. After
// a SIGKILL no output is lost; what can be doubled is the one write(2) that was in flight, where it had been taken
// and was not yet on record. What holds of input is said at copyInput.
//
// When the daemon is stopped, and not restarted, another process stands in for it (lrd-standby): a session whose
// Description has Follows goes on there, and comes back. That process does not decide what needs the daemon: a client
// that is gone, or has ended an input that ends the container's, is left for the next daemon to find (Streams.StandIn).
// Where nobody stands in, systemd 254 and later keeps connections until the next start; before, sessions end there.
//
// # How a session ends
//
//	the output's run ended, all of it sent   EndExited    connection closed after the last byte
//	no output asked for, and the run ended   EndExited
//	the detach keys                          EndDetached  the container runs on, its input stays open
//	the client's end of input
//	    StdinOnce, no tty                    (goes on)    the container reads end of file
//	    otherwise                            EndDetached  as Docker does
//	the client is gone                       EndGone      the container runs on; with StdinOnce and no tty it reads end of file
//	the daemon leaves for good               EndStopped   nothing reaches the container
//	the daemon leaves, another one comes     EndFrozen    nothing is sent to anybody; the next process goes on
//
// A client that only shut down its writing side is not gone: a unix socket tells the two apart by POLLHUP.
//
// # Who owns what
//
// [Manager.Serve] owns the connection and closes it, owns its two pumps and waits for them before it returns. A
// session that was restored runs in a goroutine of the Manager's, which [Manager.Freeze] and [Manager.End] wait for.
// The container is never held up by a client: Output is a reader with its own position, so a slow client slows its
// own session only.
package sessions
