package api

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"strings"
	"time"

	"lrd/internal/containers"
	"lrd/internal/events"
	"lrd/internal/output"
	"lrd/internal/sessions"
)

// Media types of the event stream, see "Monitor events" in the API.
const (
	mediaNDJSON   = "application/x-ndjson"
	mediaJSONL    = "application/jsonl"
	mediaSequence = "application/json-seq" // RFC 7464: each text begins with a record separator
)

var eventFilterKeys = []string{
	"builder", "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume",
}

// eventQuery is what a client of /events asks for.
type eventQuery struct {
	since, until time.Time
	filters      containers.Filters
}

func parseEventQuery(q *params) (e eventQuery, err error) {
	e.since, e.until = q.moment("since"), q.moment("until")
	e.filters = q.filters(eventFilterKeys...)
	if q.err == nil && !e.until.IsZero() && e.until.Before(e.since) {
		q.fail("`since` time (%s) cannot be after `until` time (%s)", q.text("since"), q.text("until"))
	}
	return e, q.err
}

func (s *Server) eventStream(w http.ResponseWriter, r *request) error {
	e, err := parseEventQuery(r.query())
	if err != nil {
		return err
	}
	leave, err := s.Sessions.Admit()
	if err != nil {
		return err
	}
	defer leave()
	sub := s.Events.Subscribe(e.since, e.until, eventMatcher(e.filters))
	defer sub.Close()
	media := eventMedia(r.Header.Get("Accept"))
	w.Header().Set("Content-Type", media)
	// The head goes out before the first event: the client learns that it is subscribed.
	saved := newSaved(r, kindEvents)
	saved.Media = media
	_, err = s.serveBody(w, r, saved, sessions.Streams{
		Output: &eventSource{Subscription: sub, version: r.version, media: media},
	})
	return err
}

// resumeEvents goes on with an event stream of an earlier process.
func (s *Server) resumeEvents(_ context.Context, saved savedStream, at sessions.Cursor) (sessions.Streams, func(), error) {
	e, err := parseEventQuery(saved.query())
	if err != nil {
		return sessions.Streams{}, nil, err
	}
	place := events.Place{SeamTime: at[0], SeamHash: at[1], LastTime: at[2], LastHash: at[3], Live: at[4] != 0}
	sub := s.Events.Resume(e.since, e.until, eventMatcher(e.filters), place)
	return sessions.Streams{Output: &eventSource{Subscription: sub, version: saved.version(), media: saved.Media}}, sub.Close, nil
}

// eventSource is a subscription as what a client reads.
type eventSource struct {
	*events.Subscription
	version version
	media   string
}

// Next returns an event in the client's form. A client that lagged sees its stream end, and asks again with since.
func (s *eventSource) Next(ctx context.Context) (output.Chunk, error) {
	m, err := s.Subscription.Next(ctx)
	if err != nil {
		return output.Chunk{}, err
	}
	line, err := json.Marshal(eventFor(s.version, m))
	if err != nil {
		return output.Chunk{}, err
	}
	if s.media == mediaSequence {
		line = append([]byte{0x1e}, line...)
	}
	return output.Chunk{Data: append(line, '\n')}, nil
}

// Cursor is the subscription's place.
func (s *eventSource) Cursor() sessions.Cursor {
	p := s.Place()
	c := sessions.Cursor{p.SeamTime, p.SeamHash, p.LastTime, p.LastHash}
	if p.Live {
		c[4] = 1
	}
	return c
}

// eventMedia chooses the form of the stream. A client that asks for none of them gets what dockerd always
// called application/json: objects one after the other.
func eventMedia(accept string) string {
	for _, item := range strings.Split(accept, ",") {
		media, p, err := mime.ParseMediaType(item)
		if err != nil || p["q"] == "0" {
			continue
		}
		switch media {
		case mediaNDJSON, mediaJSONL, mediaSequence:
			return media
		}
	}
	return "application/json"
}
