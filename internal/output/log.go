package output

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Log is the output of one container. Make it with Open.
type Log struct {
	dir   string
	log   *slog.Logger
	pause time.Duration
	now   func() time.Time

	index   *os.File
	streams [2]stream

	// lineBlock and scanBlock are constants that tests make small; see lines.go.
	lineBlock, scanBlock int64

	// sourcesMu guards sources and stopped. Taken before every other lock.
	sourcesMu sync.Mutex
	sources   map[*source]struct{}
	stopped   bool // Close was called: no more sources

	// appendMu gives records their order. It guards buf and, together with mu,
	// the writing of count, ends and running, which its holder may therefore
	// read without mu. Held over the write of a record.
	appendMu sync.Mutex
	buf      [recordSize]byte

	// mu guards what is published to readers. Never held over a system call.
	mu      sync.Mutex
	count   int64 // records in the index
	ends    ends  // how far they reach
	running bool  // a run is going on
	closed  bool
	waiters []chan struct{} // of readers at the end, each with room for one token
}

// A stream is one data file and where its next byte goes.
type stream struct {
	id   Stream
	file *os.File
	fd   int // of file; used by drains only, which end before file is closed

	// mu is held by whoever writes to file: for one write and its record.
	mu  sync.Mutex
	end int64 // size of file. Ahead of Log.ends when a record could not be written
	off int64 // splice's own copy of end; a field so that it need not be allocated

	reserved int64 // consoles: up to where the file system has promised room
}

// state is what is published: a consistent view for a reader.
type state struct {
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
		dir: dir, log: o.Log, pause: o.RetryPause, now: time.Now,
		lineBlock: lineBlock, scanBlock: scanBlock,
		sources: map[*source]struct{}{},
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
	if l.index, err = openFile(dir, "index"); err != nil {
		return nil, err
	}
	// The lock goes with the process, however it ends.
	if err := unix.Flock(int(l.index.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, os.NewSyscallError("flock", err)
	}
	for i, id := range kept {
		st := &l.streams[i]
		st.id = id
		if st.file, err = openFile(dir, id.String()); err != nil {
			return nil, err
		}
		st.fd = int(st.file.Fd())
	}
	if err := l.recover(); err != nil {
		return nil, err
	}
	return l, nil
}

// openFile opens the file of that kind that begins at 0. Not O_APPEND: splice
// refuses it, and every write here names its place.
func openFile(dir, kind string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, fmt.Sprintf("%s.%016x", kind, 0)), os.O_RDWR|os.O_CREATE, 0o600)
}

func (l *Log) closeFiles() {
	for _, f := range []*os.File{l.streams[0].file, l.streams[1].file, l.index} {
		if f != nil {
			_ = f.Close() // written with write(2) alone: there is nothing left that could fail
		}
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
	// Nobody is in the middle of a marker either when the files go.
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.closeFiles()
	return err
}

// Retire is for a Log whose container is being removed: it is Close, but for
// those who are still reading. They get all that there is, also once Remove has
// deleted the files, and then ErrClosed. The descriptors go with the last of
// them: nothing else has the Log then, and a file that nobody has is closed.
func (l *Log) Retire() error {
	_, err := l.end()
	return err
}

// end stops the drains, and lets readers that have read all know that nothing
// more comes; first says that it is the first to do so.
func (l *Log) end() (first bool, err error) {
	err = l.stopDrains(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, err
	}
	l.closed = true
	l.wakeLocked()
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
	return state{count: l.count, ends: l.ends, running: l.running}
}

func (l *Log) stream(s Stream) *stream { return &l.streams[s.slot()] }
