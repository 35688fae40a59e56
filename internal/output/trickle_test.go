package output

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestTrickle(t *testing.T) {
	at := time.Unix(0, 0)
	feed := func(tr *trickle, n, times int, gap time.Duration) (pauses int) {
		for range times {
			at = at.Add(gap) // after the pause, if there was one
			if gap > trickleGap {
				tr.empty()
			}
			if p := tr.pause(n, at); p > 0 {
				pauses++
				at = at.Add(p)
			}
		}
		return pauses
	}

	for _, tc := range []struct {
		name     string
		n, times int
		gap      time.Duration
		pauses   int
	}{
		{"a person", 1, 100, 50 * time.Millisecond, 0},
		{"a line each two milliseconds", 20, 100, 2 * time.Millisecond, 0},
		{"a burst of a few lines", 20, trickleRun - 1, 5 * time.Microsecond, 0},
		{"flat out, small", 20, 100, 5 * time.Microsecond, 100 - trickleRun + 1},
		{"flat out, large", 65536, 100, 5 * time.Microsecond, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.Equal(t, feed(&trickle{full: 32 << 10}, tc.n, tc.times, tc.gap), tc.pauses)
		})
	}

	t.Run("a row goes on with what a pause gathers, until that nearly fills the pipe", func(t *testing.T) {
		tr := trickle{full: 512 << 10}
		assert.Equal(t, feed(&tr, 20, trickleRun, 5*time.Microsecond), 1)
		assert.Equal(t, feed(&tr, 100<<10, 10, 5*time.Microsecond), 10)
		assert.Equal(t, feed(&tr, 600<<10, 10, 5*time.Microsecond), 0)
	})
	t.Run("nor does it end when the machine is slow to end a pause", func(t *testing.T) {
		tr := trickle{full: 512 << 10}
		assert.Equal(t, feed(&tr, 20, trickleRun, 5*time.Microsecond), 1)
		at = at.Add(20 * time.Millisecond)
		assert.Equal(t, feed(&tr, 100<<10, 10, 5*time.Microsecond), 10)
		at = at.Add(20 * time.Millisecond)
		assert.Equal(t, feed(&tr, 600<<10, 1, 5*time.Microsecond), 0)
		assert.Equal(t, feed(&tr, 20, 10, 5*time.Microsecond), 10, "room was made, and it goes on")
	})
	t.Run("a console is never paused", func(t *testing.T) {
		assert.Equal(t, feed(&trickle{}, 20, 100, 5*time.Microsecond), 0)
	})
	t.Run("a gap ends it", func(t *testing.T) {
		tr := trickle{full: 32 << 10}
		assert.Equal(t, feed(&tr, 20, trickleRun, 5*time.Microsecond), 1)
		assert.Equal(t, feed(&tr, 20, 2, 3*time.Millisecond), 0)
		assert.Equal(t, feed(&tr, 20, trickleRun-2, 5*time.Microsecond), 0)
	})
}
