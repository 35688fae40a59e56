package output

import "time"

// A container that writes many small pieces in a row would cost one splice and
// one record for each. The drain then lets the pipe fill for a moment: the
// writer does not notice, since a pipe holds far more than it writes in that
// time, and what was one record each becomes one for all of them.
const (
	trickleBytes = 4096                   // less than this at a time is small
	trickleRun   = 16                     // so many small ones, without a longer gap between two, make a trickle
	trickleGap   = 500 * time.Microsecond // a writer that is slower than this is a person or a clock, and is served at once
	tricklePause = time.Millisecond
)

// trickle recognises a row of small pieces. The zero value never pauses, which
// is right for a console: it holds no more than a small piece.
type trickle struct {
	// full is how much a pause may gather without the next being left out: half of
	// what the pipe holds, so that a writer of large pieces is never slowed.
	full int

	small  int
	last   time.Time
	paused bool
}

// pause says how long to let the pipe fill after n bytes came at now.
func (t *trickle) pause(n int, now time.Time) time.Duration {
	if t.full == 0 {
		return 0
	}
	gap := now.Sub(t.last)
	t.last = now
	if t.paused {
		// What the pause has gathered was there at its end, so the row goes on,
		// however late a busy machine has ended the pause.
		t.paused = n < t.full
	} else {
		t.begin(n, gap)
	}
	if !t.paused {
		return 0
	}
	return tricklePause
}

// begin looks whether n bytes that came gap after the ones before are of a row.
func (t *trickle) begin(n int, gap time.Duration) {
	switch {
	case n >= trickleBytes:
		t.small = 0
	case gap > trickleGap:
		t.small = 1 // perhaps the first of the next row
	default:
		t.small = min(t.small+1, trickleRun)
	}
	t.paused = t.small == trickleRun
}

// empty says that nothing came for now.
func (t *trickle) empty() { t.paused = false }
