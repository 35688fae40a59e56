// Command bench measures lrd beside Debian's docker.io and podman, and writes
// docs/benchmarks.md. `make bench` runs it; `make bench BENCHFLAGS=-quick` is a
// check that it works, whose figures mean nothing.
//
// It boots a lab (SUITE=trixie, with a package tree of its own), in which all
// three run under the same systemd, on the same file system, one at a time:
// the others are stopped while one is measured. The same containers are run
// through the same docker client on each in turn, for some rounds; what is
// printed is the median and the spread over the rounds, and the ratio to lrd.
//
// # Words
//
// An engine is one of the three, with a log driver. A figure is one row of
// the table: its values per engine, one for each round.
//
// # Processor seconds
//
// "Everything that is not the container" is what the whole lab used (its
// control group's cpu.stat: engine, systemd, journald, monitors, runtimes) less what the
// container's own process says it used when it ends. The docker client runs
// outside of the lab and is not counted.
//
// # The program in the containers
//
// It is this program: `bench write` writes output and notes how long it took,
// `bench splice` is the bare loop that lrd is compared with.
package main
