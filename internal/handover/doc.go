// Package handover is how lrd passes what it holds of running containers to lrd-standby when it is stopped, and how
// it gets that back when it starts: the protocol, and both its ends.
//
// # Words
//
// The daemon is lrd. The standby is lrd-standby.service, which drains the containers' output while there is no
// daemon. What passes is a Holding: Logs, which are the stores of output to drain into, and Files, which are
// descriptors under the names that they have in the daemon's store (package fdstore): <64 hexadecimal digits>.<what>
// for the streams of a container or of a command in one, session.<ID> for a client's connection.
//
// # The protocol
//
// A unix socket of packets, at [Socket]: a packet is a JSON object and, where it has names, as many descriptors. The
// daemon asks, the standby answers each question but one. Both sides name their [Version] in each packet, and refuse
// another one's.
//
//	a stop                                        a start
//	daemon                      standby           daemon                    standby
//	hold {logs, files} ───────▶ stores them       give ───────────────────▶ stops draining,
//	             ◀─────────── ok, on record             ◀─ {files} {files} … closes the Logs
//	   (any number of times)                      stores what is new
//	closes a Log                                  taken ──────────────────▶ forgets all
//	release {its ID} ─────────▶ drains it               ◀────────────── ok
//	   (for each, no answer)                      opens the Logs
//	begin ────────────────────▶ drains all,
//	             ◀─── ok        serves sessions
//
// # What holds it together
//
// Until the standby has answered ok, what was passed is the daemon's; until the standby is told taken, it is the
// standby's too. Whoever dies in between, the other has all of it, and the question can be asked again.
//
//   - Nobody drains a Log that another process drains: output.Open takes a lock. A standby that was told too early, or
//     started again after a crash, tries until it gets it.
//   - Nobody serves a session that another process serves: sessions are frozen before they are passed, both ways, and
//     a daemon restores them only when it was answered to taken.
//   - A daemon that goes away between give and taken has not taken anything: the standby drains on.
//   - A standby that does not answer is killed by the daemon, starts again with what its own descriptor store has, and
//     is asked again. One that still does not answer is revoked: the daemon removes its record ([Record]), without
//     which it has nothing to do.
//
// # Concurrency
//
// A Client belongs to one goroutine. Serve runs in its caller's, and calls the Keeper from there alone. No other
// goroutine is left when a function returns.
package handover
