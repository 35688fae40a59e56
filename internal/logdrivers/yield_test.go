package logdrivers

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// TestYield: those that are behind take turns, the others do not wait.
func TestYield(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := make(chan struct{}, 1)
		behind := func() *yield {
			y := &yield{turns: turns}
			for range yieldAfter - 1 {
				y.batch()
				y.turn(t.Context())
				assert.Assert(t, !y.mine, "it is not behind yet")
			}
			y.batch()
			return y
		}
		first := behind()
		defer first.end()
		first.turn(t.Context())
		first.turn(t.Context())
		assert.Assert(t, first.mine)

		keepsUp := &yield{turns: turns}
		keepsUp.turn(t.Context())
		assert.Assert(t, !keepsUp.mine)

		done := make(chan struct{})
		go func() {
			defer close(done)
			second := behind()
			defer second.end()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			second.turn(ctx)
			assert.Check(t, !second.mine, "the first has it")
			second.turn(t.Context())
			assert.Check(t, second.mine)
		}()
		time.Sleep(time.Minute)
		assert.Equal(t, len(turns), 1)
		first.pass()
		<-done
		assert.Equal(t, len(turns), 0, "the end gives it back")
	})
}
