package events

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

// Subscription is one listener. Next is for one goroutine; Close may be called by any.
type Subscription struct {
	hub          *Hub
	since, until time.Time
	match        func(events.Message) bool
	limit        int

	// told is what Next has read of the history and not yet returned. Only Next touches it.
	told []events.Message
	// toldLive is how many at the end of told lie behind the seam; see Place. Only Next touches it and place.
	toldLive int
	place    Place
	resumed  bool

	// wake holds a token when queue or err changed.
	wake chan struct{}

	// mu guards what follows. Taken after Hub.mu.
	mu    sync.Mutex
	past  *snapshot // the history up to the moment of Subscribe, until Next takes it over
	queue []events.Message
	err   error // what Next returns once the queue is empty; set once
}

// Next returns the next event, waiting for one if need be. It returns io.EOF when until has passed,
// [ErrLagged] when this subscriber was too slow, [ErrClosed] after Close, or the cause of ctx.
func (s *Subscription) Next(ctx context.Context) (events.Message, error) {
	if past := s.takePast(); past != nil {
		s.readPast(past)
	}
	if len(s.told) > 0 {
		m := s.told[0]
		s.returned(m, len(s.told) <= s.toldLive)
		s.told = s.told[1:]
		return m, nil
	}

	var over <-chan time.Time
	if !s.until.IsZero() {
		t := time.NewTimer(time.Until(s.until))
		defer t.Stop()
		over = t.C
	}
	for {
		if m, ok, err := s.take(); ok || err != nil {
			if ok {
				s.returned(m, true)
			}
			return m, err
		}
		select {
		case <-s.wake:
		case <-over:
			// What was published before until passed is already in the queue.
			m, ok, err := s.take()
			if ok {
				s.returned(m, true)
			} else if err == nil {
				err = io.EOF
			}
			return m, err
		case <-ctx.Done():
			return events.Message{}, context.Cause(ctx)
		}
	}
}

// Close ends the subscription and frees what it holds. Next then returns [ErrClosed], after the history that
// it has read already.
func (s *Subscription) Close() {
	s.hub.unsubscribe(s)
	s.fail(ErrClosed)
	if past := s.takePast(); past != nil {
		past.close()
	}
}

// takePast hands the unread history to its one reader or closer.
func (s *Subscription) takePast() *snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	past := s.past
	s.past = nil
	return past
}

// take returns the head of the queue, or the error that ended the subscription once the queue is empty.
func (s *Subscription) take() (m events.Message, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return m, false, s.err
	}
	m = s.queue[0]
	s.queue[0] = events.Message{}
	s.queue = s.queue[1:]
	return m, true, nil
}

// offer queues the event if this subscriber wants it. Called with Hub.mu held: it must not wait.
func (s *Subscription) offer(m events.Message) {
	if !s.wants(m) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	if len(s.queue) >= s.limit {
		s.err = ErrLagged
	} else {
		s.queue = append(s.queue, m)
	}
	s.wakeUp()
}

// fail ends the subscription. What is queued is still delivered, except after Close, which frees it.
func (s *Subscription) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	if errors.Is(err, ErrClosed) {
		s.queue = nil
	}
	s.wakeUp()
}

func (s *Subscription) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// wants tells whether the event lies between since and until and matches.
func (s *Subscription) wants(m events.Message) bool {
	if !s.since.IsZero() && m.TimeNano < s.since.UnixNano() {
		return false
	}
	if !s.until.IsZero() && m.TimeNano > s.until.UnixNano() {
		return false
	}
	return s.match == nil || s.match(m)
}
