// Package containers is what a container is and may do: it creates, starts,
// stops, follows and removes containers, and takes them back when the daemon was
// away.
//
// # Words
//
// A container is a Record on disk (what it was made from, and what was last
// known of it) and, while the daemon is there, a Container. A run begins with
// Start and ends when nothing follows the exit: what it stands on is in
// Record.Run, what is live of it in the type run, and run.go has its only
// transitions. Within a run, each time that systemd starts the unit, be it by
// itself, is an invocation. Status is what the container is doing; the drawing of
// its states stands above that type.
//
// # A container is a unit
//
// A run is one transient unit, lrd-<id>.service in lrd.slice, and a child of
// systemd: no process of lrd's stands between. systemd keeps its exit status, its
// limits and its restarts, and lrd is told, or asks.
//
//	ExecCondition=  sh again    only with a restart policy: not while it is being
//	                            stopped, nor more often than the policy allows
//	ExecStart=      sh create   opens the FIFOs by path, runs `crun create`
//	ExecStartPost=  sh start    only with a restart policy or a health check: runs `crun start`,
//	                            and the container's own process begins; otherwise lrd lets it
//	                            begin when the unit is up, see heldFile
//	ExecStopPost=   sh exited   notes the exit; with a restart policy runs `crun delete`
//
// `docker update` changes the unit's properties, and its restart policy by a
// drop-in, as systemd takes that in no other way from a unit that is there. What
// systemctl set-property has changed is shown and kept until the run ends; the
// next one is made from the Record.
//
// The container's processes are in a control group below the unit's, which is what
// a pause freezes; see freezer.go for why.
//
// A clean end of a unit without a restart policy remains (RemainAfterExit=) until
// lrd has taken note. With a policy it cannot, and for the time that the daemon is
// away the list of exits, which the last command writes, has what systemd forgets.
//
// # A command in a container
//
// An Exec (`docker exec`) is a transient unit too, lrd-exec-<id>.service. Its main
// process is the runtime, which starts the command in the container's namespaces,
// waits for it and exits as it does: `crun exec` cannot make a process that waits
// to be started, and one that runs at once may be over before systemd has taken
// it from a PID file. That costs a process of some megabytes for each command that
// runs, and in return systemd knows every exit code.
//
//	ExecStart=     sh exec       enters the container's control group, opens
//	                             the streams, becomes `crun exec`
//	ExecStopPost=  sh exited     notes the exit
//
// The command stays in the container's control group: the container's limits
// hold for it, a pause stops it, and it ends with the container. The runtime is
// moved back into the group of the exec's own unit when the command runs.
//
// What it writes goes through a store of its own, which is removed when the
// client has read it. That has room for what the client lags, some tens of
// megabytes, and then the command waits for it, for as long as it takes. When the
// client has left, what is written is dropped but for the last of it, so that
// a command that nobody listens to neither waits nor fills the disk. A detached
// command without a TTY has no streams. That it ran, and its exit code, is known
// for five minutes after its end, over restarts of the daemon as well. Its client
// survives these too (package sessions), from before the command is started: a start in which the daemon
// is killed is the next one's to go on with, but never to do twice. And its input ends when the client ends
// it, or when the client is found gone. Nobody else can be given hold of its
// streams.
//
// # On disk
//
//	<data-root>/containers/<id>/
//	    record.json                  the Record
//	    output/                      what the container wrote (package output)
//	    forward  <id>-json.log*      its log driver's (package logdrivers)
//	    execs/<id>/                  what a command wrote that has a client
//	    hostname hosts resolv.conf   mounted into the container
//	<data-root>/containers/<id>.removed/  on its way out
//	<exec-root>/containers/<id>/     one run; gone after a reboot
//	    bundle/config.json  again  create  start  exited  held
//	    stdin stdout stderr          FIFOs
//	    console-listener console-pipe  with a TTY instead
//	    pid  runtime.log  exits  exits-<invocation>  stopping
//	    record.json                  a copy of the Record
//	    health/                      its health check (package health)
//	<exec-root>/execs/<id>/          one command in a container
//	    exec.json  process.json  exec  exited
//	    pid  runtime.log  exits, and streams as above
//	<exec-root>/mounts/<id>/<n>      a part of a volume, mounted there for a run
//	<exec-root>/holds/<id>           its root filesystem is mounted for a copy
//	<exec-root>/commits/<id>         it is paused for a commit, and by nobody else
//	<exec-root>/runtime/             the runtime's own
//
// # A container's files, from outside
//
// Whoever copies files holds the root filesystem: it is mounted, and stays so when
// the container ends, until the last of them is done (hold.go). Package rootfs says
// how a copy stays within the container. A copy ends with the daemon, and the client
// is told; the next daemon unmounts what a crash has left mounted.
//
// # What outlives the daemon
//
// Before a unit is started, all that its run needs is where a crash does not reach
// it: descriptors in systemd's store, the Record on disk. So a restart, a crash
// and an upgrade are one path: Restore reads the Records, asks systemd once for
// all units, takes the descriptors, and lets reconcile, a pure function, decide
// on each container. A container that cannot be taken back is shown with
// Status.Reason, runs on, and can be stopped.
//
// When the daemon is stopped for good, and not restarted, all this passes to
// another process, which drains on (HandOver, package handover), and comes back as
// if systemd's store had kept it. A systemd before 254 does not keep it.
//
// The one moment that is not covered is the console of a TTY. The runtime makes
// it and sends it to a socket whose listening end is stored, so that it waits
// there for whoever comes; between its acceptance and its storing lie some
// hundred microseconds in which a SIGKILL loses it. The container's process has
// not begun to run then.
//
// # Events
//
// What happens by itself (start, die, oom, health_status, destroy, exec_start, exec_die) has systemd's or the probe's time, is
// told, and only then on record: a daemon that is killed in between leaves it to the next one to find it out, and tell
// it, again, and Events.PublishOnce knows what was told. So it is told once, however often lrd is killed. What
// a client asks for (create, stop, kill, pause, rename, update) is told when it has been done: a SIGKILL in between
// cuts the client too, and leaves it untold.
//
// # Standard streams
//
// The container's output end is opened for reading and writing, so no write ever
// fails with EPIPE, whoever dies; its input end for reading only, so that it sees
// end of file when the client is done. Our ends are O_RDWR and O_NONBLOCK: they
// show no end either. That a run is over is known from the unit, and then what is
// left in the pipes is taken over until there is nothing more.
//
// A log driver other than local has a forwarder, one more reader of the store, which
// begins when the store is opened and is stopped before it is closed. It never holds the container up, and
// what it has not delivered it delivers under the next daemon, also if the container has ended by then.
// Only a removal waits for it, some seconds.
//
// # Who does what, and locks
//
//   - the caller of an operation works in its own goroutine;
//   - Run hands what systemd says to the container that it is about, and never
//     waits; each container has at most one worker, which ends when there is
//     nothing left to look at. So one that is stuck delays no other;
//   - a container with a TTY has a goroutine that takes consoles in, until
//     disconnect or leave;
//   - Run has one more, which hears of processes that the kernel kills as memory
//     ran out (oom.go);
//   - Close ends all of them and waits for them.
//
// An Exec that systemd has said something of has a worker likewise.
//
// Container.op serialises what sets a run up or puts it away; Container.mu guards
// the fields; Manager.mu guards the index. They are taken in the order Manager.mu,
// or op, then Container.mu, then the one of its streams or of its inbox. Stop and
// Kill hold none while they wait.
package containers
