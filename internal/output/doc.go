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
// arrived, Lines gives whole lines as `docker logs` shows them. A segment is a
// stretch of the Log in files of its own; a part is one of these files. A notice
// is what a reader has to know and no byte says.
//
// # On disk
//
//	<dir>/
//	  stdout.0000000000000000      the bytes of standard output, nothing else
//	  stderr.0000000000000000      the bytes of standard error
//	  index.0000000000000000       32 byte records, append only (see record.go)
//	  stdout.0000000001312d00.zst  compressed (see packed.go); `zstdcat` reads it
//	  *.new                        being made; means nothing after a crash
//
// The number in a name is where the file begins, in hexadecimal: the offset in
// its stream of a data file's first byte, the number of the first record of an
// index. So positions mean the same however the Log is cut into segments.
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
// A drain waits for a FIFO through its gate (gate.go), so that neither the
// writer nor the drain pays for each small write. Many of them in a row the
// drain lets gather for a millisecond (trickle.go).
//
// For all this the FIFO must outlive the process: somebody else holds it too
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
// # Rotation
//
// When the segment that is written has Options.MaxSize bytes, its index
// included, the drain that finds it so begins the next one (rotate.go has the
// steps, and what a SIGKILL leaves after each). All three files turn over
// together, but a stream of which nothing came keeps its file. A segment may end
// in the middle of a line; its index says so, and Lines do not begin with the
// rest of a line whose beginning is gone.
//
// Of more than Options.MaxFiles segments the oldest go. One goroutine, tidy,
// deletes them and compresses the closed ones, at the lowest priority, one file
// at a time in the whole process. Files that a reader has open stay readable.
//
// # When the disk is full
//
// Any error in writing is logged once, and the write tried again after a pause
// (Options.RetryPause), for as long as it takes. Meanwhile, as Options.OnFull
// says, the container is held back by its full pipe, as a writer to a full disk
// is, and nothing is lost; or the drain drops the oldest bytes of a pipe that is
// more than half full. What it dropped it notes in the index, for which room is
// reserved there: how many bytes of which stream, from when to when. Readers show
// the notes as notices, and Options.OnIncident is told. A SIGKILL loses the count
// of what was dropped since the last note, at most a minute's.
//
// With Options.NonBlocking nothing holds the container up: no full disk, no
// reader. The buffer of Docker's max-buffer-size is the pipe.
//
// # What came late
//
// The time of a record is when its bytes were taken from the source. Of those
// that lay there before the drain was (nobody drained: the daemon was away, and
// no standby), and of those that Open found in a data file without a record, it
// says too late a time. They are marked as such, and a reader is given both
// bounds: Chunk.Time, and Chunk.After, the last moment at which something
// is known to have drained: a note of a Close, or the record before. `docker logs -t`
// shows the later one, which keeps times in order, and `--details` also the other.
//
// # Readers
//
// A reader owns its position and reads the files by itself. Waking it is a send
// into its channel that cannot block. It sees a
// record only when the record is wholly in the index, so what it has handed
// out is never taken back by a crash, and a Position saved before a SIGKILL is
// good after it.
//
// What a reader has still to read rotation keeps for it, up to 64 MiB or as much
// as it keeps anyway, whichever is more. Beyond that the container is slowed to
// the reader's pace: Log.rotate is the one place for that. But a reader that has
// not moved for ten seconds, or that yields (forwarders do), or any with
// NonBlocking, is given up instead (never if Options.Patient says so): it goes on at the oldest that is left, with a
// notice of how much it has missed. A reader that was closed, has come to its end,
// or that nobody has any more keeps nothing. For ten seconds after Open everything
// is kept (up to the same bound), for the sessions of the process before.
//
// # Damage
//
// What somebody has cut, garbled or thrown away is read up to there, and then
// a *DamageError says where that is. From the other end (Tail) it is read as far
// back. An Open never changes closed segments, except that it finishes what a
// process that died had begun.
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
// Close return when they are gone. So is tidy, which is there while there is
// something to tidy up, and ends at the latest with Close or Retire. The Log owns
// the descriptors of its files and, from Drain on, of the sources; of closed
// segments, readers have those that they need open. One process at a time has a
// Log open (flock(2) on the directory): ErrBusy tells a second.
//
// What a source's raw descriptor number is used for, is used under stream.mu
// and not after source.gone is set there; only then is the file closed, and
// without the lock, for closing waits for who is using it.
//
// Locks, in the order in which they are taken: stream.mu (one write to a data
// file and its record; rotation takes both), Log.appendMu (the order of the index), Log.mu (what is
// published; never held over a system call). Log.sourcesMu stands before all.
package output
