package output

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pinMax is how much readers that lag keep at least of what rotation would
	// remove; or else as much again as it leaves.
	pinMax = 64 << 20

	// stallTime is how long a reader may stand still, with all that it pins
	// used up, before it is given up: a terminal that somebody has stopped with
	// Control-S must not stop the container.
	stallTime = 10 * time.Second

	// comebackTime is how long after Open everything is kept, up to pinMax: the
	// readers of the process before come back with their positions.
	comebackTime = 10 * time.Second

	// lagPause is how long a drain waits for a reader before it looks again.
	lagPause = 2 * time.Millisecond

	// noteRoom is how far ahead the index has room promised, so that what is
	// dropped on a full disk can be noted there.
	noteRoom = 4 << 10
)

var (
	// errLag says that a new segment has to wait for a reader.
	errLag = errors.New("a reader lags")

	// errGone says that rotation has removed what was to be read.
	errGone = errors.New("this output has been removed by rotation")
)

// full says whether the segment has its size.
func (l *Log) full() bool { return l.maxSize > 0 && l.used.Load() >= l.maxSize }

// rotate begins a new segment, if the present one is full. A SIGKILL at any
// point leaves a store that is whole:
//
//	data files made      they are empty, and no index speaks of them: Open
//	                     removes them
//	index made           under another name, with its first record
//	index renamed        from here on the new segment is there
//	old ones removed     by tidy, later; Open does it again
//
// It is the one place in which a reader that lags slows the container: makeRoom
// says when, and the drain tries again until it does not.
func (l *Log) rotate() error {
	for i := range l.streams {
		st := &l.streams[i]
		st.mu.Lock()
		defer st.mu.Unlock()
	}
	for i := range l.streams {
		if err := l.commit(&l.streams[i], l.now, 0); err != nil {
			return err
		}
	}
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if !l.full() {
		return nil // the other stream's drain was first
	}
	drop, ok := l.makeRoom(time.Now(), 1)
	if !ok {
		return errLag
	}
	next, note, err := l.newSegment()
	if errors.Is(err, unix.ENOSPC) && drop > 0 && drop < len(l.segs) {
		l.discard(drop) // the room may be there then
		l.tidy()
	}
	if err != nil {
		return err
	}
	l.begin(next, note, drop)
	l.tidy()
	return nil
}

// newSegment makes the files of a segment that begins here. The caller holds
// appendMu and both stream.mu.
func (l *Log) newSegment() (next *segment, first record, err error) {
	next = &segment{begin: [slots]int64{l.ends[0], l.ends[1], l.count * recordSize}}
	var made []*part
	defer func() {
		if err == nil {
			return
		}
		for _, p := range made {
			p.release()
			_ = os.Remove(p.path()) // else Open does
		}
	}()
	first = record{time: l.now().UnixNano(), at: l.ends, note: noteSegment}
	if l.running {
		first.flags = flagRunning
	}
	for i := range l.streams {
		st := &l.streams[i]
		if l.startsLine(st) {
			first.value |= 1 << i
		}
		if st.end == st.base {
			next.parts[i] = st.part // still empty: it is this segment's as well
			continue
		}
		p := newPart(l.dir, i, st.end)
		if err := p.create(); err != nil {
			return nil, first, err
		}
		made = append(made, p)
		next.parts[i] = p
	}
	p := newPart(l.dir, indexSlot, l.count*recordSize)
	if p.file, err = os.OpenFile(p.path()+suffixNew, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return nil, first, err
	}
	p.users = 1
	made = append(made, p)
	first.encode(l.buf[:])
	if _, err := p.file.WriteAt(l.buf[:], 0); err != nil {
		return nil, first, err
	}
	if err := os.Rename(p.path()+suffixNew, p.path()); err != nil {
		return nil, first, err
	}
	next.parts[indexSlot] = p
	return next, first, nil
}

// startsLine says whether the next byte of a stream begins a line.
func (l *Log) startsLine(st *stream) bool {
	if st.end == st.base {
		return l.lineStarts[st.id.slot()]
	}
	var b [1]byte
	_, err := unix.Pread(st.fd, b[:], st.end-st.base-1)
	return err == nil && b[0] == '\n'
}

// begin makes next the segment that is written, without the drop oldest ones.
// The caller holds appendMu and both stream.mu.
func (l *Log) begin(next *segment, first record, drop int) {
	last := l.segs[len(l.segs)-1]
	for i := range l.streams {
		l.lineStarts[i] = first.value&(1<<i) != 0
		if last.parts[i] != next.parts[i] {
			last.parts[i].release()
			l.streams[i].take(next.parts[i], next.begin[i])
		}
	}
	last.parts[indexSlot].release()
	l.index, l.indexBase = next.parts[indexSlot].file, next.begin[indexSlot]
	l.promised = 0
	l.used.Store(recordSize)

	l.mu.Lock()
	l.segs = append(append(make(segments, 0, len(l.segs)+1), l.segs...), next)
	l.count++
	l.wakeLocked()
	l.mu.Unlock()
	l.discard(drop)
}

// discard gives up the oldest segments, for tidy to remove. The caller holds
// appendMu.
func (l *Log) discard(drop int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trash = append(l.trash, l.segs[:drop]...)
	l.segs = l.segs[drop:]
}

// take makes p what is written to. The caller holds st.mu.
func (st *stream) take(p *part, base int64) {
	st.part, st.file, st.fd, st.base, st.reserved = p, p.file, int(p.file.Fd()), base, 0
}

// A hold keeps what one reader has still to read from being removed.
type hold struct {
	record atomic.Int64 // number of the first record that it needs
	steps  atomic.Int64 // how often it has read
	yields bool         // it never slows the container
	reader bool         // it is a reader's: Log.readers counts it
	view   *view

	over bool // it was released. Guarded by Log.mu

	// Guarded by Log.mu: what steps was when it was last looked at, and since when.
	seen  int64
	since time.Time
}

// newHold registers a reader that begins at the oldest record. It is over with
// release, at the latest once nobody has the reader any more.
func (l *Log) newHold(yields bool) (*hold, state) {
	h := &hold{yields: yields, reader: true, view: &view{l: l}}
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.stateLocked()
	h.record.Store(st.segs[0].first())
	l.holds[h] = struct{}{}
	l.readers++
	return h, st
}

// release ends a hold. It may be called again.
func (h *hold) release() {
	l := h.view.l
	l.mu.Lock()
	if h.over {
		l.mu.Unlock()
		return
	}
	h.over = true
	delete(l.holds, h)
	if h.reader {
		l.readers--
	}
	last := l.retired && l.readers == 0
	l.mu.Unlock()
	h.view.close()
	if last {
		l.shutFiles()
	}
	l.retain()
}

// regain registers again a reader that was given up, at the oldest record.
func (h *hold) regain(st *state) {
	l := h.view.l
	l.mu.Lock()
	defer l.mu.Unlock()
	h.record.Store(st.segs[0].first())
	if !h.over {
		l.holds[h] = struct{}{}
	}
}

// retain gives up what was kept beyond MaxFiles for a reader that is gone.
func (l *Log) retain() {
	l.mu.Lock()
	idle := l.closed || l.maxFiles <= 0 || len(l.segs) <= l.maxFiles
	l.mu.Unlock()
	if idle {
		return
	}
	l.appendMu.Lock()
	drop, _ := l.makeRoom(time.Now(), 0)
	l.discard(drop)
	l.appendMu.Unlock()
	if drop > 0 {
		l.tidy()
	}
}

// makeRoom says how many of the oldest segments go when more (0 or 1) begin, or
// that the container has to wait: if readers pin more than they may, and the
// slowest has moved within stallTime, or the Log is patient. Those that are too slow otherwise lose
// what they have not read, and are told by a notice. The caller holds appendMu.
func (l *Log) makeRoom(now time.Time, more int) (drop int, ok bool) {
	if l.maxFiles <= 0 {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	excess := max(0, len(l.segs)+more-l.maxFiles)
	begins := func(i int) (first int64, at ends) {
		if i < len(l.segs) {
			return l.segs[i].first(), l.segs[i].at()
		}
		return l.count, l.ends
	}
	for h := range l.holds {
		if n := h.steps.Load(); n != h.seen || h.since.IsZero() {
			h.seen, h.since = n, now
		}
	}
	_, at := begins(excess)
	oldest := l.segs[0].at()
	pinned := at[0] - oldest[0] + at[1] - oldest[1]
	for drop < excess {
		next, _ := begins(drop + 1)
		h := l.slowestLocked(next)
		switch {
		case h == nil:
			drop++
		case pinned <= max(l.pinMax, l.maxSize*int64(l.maxFiles)):
			return drop, true // kept for it
		case h.yields || l.nonBlocking || !l.patient && now.Sub(h.since) > l.stallTime:
			delete(l.holds, h)
		default:
			return 0, false
		}
	}
	return drop, true
}

// slowestLocked returns the hold that needs the oldest of the records before
// next, if there is one. The caller holds mu.
func (l *Log) slowestLocked(next int64) *hold {
	var slowest *hold
	for h := range l.holds {
		if at := h.record.Load(); at < next && (slowest == nil || at < slowest.record.Load()) {
			slowest = h
		}
	}
	return slowest
}

// gone says whether rotation has removed a part.
func (l *Log) gone(p *part, slot int) bool {
	for _, s := range l.state().segs {
		if s.parts[slot] == p {
			return false
		}
	}
	return true
}
