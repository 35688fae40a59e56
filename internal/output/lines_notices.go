package output

import "bytes"

// notice takes a note into what is given next. A line that has begun is given
// as it is: its end may be what was dropped.
func (r *Lines) notice(rec *record) {
	c, ok := r.lost.take(rec)
	if !ok || c.Stream == Stdin || !r.streams[c.Stream.slot()].chosen {
		return
	}
	if ls := &r.streams[c.Stream.slot()]; len(ls.held) > 0 && !ls.given {
		r.notices = append(r.notices, r.piece(c.Stream.slot()))
	}
	r.notices = append(r.notices, c)
}

// missed has a notice given if rotation has removed bytes of the chosen streams
// behind from.
func (r *Lines) missed(st *state, from ends) {
	oldest, bytes := st.segs[0].at(), int64(0)
	for i, chosen := range [2]bool{r.o.Stdout, r.o.Stderr} {
		if chosen {
			bytes += max(0, oldest[i]-from[i])
		}
	}
	if bytes > 0 {
		r.notices = append(r.notices, missedNotice(r.own(), bytes, r.l.now()))
	}
}

// skip goes on at the oldest record that there is, after rotation has removed
// what came next.
func (r *Lines) skip() {
	st := r.l.state()
	var from ends
	for i := range r.streams {
		ls := &r.streams[i]
		from[i] = ls.pos
		if len(ls.held) > 0 && !ls.given { // the rest of the line is not to come
			r.notices = append(r.notices, r.piece(i))
		}
	}
	r.missed(&st, from)
	oldest := st.segs[0].at()
	for i := range r.streams {
		ls := &r.streams[i]
		*ls = lineStream{chosen: ls.chosen, pos: max(ls.pos, oldest[i]), newline: true}
	}
	r.n, r.rec, r.win, r.chain = st.segs[0].first(), record{}, nil, chain{}
	r.hold.regain(&st)
}

// piece is what is held of stream i, as a line that has no end.
func (r *Lines) piece(i int) Chunk {
	ls := &r.streams[i]
	c := ls.chunk(kept[i], append(bytes.Clone(ls.held), '\n'))
	ls.held, ls.given = ls.held[:0], false
	return c
}

// fail makes err the end. Damage is also told as a notice, to whoever sees no
// errors.
func (r *Lines) fail(err error) {
	r.err = err
	r.hold.release()
	now := r.l.now()
	if u := r.o.Until; !u.IsZero() && u.Before(now) {
		now = u // Until is to choose among lines
	}
	if c, ok := damageNotice(r.own(), err, now); ok {
		r.notices = append(r.notices, c)
	}
}

// own is the stream for what is about no stream: standard error, if chosen.
func (r *Lines) own() Stream {
	if r.o.Stderr {
		return Stderr
	}
	return Stdout
}
