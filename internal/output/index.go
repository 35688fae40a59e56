package output

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// commit writes the records for what is in st's file and not yet in the index:
// nearly always one. at gives their time. The caller holds st.mu. After an
// error it is called again before anything else is written.
func (l *Log) commit(st *stream, at func() time.Time, flags uint8) error {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	for {
		n := min(st.end-l.ends[st.id.slot()], maxRecordLength)
		if n <= 0 {
			return nil
		}
		if l.running {
			flags |= flagRunning
		}
		err := l.appendLocked(record{time: at().UnixNano(), length: n, stream: st.id, flags: flags})
		if err != nil {
			return err
		}
	}
}

// mark writes a marker: the beginning or the end of a run, if it is not what
// the index says already.
func (l *Log) mark(flags uint8) error {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if l.running == (flags&flagRunning != 0) {
		return nil
	}
	return l.appendLocked(record{time: l.now().UnixNano(), flags: flags})
}

// note writes a note, of now.
func (l *Log) note(r record) error {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	r.time = l.now().UnixNano()
	if l.running {
		r.flags = flagRunning
	}
	return l.appendLocked(r)
}

// appendLocked puts r, its places filled in, behind the last record and
// publishes it. The caller holds appendMu. It allocates nothing.
func (l *Log) appendLocked(r record) error {
	r.at = l.ends
	r.encode(l.buf[:])
	off := l.count*recordSize - l.indexBase
	if off+noteRoom/2 > l.promised {
		l.promise(off)
	}
	if _, err := l.index.WriteAt(l.buf[:], off); err != nil {
		if errors.Is(err, os.ErrClosed) {
			return ErrClosed
		}
		// A part may stand there now. It is written over by the next try, and cut
		// by Open if there is none.
		return err
	}
	l.used.Add(recordSize + r.length)
	l.mu.Lock()
	l.count++
	l.ends = r.after()
	l.running = r.flags&flagRunning != 0
	l.wakeLocked()
	l.mu.Unlock()
	return nil
}

// promise has the file system promise room for records from off on, so that a
// full disk does not keep the last ones from being written: those that say what
// was dropped. Where it cannot promise they wait for room. The caller holds
// appendMu.
func (l *Log) promise(off int64) {
	l.promised = off + noteRoom // not asked again for each record where it is refused
	_ = unix.Fallocate(int(l.index.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, noteRoom)
}

// wakeLocked wakes who waits. The caller holds mu. It cannot block: a waiter
// that has its token already needs no other.
func (l *Log) wakeLocked() {
	for _, w := range l.waiters {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	clear(l.waiters)
	l.waiters = l.waiters[:0]
}

// wait returns when the index has more than seen records. wake is the caller's
// own channel with room for one token. A return without news is possible.
func (l *Log) wait(ctx context.Context, wake chan struct{}, seen int64) error {
	l.mu.Lock()
	if l.count > seen { // also if the Log is closed: a retired one is read to its end
		l.mu.Unlock()
		return nil
	}
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	l.waiters = append(l.waiters, wake)
	l.mu.Unlock()
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, w := range l.waiters {
		if w == wake {
			last := len(l.waiters) - 1
			l.waiters[i] = l.waiters[last]
			l.waiters[last] = nil
			l.waiters = l.waiters[:last]
			break
		}
	}
	return ctx.Err()
}

// cursorRecords is how many records a cursor reads at once: a page of them.
const cursorRecords = 128

// A cursor reads records by number, some at a time.
type cursor struct {
	v     *view
	buf   []byte // of cursorRecords, made when first needed
	first int64  // number of the first record in buf
	have  int64  // how many are in buf
}

// get returns record n of those in st. backwards says in which direction the
// caller goes. errGone: rotation has removed it.
func (c *cursor) get(st *state, n int64, backwards bool) (record, error) {
	if n < c.first || n >= c.first+c.have {
		if err := c.fill(st, n, backwards); err != nil {
			return record{}, err
		}
	}
	r, err := decode(c.buf[(n-c.first)*recordSize:][:recordSize])
	if err != nil {
		return record{}, c.v.l.damage(n, err)
	}
	return r, nil
}

func (c *cursor) fill(st *state, n int64, backwards bool) error {
	if c.buf == nil {
		c.buf = make([]byte, cursorRecords*recordSize)
	}
	first, last := n, min(st.count, n+cursorRecords)
	if backwards {
		first, last = max(st.segs[0].first(), n+1-cursorRecords), n+1
	}
	c.have = 0
	if n < st.segs[0].first() {
		return errGone
	}
	// Of one segment only: another one's damage is not this record's.
	k := st.segs.find(indexSlot, n*recordSize)
	first = max(first, st.segs[k].first())
	if k+1 < len(st.segs) {
		last = min(last, st.segs[k+1].first())
	}
	if err := c.v.read(st.segs, indexSlot, c.buf[:(last-first)*recordSize], first*recordSize); err != nil {
		return c.v.l.readError(n, err)
	}
	c.first, c.have = first, last-first
	return nil
}

// damage makes a DamageError.
func (l *Log) damage(n int64, err error) error {
	return &DamageError{Dir: l.dir, Record: n, Err: err}
}

// readError explains an error in reading what record n is or covers.
func (l *Log) readError(n int64, err error) error {
	switch {
	case errors.Is(err, os.ErrClosed):
		return ErrClosed
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, fs.ErrNotExist), errors.Is(err, errPacked):
		return l.damage(n, err) // somebody has cut the file, or more
	default:
		return err
	}
}

// find returns the number of the first record that ends behind byte off of
// stream s, or st.count when there is none. It steps over damage as far as the
// records around it allow; else it returns the first damaged one.
func (v *view) find(st *state, s Stream, off int64) (int64, error) {
	lo, hi := st.segs[0].first(), st.count
	for lo < hi {
		mid := lo + (hi-lo)/2
		rec, n, err := v.sound(st, mid, hi)
		switch {
		case err != nil:
			return 0, err
		case n == hi: // none from mid on
			hi = mid
		case rec.after()[s.slot()] > off:
			hi = mid // from mid to n is damage alone
		default:
			lo = n + 1
		}
	}
	rec, n, err := v.sound(st, lo, st.count)
	if err == nil && n < st.count && rec.at[s.slot()] <= off {
		return n, nil
	}
	return lo, err
}

// findTime returns the number of the first record of time t or later, or
// st.count when there is none. Times are taken not to go backwards.
func (v *view) findTime(st *state, t int64) (int64, error) {
	lo, hi := st.segs[0].first(), st.count
	for lo < hi {
		mid := lo + (hi-lo)/2
		rec, n, err := v.sound(st, mid, hi)
		if err == nil && n < hi && rec.note == noteLostHigh { // it speaks of the past
			rec, n, err = v.sound(st, n+1, hi)
		}
		switch {
		case err != nil:
			return 0, err
		case n == hi, rec.time >= t:
			hi = mid
		default:
			lo = n + 1
		}
	}
	return lo, nil
}

// sound returns the first undamaged record from number n on, and its number:
// limit when there is none before it.
func (v *view) sound(st *state, n, limit int64) (record, int64, error) {
	var buf [recordSize]byte
	for ; n < limit; n++ {
		err := v.read(st.segs, indexSlot, buf[:], n*recordSize)
		var damaged *DamageError
		if err = v.l.readError(n, err); errors.As(err, &damaged) {
			// The rest of this file is not there.
			if k := st.segs.find(indexSlot, n*recordSize); k >= 0 && k+1 < len(st.segs) {
				n = st.segs[k+1].first() - 1
				continue
			}
			return record{}, limit, nil
		}
		if err != nil {
			return record{}, n, err
		}
		if r, err := decode(buf[:]); err == nil {
			return r, n, nil
		}
	}
	return record{}, min(n, limit), nil
}
