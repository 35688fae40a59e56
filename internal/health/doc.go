// Package health runs health checks of containers where the daemon does not
// have to be: a transient timer of systemd beside the container starts a short
// script, which executes the check's command in the container by way of the
// runtime and adds a line to a file. The package is told nothing and asks
// nobody; it makes the scripts, reads the file, and says what follows from it.
//
// # Words
//
// A [Check] is what is to be run and when (Docker's HEALTHCHECK, with the
// defaults filled in). A probe is one run of it. A [State] is what the probes of
// one invocation of the container have come to: starting, healthy or unhealthy. A
// [Flip] is a change of that, at the end of the probe that brought it.
//
// # Who starts what
//
//	the container's ExecStartPost=   Begin    notes that an invocation begins,
//	                                          makes the timer
//	lrd-health-<id>.timer            every interval, counted from the end of the
//	                                          probe before
//	lrd-health-<id>.service          the probe script: seldom more than some 20 ms
//	the container's ExecStopPost=    End      stops the timer
//
// So a container that systemd starts again while the daemon is away has its
// probes, its own start period, and never two timers; a restart of the daemon
// touches none of this. In a start period with an interval of its own there is
// lrd-health-<id>-start.timer instead: the first probe after the period, or after
// one that went well, puts the ordinary one in its place.
//
// A probe is in the container's control group and namespaces, as `docker exec`
// is. It is killed when its time is up, systemd ends the script if even that does
// not help, and a paused container is not probed. No container's output
// and no event of an exec comes of it.
//
// # On disk
//
//	<the container's runtime directory>/health/
//	    process.json    the command, for the runtime
//	    probe           the script
//	    results         one line for each beginning and each probe:
//	                      INVOCATION_ID begun TIME
//	                      INVOCATION_ID probe NUMBER START END EXIT_CODE
//	    invocation      of the container's unit
//	    number          of the last probe
//	    output.0 … .4   the first 4 KiB of what the last five wrote
//
// TIME is in seconds and nanoseconds since 1970. Of more than a thousand lines
// the older half is dropped; who reads goes on from the number that it knows.
package health
