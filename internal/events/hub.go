package events

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

// Errors of [Subscription.Next] and [Hub.Subscribe].
var (
	// ErrClosed says that the Hub or the Subscription was closed.
	ErrClosed = errors.New("event subscription closed")
	// ErrLagged says that the subscriber read too slowly and events were dropped after the last one delivered.
	ErrLagged = errors.New("event subscriber lagged behind: events were dropped")
)

// Options of a [Hub]. The zero value of each field stands for its default.
type Options struct {
	// MaxBytes bounds the history on disk, both generations together; default 8 MiB.
	MaxBytes int64
	// MaxEvents bounds the history by number, both generations together; default 20000.
	MaxEvents int
	// Queue bounds what waits in memory for one subscriber, in events; default 4096.
	Queue int
	// Log is told of history that cannot be read or written; default slog.Default().
	Log *slog.Logger
}

func (o *Options) setDefaults() {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 8 << 20
	}
	if o.MaxEvents <= 0 {
		o.MaxEvents = 20000
	}
	if o.Queue <= 0 {
		o.Queue = 4096
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
}

// Hub takes events in, keeps their history and hands them to subscribers. It is safe for concurrent use.
type Hub struct {
	queue int

	// mu orders publishing: it guards the fields below, and is held while a line is written, so that the
	// place of an event in the history and in every subscriber's queue is one decision. Taken before
	// Subscription.mu.
	mu      sync.Mutex
	history *history
	subs    map[*Subscription]struct{}
	closed  bool
	last    events.Message    // published last; of an earlier process after Open
	earlier map[twin]struct{} // what earlier processes have told, once it matters; see PublishOnce

	opened time.Time
}

// Open opens the history in dir, making the directory if needed, and repairs what a crash left torn.
func Open(dir string, o Options) (*Hub, error) {
	o.setDefaults()
	h, err := openHistory(dir, o)
	if err != nil {
		return nil, err
	}
	hub := &Hub{queue: o.Queue, history: h, subs: make(map[*Subscription]struct{}), opened: time.Now()}
	hub.last = h.last()
	return hub, nil
}

// Publish writes the event to the history and tells every subscriber. It never waits for one of them.
// An event without a time happened now; one with a time keeps it. Scope defaults to "local".
// When the history cannot be written (a full disk) subscribers are told all the same, and the log says so.
// After Close it does nothing.
func (h *Hub) Publish(m events.Message) {
	m = complete(m)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.publishLocked(m)
}

func (h *Hub) publishLocked(m events.Message) {
	if h.closed {
		return
	}
	h.history.append(m)
	h.last = m
	for s := range h.subs {
		s.offer(m)
	}
}

// PublishOnce is Publish for an event that an earlier process may have told before it was killed, and could not take
// note of: it is told if the history does not have it. It must have its true time, which makes it the same one.
func (h *Hub) PublishOnce(m events.Message) {
	m = complete(m)
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.TimeNano < h.opened.UnixNano() && !h.closed {
		if h.earlier == nil {
			h.earlier = h.history.twins()
		}
		t := twinOf(m)
		if _, told := h.earlier[t]; told {
			return
		}
		h.earlier[t] = struct{}{}
	}
	h.publishLocked(m)
}

// A twin is what two tellings of one event have in common.
type twin struct {
	time, hash int64
	exec       string // commands in one container may end at one time
}

func twinOf(m events.Message) twin { return twin{m.TimeNano, hash(m), m.Actor.Attributes["execID"]} }

// complete fills in what the publisher left to the Hub. Time and TimeNano are made to agree; TimeNano wins.
func complete(m events.Message) events.Message {
	switch {
	case m.TimeNano != 0:
	case m.Time != 0:
		m.TimeNano = m.Time * int64(time.Second)
	default:
		m.TimeNano = time.Now().UnixNano()
	}
	m.Time = m.TimeNano / int64(time.Second)
	if m.Scope == "" {
		m.Scope = "local"
	}
	return m
}

// Subscribe begins a subscription at this very moment.
//
// With a zero since and a zero until there is no history, only what comes. With one of them set the history
// between them comes first. A zero until means: until closed. match chooses the events, nil takes all; it is
// called by the publisher with a lock held, so it must be quick and must not call the Hub. The caller closes
// the Subscription.
func (h *Hub) Subscribe(since, until time.Time, match func(events.Message) bool) *Subscription {
	s := h.newSubscription(since, until, match)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		s.err = ErrClosed
		return s
	}
	s.place.SeamTime, s.place.SeamHash = h.last.TimeNano, 0
	if h.last.TimeNano != 0 {
		s.place.SeamHash = hash(h.last)
	}
	if !since.IsZero() || !until.IsZero() {
		s.past = h.history.snapshot()
	}
	h.subs[s] = struct{}{}
	return s
}

func (h *Hub) newSubscription(since, until time.Time, match func(events.Message) bool) *Subscription {
	return &Subscription{
		hub: h, since: since, until: until, match: match,
		limit: h.queue, wake: make(chan struct{}, 1),
	}
}

// Subscribers returns the number of open subscriptions, which /info calls NEventsListener.
func (h *Hub) Subscribers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs)
}

// Close ends every subscription with [ErrClosed] and closes the history. A second call does nothing.
func (h *Hub) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	for s := range h.subs {
		s.fail(ErrClosed)
	}
	clear(h.subs)
	return h.history.close()
}

func (h *Hub) unsubscribe(s *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}
