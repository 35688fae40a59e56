package events

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	"gotest.tools/v3/assert"
)

// TestResumeGoesOnAnywhere: a subscription that goes on in another process, from wherever it was, sees what it would
// have seen uninterrupted: history in the order of time, then the rest in the order of telling, nothing left out and
// nothing twice. Events come late, and some have the same time.
func TestResumeGoesOnAnywhere(t *testing.T) {
	odd := func(m events.Message) bool { n, _ := strconv.Atoi(m.Actor.ID); return n%2 == 1 }
	for _, tc := range []struct {
		name  string
		since time.Time
		match func(events.Message) bool
	}{
		{"live", time.Time{}, nil},
		{"live, filtered", time.Time{}, odd},
		{"with history", time.Unix(0, 1), nil},
		{"with history, filtered", time.Unix(0, 1), odd},
		{"with some history", time.Unix(100, 0), odd},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for seed := range uint64(40) {
				resumeSomewhere(t, rand.New(rand.NewPCG(seed, 0)), tc.since, tc.match)
			}
		})
	}
}

func resumeSomewhere(t *testing.T, rnd *rand.Rand, since time.Time, match func(events.Message) bool) {
	t.Helper()
	dir := t.TempDir()
	h, err := Open(dir, Options{})
	assert.NilError(t, err)
	var all []events.Message
	publish := func(count int) {
		for range count {
			all = append(all, event(len(all), time.Unix(80+int64(len(all))-rnd.Int64N(5), 0)))
			h.Publish(all[len(all)-1])
		}
	}
	publish(rnd.IntN(40))
	uninterrupted := h.Subscribe(since, time.Time{}, match)
	sub := h.Subscribe(since, time.Time{}, match)
	publish(rnd.IntN(40))
	var told, want []string
	read := func(s *Subscription, to *[]string, most int) {
		for range most {
			m, err := s.Next(gone(t))
			if err != nil {
				return // there is no more
			}
			*to = append(*to, m.Actor.ID)
		}
	}
	read(uninterrupted, &want, 1000)
	for range 1 + rnd.IntN(3) {
		read(sub, &told, rnd.IntN(30))
		at := sub.Place()
		sub.Close()
		assert.NilError(t, h.Close())
		h, err = Open(dir, Options{})
		assert.NilError(t, err)
		before := len(all)
		publish(rnd.IntN(3)) // by the time that it is resumed
		sub = h.Resume(since, time.Time{}, match, at)
		publish(rnd.IntN(20))
		for _, m := range all[before:] {
			if uninterrupted.wants(m) {
				want = append(want, m.Actor.ID)
			}
		}
	}
	read(sub, &told, 1000)
	sub.Close()
	assert.NilError(t, h.Close())
	assert.DeepEqual(t, told, want)
}

// gone is a context that is done: Next with it does not wait.
func gone(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
