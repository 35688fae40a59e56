package main

import (
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestThrift(t *testing.T) {
	var th thrift
	for i, step := range []struct {
		allocated uint64 // since the step before
		want      bool
	}{
		{thriftWorth, false},     // at work
		{0, true},                // done
		{0, false},               // idle
		{thriftQuiet - 1, false}, // not worth it
		{thriftWorth / 2, false}, // at work
		{thriftWorth / 2, false}, //
		{thriftWorth * 9, false}, // and on
		{thriftQuiet - 1, true},  // done, but for a poll
		{thriftQuiet - 1, false},
	} {
		assert.Check(t, is.Equal(th.look(th.last+step.allocated), step.want), "step %d", i)
	}
}
