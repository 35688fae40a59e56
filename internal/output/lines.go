package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"
)

const (
	// lineBlock bounds what is held of a line: a line is also cut where its
	// stream's offset is a multiple of lineBlock, if the lineBlock bytes before
	// have no newline. So no piece is longer than twice this (1 MiB), and where
	// lines end depends on nothing but the bytes of a stream: counting back from
	// the end finds the same lines as reading from the start.
	lineBlock = 512 << 10

	// scanBlock is how many bytes are read at once; lineBlock is a multiple.
	scanBlock = 64 << 10

	// timeFormat is Docker's: RFC 3339 with all nine digits, so that columns
	// stay aligned (moby, jsonmessage.RFC3339NanoFixed).
	timeFormat = "2006-01-02T15:04:05.000000000Z07:00"
)

// LinesOptions say which lines, as the options of `docker logs`.
type LinesOptions struct {
	Stdout, Stderr bool // at least one
	Follow         bool // go on at the end, as long as a run is going on
	Timestamps     bool // each line begins with its time and a space

	// Prefix stands in front of each line, behind its time; it ends with a space.
	// With a prefix, a line whose time is when it was found (Chunk.After) also
	// begins with written-after=TIME.
	Prefix string

	// Since and Until choose lines by time, both inclusive; zero: no bound.
	// Times are taken not to go backwards: with the first bytes later than
	// Until, reading ends.
	Since, Until time.Time

	// Tail is how many lines to begin with, counted from the end over the chosen
	// streams, before Since and Until choose among them; -1: all.
	Tail int

	// From is where earlier Lines were (Lines.Position), instead of Tail.
	From *LinesPosition

	// Batch lets several whole lines of one stream that follow on one another be
	// one Chunk, where nothing is to be known or said of each. Which ones is not
	// to be relied on.
	Batch bool

	// Yield makes them never slow the container; see Reader.Yield.
	Yield bool
}

// A LinesPosition is a place between lines. It may be saved and used in
// another process.
type LinesPosition struct {
	Stdout  int64 `json:"stdout"`  // bytes of whole lines that were given
	Stderr  int64 `json:"stderr"`  //
	Through int64 `json:"through"` // as in Position
	Limit   int64 `json:"limit"`   // of Lines that do not follow: the record that they end before; 0: all records of now
}

// Lines gives the lines of a Log. What they have not read is kept for them, as
// for a Reader, until their end or Close. A notice may be given again, or not at
// all, by Lines that go on From a position.
//
// A line is given when it is complete, with its newline, so that those of two
// streams never tear one another; lines stand in the order in which they
// became complete. What has no newline yet is given at the end, or, when it
// grows past a bound of 512 KiB to 1 MiB, in pieces that count as lines. A
// line's time is when its first byte arrived.
type Lines struct {
	l       *Log
	hold    *hold
	o       LinesOptions
	cursor  cursor
	chain   chain
	n       int64     // the record at hand, or to come
	limit   int64     // without Follow: the record to stop before
	through int64     // see Position
	rec     record    // at hand, or zero
	after   time.Time // see Chunk.After; of rec
	streams [2]lineStream
	buf     []byte // window onto the record's bytes
	win     []byte // what is left of it
	out     []byte // a line with its time
	lost    lostNotice
	notices []Chunk // to be given next
	wake    chan struct{}
	damage  error // told at the end: counting back came to it
	ended   bool  // only what is held is left to give
	err     error // final
}

// Lines returns the lines that o chooses. With Follow they go on from the
// others without a hole or a double.
func (l *Log) Lines(o LinesOptions) (*Lines, error) {
	if !o.Stdout && !o.Stderr {
		return nil, errors.New("cannot read lines: neither stdout nor stderr is chosen")
	}
	if o.Tail < -1 {
		return nil, fmt.Errorf("cannot read lines: the tail cannot be %d lines", o.Tail)
	}
	h, st := l.newHold(o.Yield)
	r := &Lines{
		l: l, hold: h, o: o, cursor: cursor{v: h.view}, wake: make(chan struct{}, 1),
		limit: st.count, through: st.count, buf: make([]byte, l.scanBlock),
	}
	runtime.AddCleanup(r, (*hold).release, h)
	if err := r.start(st); err != nil {
		h.release()
		return nil, err
	}
	return r, nil
}

// start finds the place to begin at.
func (r *Lines) start(st state) error {
	from, err := r.begin(st)
	if err != nil {
		return err
	}
	oldest := st.segs[0].at()
	first := st.count // the first record that is needed
	for i, s := range kept {
		ls := &r.streams[i]
		ls.chosen = [2]bool{r.o.Stdout, r.o.Stderr}[i]
		ls.pos = min(max(from[i], oldest[i]), st.ends[i])
		// A line begins here: behind a newline, or else on a cut.
		ls.newline = ls.pos%r.l.lineBlock != 0
		if !ls.chosen {
			continue
		}
		n, err := r.hold.view.find(&st, s, ls.pos)
		if err != nil {
			return fmt.Errorf("cannot find where to begin: %w", err)
		}
		first = min(first, n)
	}
	r.n = max(r.n, first)
	r.hold.record.Store(r.n)
	return nil
}

// Close ends the lines, if they have not come to their end: nothing is kept for
// them any more. It belongs to the goroutine that calls Next.
func (r *Lines) Close() error {
	r.hold.release()
	if r.err == nil {
		r.err = ErrClosed
	}
	return nil
}

// begin says where the streams' first lines begin.
func (r *Lines) begin(st state) (ends, error) {
	if f := r.o.From; f != nil {
		if f.Through > 0 {
			r.through = f.Through
		}
		if f.Limit > 0 {
			r.limit = min(f.Limit, st.count)
		}
		from := ends{f.Stdout, f.Stderr}
		r.missed(&st, from)
		return from, nil
	}
	t := tail{l: r.l, view: r.hold.view, st: st, chosen: [2]bool{r.o.Stdout, r.o.Stderr}}
	var from ends
	var err error
	if r.o.Tail >= 0 {
		if from, err = t.last(r.o.Tail, r.o.Follow && st.running); err != nil {
			return from, err
		}
		r.damage, r.n = t.damage, t.intact
	}
	if !r.o.Since.IsZero() {
		since, err := t.since(r.o.Since.UnixNano())
		if err != nil {
			return from, err
		}
		from[0], from[1] = max(from[0], since[0]), max(from[1], since[1])
	}
	for i := range from {
		first, err := t.first(i)
		if err != nil {
			return from, err
		}
		from[i] = max(from[i], first)
	}
	return from, nil
}

// Position returns the place behind the line that was given last.
func (r *Lines) Position() LinesPosition {
	var at [2]int64
	for i := range r.streams {
		ls := &r.streams[i]
		at[i] = ls.pos
		if !ls.given {
			at[i] -= int64(len(ls.held))
		}
	}
	return LinesPosition{Stdout: at[0], Stderr: at[1], Through: r.through, Limit: r.limit}
}

// Next returns the next line, with its newline if it has one. Following, it
// waits for one until ctx is done. io.EOF is the end: of what there was when
// the Lines were made, or, following, of the run. ErrClosed and *DamageError
// are as with Reader.Next.
func (r *Lines) Next(ctx context.Context) (Chunk, error) {
	if r.o.Follow && !r.o.Until.IsZero() {
		// Lines later than Until are of no interest, so waiting ends there.
		c, cancel := context.WithDeadlineCause(ctx, r.o.Until, io.EOF)
		defer cancel()
		ctx = c
	}
	r.hold.steps.Add(1)
	for r.err == nil || len(r.notices) > 0 {
		if len(r.notices) > 0 {
			c := r.notices[0]
			r.notices = r.notices[1:]
			if r.wanted(c.Time) {
				return r.stamped(c), nil
			}
			continue
		}
		if c, ok := r.line(); ok {
			if r.wanted(c.Time) {
				return r.stamped(c), nil
			}
			continue
		}
		if r.ended {
			if c, ok := r.rest(); !ok {
				r.fail(io.EOF)
				if r.damage != nil {
					r.fail(r.damage)
				}
			} else if r.wanted(c.Time) {
				return r.stamped(c), nil
			}
			continue
		}
		err := r.more(ctx)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			r.ended = true
		case err == errGone: //nolint:errorlint // never wrapped
			r.skip()
		case ctx.Err() != nil && errors.Is(err, ctx.Err()):
			if context.Cause(ctx) != io.EOF { //nolint:errorlint // ours, from above
				return Chunk{}, err
			}
			r.ended = true
		default:
			r.fail(err)
		}
	}
	return Chunk{}, r.err
}

// more makes more bytes available in win: of the record at hand, or of the
// next. io.EOF: there are no more.
func (r *Lines) more(ctx context.Context) error {
	if ok, err := r.window(); ok || err != nil {
		return err
	}
	st := r.l.state()
	if !r.o.Follow {
		st.count = r.limit
	}
	if r.n >= st.count {
		if !r.o.Follow || !st.running {
			return io.EOF
		}
		return r.l.wait(ctx, r.wake, r.n)
	}
	rec, err := r.cursor.get(&st, r.n, false)
	if err != nil {
		return err
	}
	if err := r.chain.link(r.l, r.n, &rec, st.ends); err != nil {
		return err
	}
	if r.o.Follow && rec.flags&flagEnd != 0 && r.n >= r.through {
		return io.EOF
	}
	if !r.o.Until.IsZero() && rec.time > r.o.Until.UnixNano() && r.unheld() {
		return io.EOF
	}
	r.rec = rec
	r.after = time.Time{}
	if rec.late() {
		r.after = r.cursor.writtenAfter(&st, r.n, &rec)
	}
	r.hold.record.Store(r.n)
	r.n++
	if rec.note != 0 {
		r.notice(&rec)
	}
	return nil
}

// window reads what is still to be looked at of the record at hand.
func (r *Lines) window() (bool, error) {
	if r.rec.stream == Stdin {
		return false, nil
	}
	i := r.rec.stream.slot()
	ls := &r.streams[i]
	end := r.rec.at[i] + r.rec.length
	if !ls.chosen || ls.pos >= end {
		r.rec = record{}
		return false, nil
	}
	if ls.pos < r.rec.at[i] {
		return false, r.l.damage(r.n-1, errNotInLine) // a position from elsewhere
	}
	r.win = r.buf[:min(end-ls.pos, int64(len(r.buf)))]
	if err := r.hold.view.read(r.l.state().segs, i, r.win, ls.pos); err != nil {
		r.win = nil
		return false, r.l.readError(r.n-1, err)
	}
	return true, nil
}

// line takes a line out of the window, if one ends there; else it takes all of
// the window into what is held.
func (r *Lines) line() (Chunk, bool) {
	if len(r.win) == 0 {
		return Chunk{}, false
	}
	ls := &r.streams[r.rec.stream.slot()]
	if ls.given {
		ls.held, ls.given = ls.held[:0], false
	}
	for len(r.win) > 0 {
		if len(ls.held) == 0 {
			ls.time, ls.after = r.rec.time, r.after
			if r.o.batched() {
				if n := ls.batch(r.win, r.l.lineBlock); n > 0 {
					part := r.win[:n]
					r.win = r.win[n:]
					ls.passed(int64(n), r.l.lineBlock)
					return ls.chunk(r.rec.stream, part), true
				}
			}
		}
		n, ends := ls.look(r.win, r.l.lineBlock)
		part := r.win[:n]
		r.win = r.win[n:]
		if ends && len(ls.held) == 0 {
			return ls.chunk(r.rec.stream, part), true
		}
		ls.held = append(ls.held, part...)
		if ends {
			ls.given = true
			return ls.chunk(r.rec.stream, ls.held), true
		}
	}
	return Chunk{}, false
}

// batched says whether lines may be given several at a time.
func (o *LinesOptions) batched() bool {
	return o.Batch && !o.Timestamps && o.Prefix == "" && o.Since.IsZero() && o.Until.IsZero()
}

// rest returns what is held when no more comes.
func (r *Lines) rest() (Chunk, bool) {
	for i, s := range kept {
		ls := &r.streams[i]
		if len(ls.held) > 0 && !ls.given {
			ls.given = true
			return ls.chunk(s, ls.held), true
		}
	}
	return Chunk{}, false
}

// unheld says whether no line has begun that is not given yet.
func (r *Lines) unheld() bool {
	for i := range r.streams {
		if ls := &r.streams[i]; len(ls.held) > 0 && !ls.given {
			return false
		}
	}
	return true
}

// wanted says whether Since and Until choose a line of that time.
func (r *Lines) wanted(t time.Time) bool {
	return (r.o.Since.IsZero() || !t.Before(r.o.Since)) && (r.o.Until.IsZero() || !t.After(r.o.Until))
}

// stamped puts in front what is asked for: the time, then the prefix.
func (r *Lines) stamped(c Chunk) Chunk {
	if !r.o.Timestamps && r.o.Prefix == "" {
		return c
	}
	r.out = r.out[:0]
	if r.o.Timestamps {
		r.out = append(c.Time.UTC().AppendFormat(r.out, timeFormat), ' ')
	}
	if r.o.Prefix != "" && !c.After.IsZero() {
		r.out = append(r.out, "written-after="...)
		r.out = c.After.UTC().AppendFormat(r.out, timeFormat)
		if r.o.Prefix != " " {
			r.out = append(r.out, ',')
		}
	}
	r.out = append(r.out, r.o.Prefix...)
	r.out = append(r.out, c.Data...)
	c.Data = r.out
	return c
}
