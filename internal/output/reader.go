package output

import (
	"context"
	"errors"
	"io"
	"runtime"
	"time"
)

// A Position is a place in a Log, in the order of arrival. The zero value is
// the beginning. It may be saved and used in another process.
type Position struct {
	Record  int64 `json:"record"`  // number of the index record
	Offset  int64 `json:"offset"`  // how many of its bytes lie before the place
	Through int64 `json:"through"` // ends of runs in records before this one do not end a reader; 0: those before now
}

// A Chunk is what a reader gives.
type Chunk struct {
	Stream Stream
	Time   time.Time // when the bytes, or the first of the line, arrived
	Data   []byte    // valid until the next call

	// After is set where Time is when the bytes were found, after a time in which
	// nobody took them: they were written between After and Time.
	After time.Time

	// Notice says that Data is not the container's, but a line of lrd's that says
	// what is missing here.
	Notice bool
}

// End returns the place behind everything that is there.
func (l *Log) End() Position {
	n := l.state().count
	return Position{Record: n, Through: n}
}

// readMax is how many bytes a Reader gives at once.
const readMax = 64 << 10

// A Reader gives the bytes of a Log as they arrived, both streams in one
// order. What it has not read is kept for it, within bounds (package doc), until
// its end or Close.
type Reader struct {
	l       *Log
	hold    *hold
	cursor  cursor
	chain   chain
	n       int64  // number of the record at hand, or to come
	done    int64  // how many of its bytes are given
	rec     record // the record at hand
	have    bool   // rec is record n
	after   time.Time
	through int64 // see Position
	until   int64 // record to stop before; -1: none
	lost    lostNotice
	buf     []byte
	wake    chan struct{}
	err     error // final
}

// A chain checks that records follow on one another.
type chain struct {
	at    ends
	known bool
}

// link takes the next record. limit is how far the data reaches.
func (c *chain) link(l *Log, n int64, r *record, limit ends) error {
	after := r.after()
	if c.known && r.at != c.at || after[0] > limit[0] || after[1] > limit[1] {
		return l.damage(n, errNotInLine)
	}
	c.at, c.known = after, true
	return nil
}

// Reader returns a reader from a place on: End() for what comes from now on,
// the zero Position for everything, or what Reader.Position returned earlier,
// be it in another process. Past the end it blocks until there is more.
//
// It ends with the first run that ends from now on; with an earlier reader's
// Position, that ends from when that reader was made.
func (l *Log) Reader(from Position) *Reader {
	h, st := l.newHold(false)
	r := &Reader{
		l: l, hold: h, cursor: cursor{v: h.view}, until: -1, wake: make(chan struct{}, 1),
		n: from.Record, done: from.Offset, through: from.Through,
	}
	runtime.AddCleanup(r, (*hold).release, h)
	if r.through <= 0 {
		r.through = st.count
	}
	if r.n < 0 || r.done < 0 || from == (Position{}) {
		r.n, r.done = st.segs[0].first(), 0
	}
	if r.n > st.count {
		r.n, r.done = st.count, 0 // the index was cut back: power was lost
	}
	h.record.Store(r.n)
	return r
}

// Yield makes the reader one that never slows the container: if it falls too far
// behind it misses what rotation removes. It returns the reader.
func (r *Reader) Yield() *Reader {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	r.hold.yields = true
	return r
}

// Close ends the reader, if it has not come to its end: nothing is kept for it
// any more. It belongs to the goroutine that calls Next.
func (r *Reader) Close() error {
	r.hold.release()
	if r.err == nil {
		r.err = ErrClosed
	}
	return nil
}

// Until makes the reader end with io.EOF where p is, at a boundary between two
// records as End returns. It returns the reader.
func (r *Reader) Until(p Position) *Reader {
	r.until = max(p.Record, 0)
	return r
}

// Position returns the place behind what was given last.
func (r *Reader) Position() Position {
	p := Position{Record: r.n, Offset: r.done, Through: r.through}
	if r.have && r.done >= r.rec.length {
		p.Record, p.Offset = r.n+1, 0
	}
	return p
}

// Next returns the next bytes. At the end it waits for more, until ctx is
// done. io.EOF is the end of the run (or of Until), ErrClosed the Log's; a
// *DamageError, after a notice of it, means that nothing more can be read. After
// these three it returns the same for ever.
func (r *Reader) Next(ctx context.Context) (Chunk, error) {
	ended := r.err != nil
	c, err := r.next(ctx)
	if r.err != nil && !ended {
		r.hold.release()
		if c, ok := damageNotice(Stderr, r.err, r.l.now()); ok {
			return c, nil // and the error next
		}
	}
	return c, err
}

func (r *Reader) next(ctx context.Context) (Chunk, error) {
	r.hold.steps.Add(1)
	for r.err == nil {
		if r.have && r.done < r.rec.length {
			c, err := r.give()
			if err == errGone { //nolint:errorlint // never wrapped
				return r.skip(), nil
			}
			return c, err
		}
		if r.have {
			r.n, r.done, r.have = r.n+1, 0, false
			r.hold.record.Store(r.n)
		}
		if r.until >= 0 && r.n >= r.until {
			r.err = io.EOF
			break
		}
		st := r.l.state()
		if r.n < st.count {
			err := r.take(&st)
			if err == errGone { //nolint:errorlint // never wrapped
				return r.skip(), nil
			}
			if r.err = err; err == nil && r.rec.note != 0 {
				if c, ok := r.lost.take(&r.rec); ok {
					c.Stream = Stderr
					r.n, r.have = r.n+1, false
					return c, nil
				}
			}
			continue
		}
		if err := r.l.wait(ctx, r.wake, r.n); errors.Is(err, ErrClosed) {
			r.err = err
		} else if err != nil {
			return Chunk{}, err
		}
	}
	return Chunk{}, r.err
}

// skip goes on at the oldest record that there is, after rotation has removed
// what the reader was at.
func (r *Reader) skip() Chunk {
	st := r.l.state()
	missed := int64(0)
	if r.chain.known {
		at := st.segs[0].at()
		missed = at[0] - r.chain.at[0] + at[1] - r.chain.at[1]
		if r.have {
			missed += r.rec.length - r.done
		}
	}
	r.n, r.done, r.have = st.segs[0].first(), 0, false
	r.chain = chain{}
	r.hold.regain(&st)
	return missedNotice(Stderr, missed, r.l.now())
}

// take makes record n the one at hand.
func (r *Reader) take(st *state) error {
	rec, err := r.cursor.get(st, r.n, false)
	if err != nil {
		return err
	}
	if err := r.chain.link(r.l, r.n, &rec, st.ends); err != nil {
		return err
	}
	if rec.flags&flagEnd != 0 && r.n >= r.through {
		return io.EOF // n stays: the Position is before the end, and a reader from there ends too
	}
	r.after = time.Time{}
	if rec.late() {
		r.after = r.cursor.writtenAfter(st, r.n, &rec)
	}
	r.rec, r.have = rec, true
	return nil
}

// give returns bytes of the record at hand.
func (r *Reader) give() (Chunk, error) {
	if r.buf == nil {
		r.buf = make([]byte, readMax)
	}
	data := r.buf[:min(r.rec.length-r.done, readMax)]
	slot := r.rec.stream.slot()
	if err := r.hold.view.read(r.l.state().segs, slot, data, r.rec.at[slot]+r.done); err == errGone { //nolint:errorlint // never wrapped
		return Chunk{}, err
	} else if err != nil {
		r.err = r.l.readError(r.n, err)
		return Chunk{}, r.err
	}
	r.done += int64(len(data))
	return Chunk{Stream: r.rec.stream, Time: time.Unix(0, r.rec.time), After: r.after, Data: data}, nil
}
