package logdrivers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"lrd/internal/logopts"
	"lrd/internal/output"
)

const (
	// batchSize is how many bytes of entries are delivered at once, about.
	batchSize = 256 << 10

	// restAfter is how long nothing must come before the buffers are given back.
	restAfter = time.Second

	// A target that fails is tried again after retryFirst, and then after twice
	// as long each time, up to retryMost.
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second

	// lastTry bounds the delivery of what has been read already when a forwarder is stopped.
	lastTry = 2 * time.Second
)

// A target is where entries go. It is used by one goroutine. What returns an
// error is called again after a while, with the same.
type target interface {
	// open gets ready what has to be there from the container's start. It is called first.
	open() error
	// resume is called once, before the first entry: the ordinal in the state, and what the
	// target has saved beside it. sending: more entries than those may have arrived.
	resume(ctx context.Context, ordinal int64, saved json.RawMessage, sending bool) error
	// add takes an entry into the batch, or finds that it has been delivered before.
	add(ctx context.Context, e *entry) error
	// size is how many bytes the batch has.
	size() int
	// due says that the batch is to be delivered, and the state saved, before the next entry.
	due() bool
	// flush delivers the batch.
	flush(ctx context.Context) error
	// save returns what the target wants to find again in resume; the batch is empty.
	save() any
	// rest gives up what can be had again, as nothing comes for now.
	rest()
	// close ends it. What is in the batch is not delivered.
	close() error
}

// Options say what a forwarder is to do.
type Options struct {
	Driver string       // logopts.JSONFile, …
	Info   logopts.Info // with the log options
	Dir    string       // the container's own, for the state and for files
	Log    *slog.Logger
}

// A Forwarder carries one container's output on. Make it with Drivers.Start.
type Forwarder struct {
	log     *output.Log
	o       Options
	counter *atomic.Int64

	cancel context.CancelFunc
	done   chan struct{} // closed when run is over
	record atomic.Int64  // everything before this record of the index is delivered

	// What follows is run's own.
	file    *stateFile
	st      state
	target  target
	resumed bool
	dirty   bool  // st is not what is in the file
	pending int64 // bytes of the container in the batch
	failing bool  // the target fails, and that was logged
	torn    bool  // st is between two entries: it is not to be saved any more
	yield   yield
}

// Forwards says whether a driver carries anything on.
func Forwards(driver string) bool {
	return driver != logopts.Local && driver != logopts.None && driver != ""
}

// LogPath is the file that a driver writes of a container, for people and programs that look for it;
// empty for drivers that write none.
func LogPath(driver, dir, id string) string {
	if driver != logopts.JSONFile {
		return ""
	}
	return filepath.Join(dir, id+"-json.log")
}

// Behind says whether the forwarder of a container that does not run has something to do still.
func Behind(dir string) (bool, error) {
	st, err := readState(filepath.Join(dir, stateName))
	if err != nil {
		return false, fmt.Errorf("cannot read how far the log was forwarded: %w", err)
	}
	return st.Version > 0 && !st.Done, nil
}

// stateName is the file of the state.
const stateName = "forward"

// Start begins to carry on what is in log from where an earlier forwarder
// stopped, and what comes. The caller stops it before it closes log. For a driver that
// forwards nothing it returns nil, which has all methods. The error is about the options alone:
// what else does not work is tried again.
func (d *Drivers) Start(log *output.Log, o Options) (*Forwarder, error) {
	if !Forwards(o.Driver) {
		return nil, nil
	}
	t, err := d.target(o)
	if err != nil {
		return nil, fmt.Errorf("cannot start the log driver %s: %w", o.Driver, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &Forwarder{log: log, o: o, counter: d.counter(o.Driver), cancel: cancel, done: make(chan struct{}), target: t, yield: yield{turns: d.turns}}
	go f.run(ctx)
	return f, nil
}

// Check says whether a container with these options could be started here.
func (d *Drivers) Check(o Options) error {
	if !Forwards(o.Driver) {
		return nil
	}
	if _, err := os.Stat(d.journal.socket); o.Driver == logopts.Journald && err != nil {
		return fmt.Errorf("journald is not enabled on this host: %w", err)
	}
	_, err := d.target(o)
	return err
}

// Stop ends the forwarder. What it has read and the target takes at once is delivered;
// the rest is for the next one.
func (f *Forwarder) Stop() {
	if f == nil {
		return
	}
	f.cancel()
	<-f.done
}

// Wait returns when everything is delivered that was in the store when it was called, when the forwarder has ended, or
// when ctx is done.
func (f *Forwarder) Wait(ctx context.Context) error {
	if f == nil {
		return nil
	}
	tick := time.NewTicker(waitPoll)
	defer tick.Stop()
	for end := f.log.End().Record; f.record.Load() < end; {
		select {
		case <-tick.C:
		case <-f.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// waitPoll is how often Wait looks.
const waitPoll = 5 * time.Millisecond

// expired is a context that is done: a Next with it returns what is there, and does not wait.
var expired = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// run is the forwarder's goroutine.
func (f *Forwarder) run(ctx context.Context) {
	defer close(f.done)
	defer f.yield.end()
	if !f.insist(ctx, f.open) {
		return
	}
	defer f.end()
	r := f.reader(nil)
	defer func() { _ = r.Close() }()
	for ctx.Err() == nil {
		c, err := r.Next(expired)
		if errors.Is(err, context.Canceled) {
			f.yield.end()
			if f.commit(ctx) {
				f.caughtUp(r.Position())
			}
			c, r, err = f.next(ctx, r)
		}
		switch {
		case err == nil && c.Notice:
			f.notice(ctx, r.Position(), c)
		case err == nil:
			f.take(ctx, r.Position(), c)
		case errors.Is(err, io.EOF):
			f.endRun(ctx, r.Position())
			r = f.reader(r)
		case ctx.Err() != nil, errors.Is(err, output.ErrClosed):
			return
		default:
			f.skip(err)
			r = f.reader(r)
		}
	}
}

// open opens the target and the state. It may be called again.
func (f *Forwarder) open() error {
	if err := f.target.open(); err != nil {
		return err
	}
	file, st, err := openState(filepath.Join(f.o.Dir, stateName))
	if err != nil {
		return errors.Join(err, f.target.close())
	}
	if st.Driver != f.o.Driver {
		st = state{}
	}
	st.Version, st.Driver = stateVersion, f.o.Driver
	st.Streams[0].stream, st.Streams[1].stream = output.Stdout, output.Stderr
	f.file, f.st = file, st
	f.record.Store(st.Position.Record)
	return nil
}

// reader reads from where the forwarder is, to the next end of a run. It ends the one before.
func (f *Forwarder) reader(before *output.Reader) *output.Reader {
	p := f.st.Position
	p.Through = max(p.Record, 1)
	r := f.log.Reader(p).Yield() // a target that is slow or gone holds no container up
	if before != nil {
		_ = before.Close() // after the new one has begun, so that rotation does not come in between
	}
	return r
}

// next waits for what comes. When that takes a while, it does so without buffers.
func (f *Forwarder) next(ctx context.Context, r *output.Reader) (output.Chunk, *output.Reader, error) {
	soon, cancel := context.WithTimeout(ctx, restAfter)
	defer cancel()
	c, err := r.Next(soon)
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return c, r, err
	}
	f.target.rest()
	f.file.buf = nil
	next := f.reader(r) // before the other is closed, so that what comes is kept all the time
	_ = r.Close()
	r = next
	c, err = r.Next(ctx)
	return c, r, err
}

// take makes entries of a chunk; after is the reader's position behind it.
func (f *Forwarder) take(ctx context.Context, after output.Position, c output.Chunk) {
	if !f.begin(ctx) {
		return
	}
	record, offset := after.Record, after.Offset-int64(len(c.Data))
	if after.Offset == 0 { // the chunk ends with its record
		record, offset = after.Record-1, 0
		if f.st.Position.Record == record {
			offset = f.st.Position.Offset
		}
	}
	s := &f.st.Streams[c.Stream-output.Stdout]
	var e entry
	for done := 0; done < len(c.Data); {
		f.yield.turn(ctx)
		e.ordinal = f.st.Ordinal + 1
		n, ok := s.next(c.Data[done:], c.Time, &e)
		if ok && !f.add(ctx, &e) {
			return
		}
		done += n
		f.pending += int64(n)
		f.dirty, f.st.Done = true, false
		f.st.Position = output.Position{Record: record, Offset: offset + int64(done)}
		if done == len(c.Data) {
			f.st.Position = output.Position{Record: after.Record, Offset: after.Offset}
		}
		if full := f.target.size() >= batchSize; ok && (full || f.target.due()) {
			if !f.commit(ctx) {
				return
			}
			if full {
				f.yield.batch()
			}
		}
	}
}

// endRun gives what the run has left without a newline; p is the marker of its end.
func (f *Forwarder) endRun(ctx context.Context, p output.Position) {
	if !f.begin(ctx) {
		return
	}
	if !f.addHeld(ctx) {
		return
	}
	f.st.Position = output.Position{Record: p.Record + 1}
	f.dirty = true
	f.commit(ctx)
}

// addHeld gives the target the lines that have begun, as they are not going to be completed.
func (f *Forwarder) addHeld(ctx context.Context) bool {
	var e entry
	for i := range f.st.Streams {
		e.ordinal = f.st.Ordinal + 1
		if f.st.Streams[i].end(&e) && !f.add(ctx, &e) {
			return false
		}
	}
	return true
}

// notice passes on what the store says of bytes that are missing here. It is
// delivered at once: some of it cannot be made again.
func (f *Forwarder) notice(ctx context.Context, after output.Position, c output.Chunk) {
	if !f.begin(ctx) || !f.addHeld(ctx) {
		return
	}
	e := entry{ordinal: f.st.Ordinal + 1, stream: c.Stream, time: c.Time, line: bytes.TrimSuffix(c.Data, []byte("\n"))}
	if !f.add(ctx, &e) {
		return
	}
	f.st.Position = output.Position{Record: after.Record, Offset: after.Offset}
	f.dirty = true
	f.commit(ctx)
}

// skip goes on behind what cannot be read.
func (f *Forwarder) skip(err error) {
	f.o.Log.Error("Output is not forwarded to the log driver, as it cannot be read; going on with what comes", "driver", f.o.Driver, "error", err)
	f.st.Position = output.Position{Record: f.log.End().Record}
	f.dirty = true
}
