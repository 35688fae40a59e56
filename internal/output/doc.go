// Package output keeps what a container writes: not one byte lost, doubled or
// torn, over a planned restart of the daemon and over its SIGKILL alike.
//
// # Words
//
// A Log is the output of one container. A source is a descriptor that the
// container writes into: a FIFO for each of standard output and standard
// error, or the master of its console. A drain is the goroutine that carries
// one source into the Log. A record is one entry of the index: which bytes of
// which stream arrived at which time. A run lasts from one start of the
// container to its exit. A Reader gives raw bytes in the order in which they
// arrived, Lines gives whole lines as `docker logs` shows them.
//
// # On disk
//
//	<dir>/
//	  stdout.0000000000000000   the bytes of standard output, nothing else
//	  stderr.0000000000000000   the bytes of standard error
//	  index.0000000000000000    32 byte records, append only (see record.go)
//
// The number in a name is where the file begins, in hexadecimal: the offset in
// its stream of a data file's first byte, the number of the first record of an
// index. Today there is one file of each, from 0; rotation adds others.
//
// # A byte's way
//
//	write(2) → FIFO → splice(2) to the data file at an explicit offset
//	                → one record to the index → readers woken
//
// Data first, then the record. What a process that dies leaves behind is
// therefore always a data file that is complete, and an index that lacks at
// most its last records:
//
//	killed before or in the splice   the kernel takes from the pipe exactly
//	                                 what it has put into the file; the rest
//	                                 is still in the pipe
//	killed after the splice          the file's size shows bytes that no record
//	                                 covers: Open writes one, flagged as
//	                                 recovered, with the file's mtime
//	killed in writing the record     Open cuts the torn record, then as above
//	power lost                       the index may be ahead of the data, or end
//	                                 in rubbish: Open cuts it back to the last
//	                                 record that the data bears out
//
// The size of the data file is the truth, everything else follows from it.
// Nothing is ever synced: what the kernel has, a dead process cannot take
// along; against power loss output is as safe as any other file.
//
// For this the FIFO must outlive the process: somebody else holds it too
// (lrd: systemd's file descriptor store). The Log's own open description is
// O_RDWR, so that it never reports an end, and O_NONBLOCK; the container has
// its own.
//
// # Consoles
//
// splice(2) wants a pipe on one side, and a console is none. There are two
// ways. Drain with Console reads into memory and writes to the file, at once:
// a SIGKILL between the two loses that one read, at most 4095 bytes (what the
// line discipline holds), and under a writer that goes flat out most kills do
// (TestKillConsolePlain prints it: 50 to 66 kB in 20 kills). DrainThrough puts a pipe between, which the caller
// keeps in systemd's store as it does the FIFOs: console → pipe → file, both
// by splice, and a SIGKILL loses nothing, as what the console has given is
// either in the pipe or in the file (TestKillConsole). It is the way to take.
//
// A console without an open slave answers EIO. That is a state, not the end: a
// process that opens the slave later is heard again.
//
// # When the disk is full
//
// A drain never drops. Any error in writing is logged once, the write tried
// again after a pause (Options.RetryPause), for as long as it takes; meanwhile
// the container is held back by its full pipe, as a writer to a full disk is.
//
// # Readers
//
// A reader owns its position and reads the files by itself. It never holds a
// drain up: waking it is a send into its channel that cannot block. It sees a
// record only when the record is wholly in the index, so what it has handed
// out is never taken back by a crash, and a Position saved before a SIGKILL is
// good after it.
//
// # Runs
//
// BeginRun and EndRun write markers into the index, and every record says
// whether a run was going on: the answer survives the daemon. EndRun takes
// over what lies in the pipes at that moment, then ends the readers which
// reach the marker with io.EOF. Drains go on, as systemd may start the next
// run without asking.
//
// # Concurrency
//
// All methods of a Log may be called at any time by anybody; EndRun and
// BeginRun of one Log are the business of one caller at a time. A Reader or
// Lines belongs to one goroutine; there may be any number of them.
//
// Every drain is a goroutine that the Log starts and ends: StopDrains and
// Close return when they are gone. There is no other goroutine. The Log owns
// the descriptors of its files and, from Drain on, of the sources. One process
// at a time has a Log open (flock(2) on the index): ErrBusy tells a second.
//
// What a source's raw descriptor number is used for, is used under stream.mu
// and not after source.gone is set there; only then is the file closed, and
// without the lock, for closing waits for who is using it.
//
// Locks, in the order in which they are taken: stream.mu (one write to a data
// file and its record), Log.appendMu (the order of the index), Log.mu (what is
// published; never held over a system call). Log.sourcesMu stands before all.
package output
