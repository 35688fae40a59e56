// Package vm tests the real lrd in a full virtual machine: a Debian kernel of
// its own with all controllers of cgroup v2, systemd 257 as PID 1, a disk, and
// a shutdown that is one. It is for what a lab (test/lab/lab) cannot show
// everywhere: that limits take effect, and what becomes of containers when the
// machine goes down and comes up again.
//
// It holds nothing but tests, which need the build tag "vm" and root: `make
// test-vm`. qemu emulates the processor in software, so that any machine will
// do, and takes minutes; hence this is no part of `make test`.
//
// # How it works
//
//	go test ── qemu ─┬─ /dev/vda   the system's disk (lab vm), in a snapshot that is thrown away
//	                 ├─ /dev/vdb   a tar archive: lrd as `make install` installs it, and testdata/agent
//	                 ├─ ttyS0      console, into a file: its end is shown if something fails
//	                 └─ ttyS1      the agent: a line with a script in base64 goes in, a line with its
//	                               exit code and its output comes out; it says "ready" after each boot
//
// There is one machine for one test, TestMachine, whose subtests follow on each
// other. Nothing depends on how fast it is: the limits are there to end.
//
// # Environment
//
//	LRD_BIN   the lrd to test, with its helpers beside it (default bin/lrd of this checkout)
//	LRD_LAB   the lab command (default test/lab/lab of this checkout)
package vm
