package events

import (
	"hash/fnv"
	"slices"
	"time"

	"github.com/moby/moby/api/types/events"
)

// A Place is where a [Subscription] is. It may be saved and used in another process. An event is known by its
// time and a hash of what it says.
type Place struct {
	// Seam is the last event that was told before the subscription began: up to it, history is answered in the
	// order of time, behind it events come in the order of telling.
	SeamTime, SeamHash int64
	// Last is the last event that Next returned; zero for none.
	LastTime, LastHash int64
	// Live says that it lies behind the seam.
	Live bool
}

// hash makes two events of one time different. It is never 0.
func hash(m events.Message) int64 {
	h := fnv.New64a()
	for _, part := range []string{string(m.Type), string(m.Action), m.Actor.ID} {
		_, _ = h.Write([]byte(part)) // never fails
		_, _ = h.Write([]byte{0})
	}
	return int64(h.Sum64() | 1)
}

// Place returns where the next event will come from. It is for the goroutine that calls Next.
func (s *Subscription) Place() Place { return s.place }

// returned notes that Next returns m.
func (s *Subscription) returned(m events.Message, live bool) {
	s.place.LastTime, s.place.LastHash, s.place.Live = m.TimeNano, hash(m), live
}

// Resume goes on with the subscription of an earlier process, with what Subscribe was given then, from place
// on: no event is left out and none told twice, as long as the history reaches back to place. Where it does
// not, everything comes that it has.
func (h *Hub) Resume(since, until time.Time, match func(events.Message) bool, place Place) *Subscription {
	s := h.newSubscription(since, until, match)
	s.place = place
	s.resumed = true
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		s.err = ErrClosed
		return s
	}
	s.past = h.history.snapshot()
	h.subs[s] = struct{}{}
	return s
}

// readPast makes of the history what Next returns first.
func (s *Subscription) readPast(past *snapshot) {
	if !s.resumed {
		s.told = past.read(s.wants)
		sortByTime(s.told)
		s.toldLive = 0
		return
	}
	// In the order of telling, and unfiltered: the seam may be an event that this subscription does not want.
	all := past.read(func(events.Message) bool { return true })
	seam := lastIndex(all, s.place.SeamTime, s.place.SeamHash) + 1
	last := lastIndex(all, s.place.LastTime, s.place.LastHash) + 1
	if s.place.Live {
		s.told = s.filter(all[max(seam, last):])
		s.toldLive = len(s.told)
		return
	}
	var before []events.Message
	if !s.since.IsZero() || !s.until.IsZero() {
		before = s.filter(all[:seam])
		sortByTime(before)
		before = before[lastIndex(before, s.place.LastTime, s.place.LastHash)+1:]
	}
	live := s.filter(all[seam:])
	s.told = append(before, live...)
	s.toldLive = len(live)
}

func (s *Subscription) filter(all []events.Message) []events.Message {
	return slices.DeleteFunc(slices.Clone(all), func(m events.Message) bool { return !s.wants(m) })
}

// lastIndex finds an event; -1 if it is not there.
func lastIndex(all []events.Message, at, sum int64) int {
	if sum == 0 {
		return -1
	}
	for i, m := range slices.Backward(all) {
		if m.TimeNano == at && hash(m) == sum {
			return i
		}
	}
	return -1
}

// sortByTime leaves events of one time in the order of telling.
func sortByTime(all []events.Message) {
	slices.SortStableFunc(all, func(a, b events.Message) int {
		switch {
		case a.TimeNano < b.TimeNano:
			return -1
		case a.TimeNano > b.TimeNano:
			return 1
		}
		return 0
	})
}
