package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

	// Since and Until choose lines by time, both inclusive; zero: no bound.
	// Times are taken not to go backwards: with the first bytes later than
	// Until, reading ends.
	Since, Until time.Time

	// Tail is how many lines to begin with, counted from the end over the chosen
	// streams, before Since and Until choose among them; -1: all.
	Tail int

	// From is where earlier Lines were (Lines.Position), instead of Tail.
	From *LinesPosition
}

// A LinesPosition is a place between lines. It may be saved and used in
// another process.
type LinesPosition struct {
	Stdout  int64 `json:"stdout"`  // bytes of whole lines that were given
	Stderr  int64 `json:"stderr"`  //
	Through int64 `json:"through"` // as in Position
	Limit   int64 `json:"limit"`   // of Lines that do not follow: the record that they end before; 0: all records of now
}

// Lines gives the lines of a Log. It needs no closing.
//
// A line is given when it is complete, with its newline, so that those of two
// streams never tear one another; lines stand in the order in which they
// became complete. What has no newline yet is given at the end, or, when it
// grows past a bound of 512 KiB to 1 MiB, in pieces that count as lines. A
// line's time is when its first byte arrived.
type Lines struct {
	l       *Log
	o       LinesOptions
	cursor  cursor
	chain   chain
	n       int64  // the record at hand, or to come
	limit   int64  // without Follow: the record to stop before
	through int64  // see Position
	rec     record // at hand, or zero
	streams [2]lineStream
	buf     []byte // window onto the record's bytes
	win     []byte // what is left of it
	out     []byte // a line with its time
	wake    chan struct{}
	damage  error // told at the end: counting back came to it
	ended   bool  // only what is held is left to give
	err     error // final
}

// lineStream is one stream on its way into lines.
type lineStream struct {
	chosen  bool
	pos     int64  // the next byte to look at
	held    []byte // the line so far, the bytes before pos
	given   bool   // held was given: it is empty from the next look on
	time    int64  // of the first byte held
	newline bool   // there was a newline in this lineBlock
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
	st := l.state()
	r := &Lines{
		l: l, o: o, cursor: cursor{l: l}, wake: make(chan struct{}, 1),
		limit: st.count, through: st.count, buf: make([]byte, l.scanBlock),
	}
	from, err := r.begin(st)
	if err != nil {
		return nil, err
	}
	first := st.count // the first record that is needed
	for i, s := range kept {
		ls := &r.streams[i]
		ls.chosen = [2]bool{o.Stdout, o.Stderr}[i]
		ls.pos = min(max(from[i], 0), st.ends[i])
		// A line begins here: behind a newline, or else on a cut.
		ls.newline = ls.pos%l.lineBlock != 0
		if !ls.chosen {
			continue
		}
		n, err := l.find(s, ls.pos, st.count)
		if err != nil {
			return nil, fmt.Errorf("cannot find where to begin: %w", err)
		}
		first = min(first, n)
	}
	r.n = max(r.n, first)
	return r, nil
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
		return ends{f.Stdout, f.Stderr}, nil
	}
	t := tail{l: r.l, st: st, chosen: [2]bool{r.o.Stdout, r.o.Stderr}}
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
	for r.err == nil {
		if c, ok := r.line(); ok {
			if r.wanted(c.Time) {
				return r.stamped(c), nil
			}
			continue
		}
		if r.ended {
			if c, ok := r.rest(); !ok {
				r.err = io.EOF
				if r.damage != nil {
					r.err = r.damage
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
		case ctx.Err() != nil && errors.Is(err, ctx.Err()):
			if context.Cause(ctx) != io.EOF { //nolint:errorlint // ours, from above
				return Chunk{}, err
			}
			r.ended = true
		default:
			r.err = err
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
	rec, err := r.cursor.get(r.n, st.count, false)
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
	r.n++
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
	if _, err := r.l.stream(r.rec.stream).file.ReadAt(r.win, ls.pos); err != nil {
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
			ls.time = r.rec.time
		}
		n, ends := ls.look(r.win, r.l.lineBlock)
		part := r.win[:n]
		r.win = r.win[n:]
		if ends && len(ls.held) == 0 {
			return Chunk{Stream: r.rec.stream, Time: time.Unix(0, ls.time), Data: part}, true
		}
		ls.held = append(ls.held, part...)
		if ends {
			ls.given = true
			return Chunk{Stream: r.rec.stream, Time: time.Unix(0, ls.time), Data: ls.held}, true
		}
	}
	return Chunk{}, false
}

// look goes over b to the next end of a line, or of a block. It returns how
// far it came and whether a line ends there.
func (ls *lineStream) look(b []byte, block int64) (n int, ends bool) {
	left := block - ls.pos%block
	if int64(len(b)) > left {
		b = b[:left]
	}
	n = len(b)
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		n, ends = i+1, true
		ls.newline = true
	}
	ls.pos += int64(n)
	if ls.pos%block == 0 {
		ends = ends || !ls.newline
		ls.newline = false
	}
	return n, ends
}

// rest returns what is held when no more comes.
func (r *Lines) rest() (Chunk, bool) {
	for i, s := range kept {
		ls := &r.streams[i]
		if len(ls.held) > 0 && !ls.given {
			ls.given = true
			return Chunk{Stream: s, Time: time.Unix(0, ls.time), Data: ls.held}, true
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

// stamped puts the time in front, if asked for.
func (r *Lines) stamped(c Chunk) Chunk {
	if r.o.Timestamps {
		r.out = c.Time.UTC().AppendFormat(r.out[:0], timeFormat)
		r.out = append(r.out, ' ')
		r.out = append(r.out, c.Data...)
		c.Data = r.out
	}
	return c
}
