// Package units runs and observes systemd's units over D-Bus: transient services, their jobs, and their state. It knows nothing of containers.
//
// # Words
//
// A unit is loaded while PID 1 knows it; a transient one exists only as long. A job (start, stop) is queued for a unit and ends with a result; "done" is
// success, every other one becomes a [JobError]. An InvocationID is one run of a unit: the same name with another ID is another run. See
// org.freedesktop.systemd1(5), from which the property names in [State] are.
//
// # The connection
//
// lrd runs as root and talks to PID 1 directly, over /run/systemd/private as systemctl does, and not over the system bus. So nothing happens when dbus restarts or
// is not there; there is no limit on pending replies and no second process on the way of each message; and PID 1 sends its signals to
// such a connection without being asked. Its one weakness is that it ends with a daemon-reexec. That is an unmistakable end of file, though, while on the bus
// the same gap would be a name that changes hands, with signals lost in silence.
//
//	    ┌────────────── back-off 10 ms … 1 s ◄──────────────┐
//	    ▼                                                   │
//	 dialling ──► connected ──► Resync for the watches ──► lost (daemon-reexec, PID 1 closes)
//	                 │    ▲
//	daemon-reload    ▼    │  (the connection stays; units are unloaded and loaded again)
//	               Resync for the watches
//
// Calls made while the connection is down wait for the next one, within their context. A call that was on its way when it went is repeated if
// that does no harm ([Manager.State], [Manager.List], [Manager.Freeze], …). A job whose signal may have been lost is looked up on the new connection, and when it
// is not there any more its outcome is read from the unit's state: nobody waits for ever. [Manager.Kill] is the exception: a signal is not sent twice, the
// error says that it may have arrived; its kind is errdefs.ErrUnavailable.
//
// # Changes
//
// A [Watch] gets one [Change] for each time that PID 1 announces a unit, with the content of the announcement merged into what was known. Nothing is read back, since a
// unit that exits may be dropped in the same moment: its last announcement, with the exit status, is all that there ever is (and a read by its path would
// make PID 1 load an empty unit of that name, announce that, and drop it again). PID 1 announces a unit's service properties first and its general ones
// second; they are joined here, so a State is never half of two moments.
//
// After a lost connection and after a daemon-reload all watched units are listed, and each that differs from what was last known, or is gone, is delivered as a
// Change; then one with Resync set says that the Watch is complete again. During a daemon-reload PID 1 announces the removal of every
// unit; those are not believed.
//
// For a Watch to notice that a unit vanished unseen it must have known it: make the Watch first and then call List, which is its baseline too.
//
// # Goroutines and locks
//
//   - godbus has one reader per connection. It appends signals to an inbox, hands job results to whoever waits, and never blocks on anything of ours;
//   - Manager.run owns connecting, the inbox, and everything that is known for the watches (type tracker: no locks). It starts one goroutine at a time that
//     lists units for a resync, and waits for it before it goes to the next connection;
//   - each Watch has a goroutine that moves changes from its unbounded queue to its channel: a slow reader holds up nobody.
//
// Close ends all of them. Locks (Manager.mu, jobs.mu, queue.mu) are held for a few instructions each and never together.
//
// # Figures
//
// How state is read was chosen by measurement; see [Manager.List].
package units
