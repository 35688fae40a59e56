package output

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Log is the output of one container. Make it with Open.
type Log struct {
	dir        string
	log        *slog.Logger
	pause      time.Duration
	onIncident func(Incident)
	now        func() time.Time

	maxSize     int64 // see Options
	maxFiles    int
	compress    bool
	drops       bool
	nonBlocking bool
	patient     bool

	lock    *os.File // the directory, with a lock that goes with the process
	null    int      // where dropped bytes go; -1 without drops
	streams [2]stream

	// Constants that tests make small; see lines.go and rotate.go.
	lineBlock, scanBlock, pinMax int64
	stallTime                    time.Duration

	// sourcesMu guards sources and stopped. Taken before every other lock.
	sourcesMu sync.Mutex
	sources   map[*source]struct{}
	stopped   bool // Close was called: no more sources

	used atomic.Int64 // bytes in the segment that is written, those of its index included

	// appendMu gives records their order. It guards what follows and, together
	// with mu, the writing of segs, count, ends and running, which its holder may
	// therefore read without mu. Held over the write of a record.
	appendMu   sync.Mutex
	buf        [recordSize]byte
	index      *os.File // of the segment that is written
	indexBase  int64    // where it begins, in bytes of the whole index
	promised   int64    // up to where the file system has promised room for it, in bytes of the file
	lineStarts [2]bool  // the segment's streams begin with a line

	// mu guards what is published to readers. Never held over a system call.
	mu      sync.Mutex
	segs    segments
	count   int64 // records in the index, those that rotation has removed included
	ends    ends  // how far they reach
	running bool  // a run is going on
	closed  bool
	waiters []chan struct{} // of readers at the end, each with room for one token
	holds   map[*hold]struct{}
	readers int  // that have not been released
	retired bool // Retire was called: the last reader closes the files

	retained []*part // that Retire has opened for those who still read. Retire's, then shutFiles's

	// What tidy does. trash, tidying and tidyAgain are guarded by mu.
	trash              segments
	tidying, tidyAgain bool
	work               sync.WaitGroup
	leaving            chan struct{} // closed by end
	comeback           *time.Timer   // see comebackTime; nil if nothing is ever removed

	shut atomic.Bool // Close was called: the files are closed
}

// A stream is one kind of data file and where its next byte goes.
type stream struct {
	id Stream

	// mu is held by whoever writes to file: for one write and its record.
	mu       sync.Mutex
	part     *part
	file     *os.File // part's, and its descriptor
	fd       int
	base     int64 // where file begins in the stream
	end      int64 // where it ends. Ahead of Log.ends when a record could not be written
	off      int64 // splice's own offset; a field so that it need not be allocated
	reserved int64 // consoles: up to where the file system has promised room
	lost     lost
	dropped  Incident // what was noted of lost since the store could not be written

	droppedBytes atomic.Int64 // since Open
}

// state is what is published: a consistent view for a reader.
type state struct {
	segs    segments
	count   int64
	ends    ends
	running bool
}

// Open opens the store in dir, making what is not there yet, and repairs what
// a process that was killed, or a power cut, has left behind (package doc).
//
// It returns ErrBusy when somebody else has it open and ErrFormat, with
// nothing changed, for the index of a later version.
func Open(dir string, o Options) (_ *Log, err error) {
	l := &Log{
		dir: dir, log: o.Log, pause: o.RetryPause, onIncident: o.OnIncident, now: time.Now,
		maxSize: o.MaxSize, maxFiles: o.MaxFiles, compress: o.Compress, drops: o.drops(), nonBlocking: o.NonBlocking, patient: o.Patient,
		lineBlock: lineBlock, scanBlock: scanBlock, pinMax: pinMax, stallTime: stallTime, null: -1,
		sources: map[*source]struct{}{}, holds: map[*hold]struct{}{}, leaving: make(chan struct{}),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.pause <= 0 {
		l.pause = time.Second
	}
	defer func() {
		if err != nil {
			l.closeFiles()
			err = fmt.Errorf("cannot open output store %s: %w", dir, err)
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if l.lock, err = os.Open(dir); err != nil {
		return nil, err
	}
	// The lock goes with the process, however it ends.
	if err := unix.Flock(int(l.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, os.NewSyscallError("flock", err)
	}
	if l.drops {
		if l.null, err = unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
			return nil, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
		}
	}
	if err := l.recover(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Log) closeFiles() {
	if len(l.segs) > 0 {
		for _, p := range l.segs[len(l.segs)-1].parts {
			p.release()
		}
	}
	if l.lock != nil {
		_ = l.lock.Close() // and with it goes the lock
	}
	if l.null >= 0 {
		_ = unix.Close(l.null)
	}
}

// Close is how the daemon leaves: the drains stop between two writes and the
// sources are closed. Nothing is lost, as long as somebody else (systemd's
// store) holds the sources too: what is not in the files is still in them.
// Readers get ErrClosed. A second Close does nothing.
func (l *Log) Close() error {
	first, err := l.end()
	if !first {
		return err
	}
	l.shutFiles()
	return err
}

// shutFiles closes the files, once.
func (l *Log) shutFiles() {
	// Nobody is in the middle of a marker when they go.
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if l.shut.Swap(true) {
		return
	}
	l.closeFiles()
	for _, p := range l.retained {
		p.release()
	}
}

// Retire is for a Log whose container is being removed: it is Close, but for
// those who are still reading. They get all that there is, also once Remove has
// deleted the files, and then ErrClosed. The descriptors go with the last of them.
func (l *Log) Retire() error {
	first, err := l.end()
	if !first {
		return err
	}
	l.mu.Lock()
	segs, read := l.segs, l.readers > 0
	l.mu.Unlock()
	if read {
		for _, s := range segs[:len(segs)-1] {
			for _, p := range s.parts {
				if e := p.acquire(); e != nil {
					err = errors.Join(err, e)
					continue
				}
				l.retained = append(l.retained, p)
			}
		}
	}
	l.mu.Lock()
	l.retired = true
	last := l.readers == 0
	l.mu.Unlock()
	if last {
		l.shutFiles()
	}
	return err
}

// end stops the drains and what tidies up, and lets readers that have read all
// know that nothing more comes; first says that it is the first to do so.
func (l *Log) end() (first bool, err error) {
	drained, err := l.stopDrains(true)
	if drained {
		// A Log that is full or damaged is left without it, and what comes next
		// is less precise about when.
		_ = l.note(record{note: noteLeft})
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false, err
	}
	l.closed = true
	l.wakeLocked()
	close(l.leaving)
	if l.comeback != nil {
		l.comeback.Stop()
	}
	l.mu.Unlock()
	l.work.Wait()
	return true, err
}

// Remove deletes the store in dir. The Log must be closed or retired. That dir does not
// exist is no error.
func Remove(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cannot remove output store: %w", err)
	}
	return nil
}

// BeginRun says that the container is about to be started. Lines that follow
// do not end while a run is going on. In a run it does nothing.
func (l *Log) BeginRun() error {
	if err := l.mark(flagBegin | flagRunning); err != nil {
		return fmt.Errorf("cannot begin a run of output: %w", err)
	}
	return nil
}

// EndRun says that the container has exited. It takes over what lies in the
// sources at this moment, and then marks the end of the run: readers that
// reach it get io.EOF. The drains go on, for systemd may start the next run by
// itself. Outside a run it takes over what there is and marks nothing.
//
// While the store cannot be written to, it waits, until ctx is done; the run
// is not ended then, no byte is lost, and it can be called again.
func (l *Log) EndRun(ctx context.Context) error {
	if err := l.Settle(ctx); err != nil {
		return err
	}
	if err := l.insist(ctx, func() error { return l.mark(flagEnd) }); err != nil {
		return fmt.Errorf("cannot end a run of output: %w", err)
	}
	return nil
}

// Settle takes over what lies in the sources at this moment, and waits as EndRun does.
func (l *Log) Settle(ctx context.Context) error {
	l.sourcesMu.Lock()
	sources := make([]*source, 0, len(l.sources))
	for s := range l.sources {
		sources = append(sources, s)
	}
	l.sourcesMu.Unlock()
	for _, s := range sources {
		if err := l.insist(ctx, s.settle); err != nil {
			return fmt.Errorf("cannot take over the last %s: %w", s.stream.id, err)
		}
	}
	return nil
}

// insist tries f until it works, with pauses, or until ctx is done or the Log
// closed.
func (l *Log) insist(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil || errors.Is(err, ErrClosed) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(l.pause):
		}
	}
}

// Running says whether a run is going on, as BeginRun and EndRun have told it,
// be it in an earlier process.
func (l *Log) Running() bool { return l.state().running }

// state returns what is published.
func (l *Log) state() state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stateLocked()
}

// stateLocked is state for who holds mu.
func (l *Log) stateLocked() state {
	return state{segs: l.segs, count: l.count, ends: l.ends, running: l.running}
}

func (l *Log) stream(s Stream) *stream { return &l.streams[s.slot()] }
