package output

import (
	"errors"
	"fmt"
	"time"
)

// A notice is something that a reader has to know and no byte says. Lines give
// it in its place, as a line of the stream that it is about; a Reader on
// standard error, where it does not fall among the bytes of a file.

// lostNotice is put together from the two records that say that bytes were
// dropped.
type lostNotice struct {
	high int64
	from int64
	have bool // the first of the two was seen
}

// take takes a record, and returns what it has to say, if that is complete.
func (t *lostNotice) take(r *record) (Chunk, bool) {
	switch r.note {
	case noteLostHigh:
		*t = lostNotice{high: r.value, from: r.time, have: true}
	case noteLostLow:
		from := r.time
		if t.have {
			from = t.from
		}
		to := time.Unix(0, r.time)
		text := fmt.Sprintf("lrd: %d bytes of %s were dropped between %s and %s, as the log could not be written\n", t.high<<24|r.value, r.about,
			time.Unix(0, from).UTC().Format(timeFormat), to.UTC().Format(timeFormat))
		*t = lostNotice{}
		return Chunk{Stream: r.about, Time: to, Data: []byte(text), Notice: true}, true
	case noteSegment, noteLeft: // nothing that a reader has to be told
	}
	return Chunk{}, false
}

// missedNotice says that rotation was faster than the reader. bytes is how
// much it has missed; 0: that is not known.
func missedNotice(s Stream, bytes int64, now time.Time) Chunk {
	what := "some output was"
	if bytes > 0 {
		what = fmt.Sprintf("%d bytes of output were", bytes)
	}
	text := "lrd: " + what + " removed by rotation before being read here\n"
	return Chunk{Stream: s, Time: now, Data: []byte(text), Notice: true}
}

// damageNotice says that nothing more can be read, if that is what err says.
func damageNotice(s Stream, err error, now time.Time) (Chunk, bool) {
	var damage *DamageError
	if !errors.As(err, &damage) {
		return Chunk{}, false
	}
	return Chunk{Stream: s, Time: now, Data: []byte("lrd: " + damage.Error() + "\n"), Notice: true}, true
}

// lateEnough is from when on a time that is too late is worth telling. Each run
// begins with some milliseconds before its drain is there.
const lateEnough = time.Second

// writtenAfter returns when the bytes of record n, which came late, have been
// written at the earliest: the time of the last record before it that did not.
// It is zero if that makes no difference worth telling.
func (c *cursor) writtenAfter(st *state, n int64, rec *record) time.Time {
	for n--; n >= st.segs[0].first(); n-- {
		r, err := c.get(st, n, true)
		if err != nil {
			break
		}
		if !r.late() && r.note != noteLostHigh {
			if rec.time-r.time < int64(lateEnough) {
				break
			}
			return time.Unix(0, r.time)
		}
	}
	return time.Time{}
}
