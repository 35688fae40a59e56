package output

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Kind says how a source is read.
type Kind uint8

const (
	// FIFO is a pipe: its bytes go to the file by splice(2).
	FIFO Kind = iota
	// Console is the master of a pseudo terminal: its bytes are read and
	// written. See DrainThrough for the way that loses nothing to a SIGKILL.
	Console
)

const (
	// spliceMax is how much one splice takes at most, and so one record of a
	// container that writes flat out: the largest pipe that the kernel gives
	// without ado, which is what a pipe holds.
	spliceMax = 1 << 20

	// consoleMax is how much one read of a console takes: more than the line
	// discipline ever has (N_TTY_BUF_SIZE is 4096).
	consoleMax = 8 << 10

	// consoleReserve is how much room is reserved ahead of a console's reads.
	consoleReserve = 256 << 10

	// consoleSettle bounds how much EndRun takes over from a console that the
	// next run already writes to: more than all buffers of one hold together
	// (tty_buffer.c: 64 KiB, and the line discipline's page).
	consoleSettle = 128 << 10
)

// errEmpty says that a source has nothing to give now.
var errEmpty = errors.New("source is empty")

// A source is one drained descriptor. Its goroutine is run.
type source struct {
	l      *Log
	stream *stream
	file   *os.File // the description: lrd's own. Of a FIFO until start
	conn   controller
	waits  *os.File // what the runtime's poller knows: the console, or a FIFO's gate
	poll   syscall.RawConn
	pipe   *descriptor // FIFO
	gate   *gate       // FIFO
	via    *os.File    // DrainThrough's pipe, or nil
	viaFD  int
	take   func(fd int) (int, error) // one lot of bytes, in the source's own way; see step
	buf    []byte                    // Console: for reading

	// Guarded by stream.mu:
	held []byte // Console: what of buf is not in the file yet
	away int64  // how many of the bytes to come were there before the drain was
	gone bool   // the descriptors may be closed: hands off

	pump func(fd uintptr) bool // s.drainSome or s.drainPipe, bound once, as it would be allocated each time
	err  error                 // why pump returned. run's own
	bad  bool                  // the last write failed, and that was logged. run's own
	row  trickle               // run's own

	stop atomic.Bool
	quit chan struct{} // closed with stop
	done chan struct{} // closed when run is over
}

// Drain carries what src gives into stream s from now on, in a goroutine of
// its own, until StopDrains or Close. It takes src over, also when it fails.
//
// src must be non-blocking, and a FIFO must be open for reading and writing:
// then it has no end. Its flags are not changed, since a description may have
// other owners.
func (l *Log) Drain(s Stream, src *os.File, k Kind) error {
	d := &source{l: l, file: src}
	switch k {
	case FIFO:
		d.take = d.spliceToFile
	case Console:
		d.take = d.copyToFile
		d.buf = make([]byte, consoleMax)
	default:
		_ = src.Close()
		return fmt.Errorf("cannot drain %s: unknown kind of source %d", s, k)
	}
	return l.start(s, d, k == FIFO)
}

// DrainThrough is Drain for a console, by way of a pipe: the console's bytes
// go into via and from there to the file, by splice(2) both. via is open for
// reading and writing and non-blocking; when the caller keeps it, as it keeps
// the console, where it outlives the process, and hands it in again after a
// crash, then no byte is lost. It takes both files over, also when it fails.
func (l *Log) DrainThrough(s Stream, console, via *os.File) error {
	d := &source{l: l, file: console, via: via}
	d.take = d.spliceThrough
	if err := checkSource(via, true); err != nil {
		d.closeFiles()
		return fmt.Errorf("cannot drain %s through a pipe: %w", s, err)
	}
	// The number stays good: via is closed when its drain is over, not before.
	raw, err := via.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { d.viaFD = int(fd) })
	}
	if err != nil {
		d.closeFiles()
		return fmt.Errorf("cannot drain %s through a pipe: %w", s, err)
	}
	return l.start(s, d, false)
}

// start checks the source and starts its goroutine.
func (l *Log) start(s Stream, d *source, pipe bool) (err error) {
	defer func() {
		if err != nil {
			d.closeFiles()
			err = fmt.Errorf("cannot drain %s: %w", s, err)
		}
	}()
	if s != Stdout && s != Stderr {
		return errors.New("there is no output of that name")
	}
	if err := checkSource(d.file, pipe); err != nil {
		return err
	}
	if pipe {
		err = d.startPipe()
	} else {
		err = d.startConsole()
	}
	if err != nil {
		return err
	}
	if d.away, err = d.waiting(); err != nil {
		return err
	}
	d.stream = l.stream(s)
	d.quit, d.done = make(chan struct{}), make(chan struct{})

	l.sourcesMu.Lock()
	defer l.sourcesMu.Unlock()
	if l.stopped {
		return ErrClosed
	}
	l.sources[d] = struct{}{}
	go d.run()
	return nil
}

// startPipe gets ready to wait for a FIFO.
func (s *source) startPipe() (err error) {
	file := s.file
	s.file = nil
	if s.pipe, err = unpolled(file); err != nil {
		return err
	}
	s.conn = s.pipe
	size, err := pipeSize(s.conn)
	if err != nil {
		return err
	}
	s.row.full = size / 2
	// The number stays good: the pipe is closed when its drain is over, not before.
	if s.gate, err = newGate(s.pipe.fd); err != nil {
		return err
	}
	s.waits, s.poll, s.pump = s.gate.file, s.gate.conn, s.drainPipe
	return checkPolled(s.waits)
}

// startConsole gets ready to wait for a console.
func (s *source) startConsole() (err error) {
	if s.file, err = pollable(s.file); err != nil {
		return err
	}
	if s.poll, err = s.file.SyscallConn(); err != nil {
		return err
	}
	s.waits, s.conn, s.pump = s.file, s.poll, s.drainSome
	return nil
}

// waiting returns how many bytes lie in the source.
func (s *source) waiting() (n int64, err error) {
	var failed error
	err = s.conn.Control(func(fd uintptr) {
		var have, through int
		have, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		if s.via != nil && failed == nil {
			through, failed = unix.IoctlGetInt(s.viaFD, unix.TIOCINQ)
		}
		n = int64(have + through)
	})
	return n, errors.Join(err, failed)
}

// checkSource verifies the flags that draining rests on.
func checkSource(f *os.File, pipe bool) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var flags int
	var failed error
	if err := conn.Control(func(fd uintptr) { flags, failed = unix.FcntlInt(fd, unix.F_GETFL, 0) }); err != nil {
		return err
	}
	switch {
	case failed != nil:
		return os.NewSyscallError("fcntl", failed)
	case flags&unix.O_NONBLOCK == 0:
		return errors.New("the source must be non-blocking")
	case pipe && flags&unix.O_ACCMODE != unix.O_RDWR:
		return errors.New("the source must be open for reading and writing")
	}
	return nil
}

// pollable returns f, or a file in its place, that the runtime's poller knows.
// A file made from a descriptor that was blocking at that time is not.
func pollable(f *os.File) (*os.File, error) {
	if f.SetReadDeadline(time.Time{}) == nil {
		return f, nil
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return f, err
	}
	var dup int
	var failed error
	if err := conn.Control(func(fd uintptr) { dup, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return f, err
	}
	if failed != nil {
		return f, os.NewSyscallError("fcntl", failed)
	}
	again := os.NewFile(uintptr(dup), f.Name())
	_ = f.Close() // a duplicate stays
	return again, checkPolled(again)
}

// checkPolled verifies that the runtime's poller knows f.
func checkPolled(f *os.File) error {
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("the source cannot be polled: %w", err)
	}
	return nil
}

func (s *source) closeFiles() {
	if s.gate != nil {
		_ = s.gate.file.Close()
	}
	if s.pipe != nil {
		_ = s.pipe.Close()
	}
	for _, f := range []*os.File{s.file, s.via} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// run carries bytes over until it is stopped.
func (s *source) run() {
	defer close(s.done)
	for !s.stop.Load() {
		s.err = nil
		err := s.poll.Read(s.pump)
		if s.stop.Load() {
			return
		}
		if err == nil {
			err = s.err
		}
		if err == nil {
			continue
		}
		s.failed(err)
	}
}

// drainPipe is drainSome of a FIFO; the descriptor that is readable is its gate's.
func (s *source) drainPipe(uintptr) bool {
	s.gate.hush()
	if s.drainSome(uintptr(s.gate.pipe)) {
		return true
	}
	s.err = s.gate.arm()
	return s.err != nil
}

// drainSome carries over what there is. False means: call again when the
// source is readable. It is the hot path and allocates nothing.
func (s *source) drainSome(fd uintptr) bool {
	for !s.stop.Load() {
		n, err := s.step(int(fd), true)
		switch err {
		case nil:
			if pause := s.row.pause(n, time.Now()); pause > 0 {
				time.Sleep(pause)
			}
			if s.bad {
				s.works()
			}
		case errEmpty: //nolint:errorlint // hot path, never wrapped
			s.row.empty()
			if s.bad {
				s.works() // what could not be written was dropped, and that could be noted
			}
			return false
		case errLag:
			time.Sleep(lagPause)
		default:
			s.err = err
			return true
		}
	}
	return true
}

// settle carries over what lies in the source now, but not what a writer that
// goes on adds: it always comes to an end. What is to be dropped if it cannot
// be written is dropped.
func (s *source) settle() error {
	err := s.settleKept()
	if err != nil && !errors.Is(err, ErrClosed) && s.l.drops {
		_ = s.conn.Control(func(fd uintptr) { s.relieve(int(fd), true) }) // as in settleKept
		return nil
	}
	return err
}

func (s *source) settleKept() error {
	var failed error
	// The one reason for not getting at the descriptor is that it is closed
	// (internal/poll's error for that is not os.ErrClosed): StopDrains or Close
	// was there first, and nothing is left to settle.
	_ = s.conn.Control(func(fd uintptr) {
		left := consoleSettle
		if s.buf == nil && s.via == nil {
			if left, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ); failed != nil {
				return
			}
			// Also with nothing there: a record may be owing.
			left = max(left, 1)
		}
		for left > 0 {
			n, err := s.step(int(fd), false)
			if err == errEmpty { //nolint:errorlint // never wrapped
				return
			}
			if err != nil {
				failed = err
				return
			}
			left -= n
		}
	})
	return failed
}

// stopDrains ends all drains and closes their sources; drained says that there
// were any.
func (l *Log) stopDrains(forGood bool) (drained bool, err error) {
	l.sourcesMu.Lock()
	defer l.sourcesMu.Unlock()
	l.stopped = l.stopped || forGood
	for s := range l.sources {
		s.stop.Store(true)
		close(s.quit)
		_ = s.waits.SetReadDeadline(time.Unix(1, 0)) // wakes it where it waits; checkPolled has made sure that it can
	}
	var errs []error
	for s := range l.sources {
		<-s.done
		errs = append(errs, s.finish())
		s.closeFiles() // without stream.mu: Close waits for who is in Control, and who is there may wait for that
		delete(l.sources, s)
		drained = true
	}
	return drained, errors.Join(errs...)
}

// finish writes what a console has given and the store has not taken. EndRun
// may have it in hands still: from here on it leaves it alone.
func (s *source) finish() error {
	s.stream.mu.Lock()
	defer s.stream.mu.Unlock()
	s.gone = true
	if len(s.held) == 0 {
		return nil
	}
	if err := s.putHeld(); err != nil {
		return fmt.Errorf("cannot write the last %d bytes of a console: %w", len(s.held), err)
	}
	return nil
}

// StopDrains ends the drains and closes the sources, once the container is
// gone for good. What is in them and nobody else holds is lost: EndRun comes
// before. Drain can be called again afterwards.
func (l *Log) StopDrains() error {
	_, err := l.stopDrains(false)
	return err
}
