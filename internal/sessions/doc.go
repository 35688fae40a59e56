// Package sessions holds the long-lived streams between a client and a container: what `docker attach`,
// `docker run -it` and `docker exec -it` use once HTTP has done its part.
//
// # Words
//
// A [Conn] is a client's connection taken over from net/http, with what net/http had read of it already.
// [Streams] are what it is joined to. A session is the time between the two: [Run] begins it and returns when
// it has ended, with the reason as an [End].
//
//	client ── Conn ──┬── input pump ──▶ detach keys ──▶ Streams.Stdin
//	                 └◀─ output pump ◀─ raw or multiplexed ◀─ Streams.Output
//
// A raw stream is the bytes as they are (a container with a tty). A multiplexed stream carries stdout and
// stderr in frames of an 8-byte head, as the Docker Engine API defines under "Attach to a container": stream
// number, three zero bytes, length as a big-endian uint32.
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
//	ctx is done: the daemon leaves           EndStopped   nothing reaches the container
//
// A client that only shut down its writing side is not gone: a unix socket tells the two apart by POLLHUP.
//
// # Who owns what
//
// Run owns the connection and closes it, owns its goroutines and waits for each of them before it returns.
// The container is never held up by a client: Output is a reader with its own position, so a slow client
// slows its own session only.
package sessions
