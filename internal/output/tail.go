package output

import (
	"bytes"
	"errors"
)

// A tail finds where to begin reading lines, from the end backwards. It sees
// what was published when it was made.
type tail struct {
	l      *Log
	view   *view
	st     state
	chosen [2]bool
	damage error // where counting back could not go on
	intact int64 // from this record on all are good; only set with damage

	lines, blocks window // one for finding lines, one for whether to cut
}

// last returns the places from which the last n lines of the chosen streams
// are read, neither more nor less. Lines without a newline yet count unless
// open is set: then they are read in addition, as they are yet to come.
func (t *tail) last(n int, open bool) (ends, error) {
	from := t.st.ends
	for i := len(kept) - 1; i >= 0; i-- { // lines without a newline are given last, stderr after stdout
		if !t.chosen[i] {
			continue
		}
		start, err := t.lineStart(i, t.st.ends[i])
		if err != nil {
			return from, err
		}
		if start == t.st.ends[i] {
			continue
		}
		if open {
			from[i] = start
			continue
		}
		if n == 0 {
			break
		}
		from[i] = start
		n--
	}
	if n == 0 {
		return from, nil
	}
	return t.count(n)
}

// count goes back over records and the lines that end in them until it has
// seen n ends.
func (t *tail) count(n int) (ends, error) {
	c := cursor{v: t.view}
	at := t.st.ends // where the record before must end
	oldest := t.st.segs[0]
	others, known := 0, true
	for k := t.st.count - 1; k >= oldest.first(); k-- {
		rec, err := c.get(&t.st, k, true)
		if err == nil && known && rec.after() != at {
			err = t.l.damage(k, errNotInLine)
		}
		if damaged := (*DamageError)(nil); errors.As(err, &damaged) {
			t.damage, t.intact = err, k+1
			return at, nil // what is behind the damage can be read
		}
		if err != nil {
			return ends{}, err
		}
		at, known = rec.at, true
		if rec.stream == Stdin {
			continue
		}
		if !t.chosen[rec.stream.slot()] {
			if others++; others%cursorRecords == 0 {
				// The other stream may have much more: look for the last of this one.
				chosen := 1 - rec.stream.slot()
				last, err := t.view.find(&t.st, kept[chosen], at[chosen]-1)
				if err != nil {
					return ends{}, err
				}
				if last < k-1 { // else there is damage between, and it is gone through
					k, known = last+1, false
				}
			}
			continue
		}
		i := rec.stream.slot()
		for hi := rec.after()[i]; ; n-- {
			e, ok, err := t.lastEnd(i, rec.at[i], hi)
			if err != nil {
				return ends{}, err
			}
			if !ok {
				break
			}
			if n == 1 {
				return t.cut(i, e, rec.at)
			}
			hi = e - 1
		}
	}
	return oldest.at(), nil // all there is
}

// cut returns the beginnings of the line that ends at e in stream i, and of
// the other stream's line that ends next after it; at is the place of the
// record in which e lies.
func (t *tail) cut(i int, e int64, at ends) (from ends, err error) {
	if from[i], err = t.lineStart(i, e-1); err != nil {
		return from, err
	}
	from[1-i], err = t.lineStart(1-i, at[1-i])
	return from, err
}

// since returns the places before which no line begins in a record of time t
// or later, at the beginnings of lines.
func (t *tail) since(at int64) (ends, error) {
	n, err := t.view.findTime(&t.st, at)
	if err != nil {
		return t.st.ends, err
	}
	from := t.st.ends
	if n < t.st.count {
		c := cursor{v: t.view}
		rec, err := c.get(&t.st, n, false)
		if damaged := (*DamageError)(nil); errors.As(err, &damaged) {
			return t.st.segs[0].at(), nil // reading will come to it, and tell
		}
		if err != nil {
			return from, err
		}
		from = rec.at
	}
	for i := range from {
		start, err := t.lineStart(i, min(from[i], t.st.ends[i]))
		if err != nil {
			return from, err
		}
		from[i] = start
	}
	return from, nil
}

// lineStart returns where the line begins that has a byte, or a place for one,
// at off in stream i.
func (t *tail) lineStart(i int, off int64) (int64, error) {
	e, _, err := t.lastEnd(i, 0, off)
	return e, err
}

// lastEnd returns the last end of a line e in stream i with lo < e <= hi, if
// there is one, else lo.
func (t *tail) lastEnd(i int, lo, hi int64) (int64, bool, error) {
	block := t.l.lineBlock
	lo = max(lo, t.st.segs[0].begin[i])
	for hi > lo {
		b, at, err := t.lines.before(t, i, hi, t.st.ends[i])
		if err != nil {
			return lo, false, t.l.readError(-1, err)
		}
		if b[len(b)-1] != '\n' && hi%block == 0 && hi-block >= t.st.segs[0].begin[i] {
			found, err := t.hasNewline(i, hi-block, hi)
			if err != nil {
				return lo, false, t.l.readError(-1, err)
			}
			if !found {
				return hi, true, nil
			}
		}
		if at < lo {
			b, at = b[lo-at:], lo
		}
		if j := bytes.LastIndexByte(b, '\n'); j >= 0 {
			return at + int64(j) + 1, true, nil
		}
		hi = at
	}
	return lo, false, nil
}

// hasNewline says whether there is a newline in bytes lo to hi of stream i.
func (t *tail) hasNewline(i int, lo, hi int64) (bool, error) {
	for hi > lo {
		b, at, err := t.blocks.before(t, i, hi, t.st.ends[i])
		if err != nil {
			return false, err
		}
		if bytes.IndexByte(b, '\n') >= 0 {
			return true, nil
		}
		hi = at
	}
	return false, nil
}

// first returns where stream i's first whole line begins. Rotation takes no
// account of lines, so the oldest may have lost its beginning.
func (t *tail) first(i int) (int64, error) {
	oldest := t.st.segs[0]
	base := oldest.begin[i]
	c := cursor{v: t.view}
	rec, err := c.get(&t.st, oldest.first(), false)
	if err != nil || base == 0 || rec.note != noteSegment || rec.value&(1<<i) != 0 {
		return base, nil //nolint:nilerr // reading will come to it, and tell
	}
	b := make([]byte, min(t.l.scanBlock, t.st.ends[i]-base))
	if err := t.view.read(t.st.segs, i, b, base); err != nil {
		return base, t.l.readError(oldest.first(), err)
	}
	return base + int64(bytes.IndexByte(b, '\n')) + 1, nil // no newline, no line that was whole
}

// A window is one scanBlock of a stream, at a multiple of its size.
type window struct {
	buf    []byte
	stream int
	at     int64
	n      int64 // bytes in buf
}

// before returns the bytes of the window that end at hi, and where they begin.
func (w *window) before(t *tail, i int, hi, end int64) ([]byte, int64, error) {
	size := t.l.scanBlock
	at := (hi - 1) / size * size
	// Of one segment only: another one's damage is not this place's.
	k := t.st.segs.find(i, hi-1)
	at = max(at, t.st.segs[k].begin[i])
	if k+1 < len(t.st.segs) {
		end = min(end, t.st.segs[k+1].begin[i])
	}
	if w.buf == nil {
		w.buf = make([]byte, size)
	}
	if w.stream != i || w.at != at || w.n < hi-at {
		w.n = 0
		n := min(size-at%size, end-at)
		if err := t.view.read(t.st.segs, i, w.buf[:n], at); err != nil {
			return nil, 0, err
		}
		w.stream, w.at, w.n = i, at, n
	}
	return w.buf[:hi-at], at, nil
}
