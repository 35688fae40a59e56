// Package reload applies a changed configuration to a running daemon: all of it that can be applied without a restart,
// or nothing.
//
// # Life of a reload
//
//	Reload ──► RELOADING=1 ──► Load ──► Diff ──► Prepare, one Reloader after the other ──► commit all ──► READY=1
//	                             │                  │
//	                             └── error ─────────┴──► what was prepared is dropped; READY=1, STATUS= tells why
//
// A [Reloader] prepares and returns a function that commits. Preparing may fail and changes nothing that anybody sees;
// committing cannot fail. There is no rollback because there is never anything to roll back: until every Reloader has
// prepared, nothing has happened.
//
// What a Reloader is given as the new configuration is what will be in force: reloadable keys from the files, the others
// still as they are (config.Reloaded). Keys that changed but need a restart are named in the [Report], at every reload
// until the restart.
//
// # Concurrency
//
// One reload runs at a time, in a goroutine that the [Coordinator] owns and Close waits for. Callers that arrive while
// one is running share the next one: each gets the answer of a load that began after its call. A caller that goes away
// does not end the reload, and [Options].Timeout bounds it.
//
// Current is what is in force. An operation takes it once and keeps it: a reload never changes a configuration under
// somebody's feet.
//
// READY=1 is sent after a failed reload too: the daemon is as ready as before, and systemd waits for it. That the reload
// failed is told by Reload's error, which `lrd reload`, and with it `systemctl reload lrd`, turns into its exit
// code, and by STATUS=.
package reload
