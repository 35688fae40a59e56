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
// # Output
//
// A container that writes waits for a go-ahead, and ends when everything is
// measured. So the start and the end of containers do not weigh in: the time is
// from the go-ahead until the last line is in the file that the engine logs to,
// which is looked into each two milliseconds, the same way for all. That it
// is what `docker logs` then tells is checked, but not in that time. Where a
// forwarder is behind, the time after which the containers had written
// everything is a figure of its own.
//
// As much memory as is about to be written is used and given back before each
// measurement: the first use of a page in a virtual machine costs what its host
// takes to find one, which has nothing to do with who happens to come first.
//
// Slow engines are given fewer bytes (engine.part): their figures are per
// second and per GiB, and waiting for them is most of the time that this takes.
//
// # Processor seconds
//
// "Everything that is not the container" is what the whole lab used (its
// control group's cpu.stat: engine, systemd, journald, monitors, runtimes) in the
// same time, less what the container's own process says it used since the go-ahead.
// The docker client runs outside of the lab and is not counted.
//
// # The program in the containers
//
// It is this program: `bench write` writes output and notes how long it took,
// `bench splice` is the bare loop that lrd is compared with. The loop's writer is
// of the same kind, outside of a container.
package main
