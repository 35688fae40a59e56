package api

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"lrd/internal/events"
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

func (s *Server) eventStream(w http.ResponseWriter, r *request) error {
	q := r.query()
	since, until := q.moment("since"), q.moment("until")
	f := q.filters(eventFilterKeys...)
	if q.err == nil && !until.IsZero() && until.Before(since) {
		q.fail("`since` time (%s) cannot be after `until` time (%s)", q.text("since"), q.text("until"))
	}
	if q.err != nil {
		return q.err
	}
	sub := s.Events.Subscribe(since, until, eventMatcher(f))
	defer sub.Close()

	media := eventMedia(r.Header.Get("Accept"))
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w).Flush
	for {
		// The first flush is before the first event: the client learns that it is subscribed.
		if err := flush(); err != nil {
			return err
		}
		m, err := sub.Next(r.Context())
		switch {
		case errors.Is(err, io.EOF), r.Context().Err() != nil, errors.Is(err, events.ErrClosed):
			return nil
		case err != nil:
			return err // a client that lagged sees its stream end, and asks again with since
		}
		line, err := json.Marshal(eventFor(r.version, m))
		if err != nil {
			return err
		}
		if media == mediaSequence {
			line = append([]byte{0x1e}, line...)
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
	}
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
