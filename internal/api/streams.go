package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/sessions"
)

// Kinds of sessions; see sessions.Description.
const (
	kindAttach = "attach"
	kindExec   = "exec"
	kindLogs   = "logs"
	kindWait   = "wait"
	kindEvents = "events"
	kindStats  = "stats"
)

// savedStream is what a stream is made again from in another process: the request, as far as it matters.
type savedStream struct {
	kind        string
	multiplexed bool
	follows     *sessions.Follows // see sessions.Description

	Container string `json:"-"`
	Exec      string `json:"exec,omitempty"`
	Query     string `json:"query"` // as the client sent it
	Version   string `json:"version"`
	Media     string `json:"media,omitempty"` // of events
	// Finished is when the container's last run before the stream had ended, as inspect shows it: another
	// time later on means that a run has ended since.
	Finished string `json:"finished,omitempty"`
}

func newSaved(r *request, kind string) savedStream {
	return savedStream{kind: kind, Query: r.URL.RawQuery, Version: r.version.String()}
}

// of notes the container that is followed.
func (s *savedStream) of(c container.InspectResponse) {
	s.Container = c.ID
	if c.State != nil {
		s.Finished = c.State.FinishedAt
	}
}

func (s savedStream) description(f sessions.Framing) sessions.Description {
	options, _ := json.Marshal(s) // strings always can be
	return sessions.Description{Kind: s.kind, Container: s.Container, Options: options, Framing: f, Follows: s.follows}
}

func (s savedStream) query() *params {
	values, err := url.ParseQuery(s.Query)
	return &params{values: values, err: err}
}

func (s savedStream) version() version {
	v, _ := parseVersion(s.Version)
	return v
}

// follow admits and begins to save a stream that follows a container. leave is to be called with the stream's end: as
// long as somebody reads, a container that is removed automatically stays.
func (s *Server) follow(r *request, kind string) (saved savedStream, leave func(sessions.End), err error) {
	admitted, err := s.Sessions.Admit()
	if err != nil {
		return saved, nil, err
	}
	c, err := s.Containers.Inspect(r.Context(), r.vars["ref"], false)
	if err != nil {
		admitted()
		return saved, nil, err
	}
	done, err := s.Containers.Reading(c.ID, kind == kindAttach)
	if err != nil {
		admitted()
		return saved, nil, err
	}
	saved = newSaved(r, kind)
	saved.of(c)
	return saved, func(end sessions.End) {
		if end != sessions.EndFrozen {
			done()
		}
		admitted()
	}, nil
}

// serveBody answers with a body that is a session.
func (s *Server) serveBody(w http.ResponseWriter, r *request, saved savedStream, streams sessions.Streams) (sessions.End, error) {
	conn, err := hijack(w)
	if err != nil {
		streams.Discard()
		return sessions.EndFailed, err
	}
	head, chunked := bodyHead(r.Request, w.Header())
	d := saved.description(sessions.Framing{Multiplexed: saved.multiplexed, Chunked: chunked})
	return s.Sessions.Serve(r.Context(), conn, d, head, streams)
}

// Resume goes on with a stream of an earlier process; it is a sessions.Resume. All containers must be known.
func (s *Server) Resume(ctx context.Context, d sessions.Description, at sessions.Cursor) (sessions.Streams, func(), error) {
	saved := savedStream{kind: d.Kind, Container: d.Container}
	if err := json.Unmarshal(d.Options, &saved); err != nil {
		return sessions.Streams{}, nil, fmt.Errorf("cannot read what was asked for: %w", err)
	}
	switch d.Kind {
	case kindAttach:
		return s.resumeAttach(ctx, saved, at)
	case kindExec:
		return s.resumeExec(ctx, saved, at)
	case kindLogs:
		return s.resumeLogs(ctx, saved, at)
	case kindWait:
		return s.resumeWait(ctx, saved, at)
	case kindEvents:
		return s.resumeEvents(ctx, saved, at)
	case kindStats:
		return s.resumeStats(saved, at)
	}
	return sessions.Streams{}, nil, fmt.Errorf("this version of lrd knows no stream of kind %q", d.Kind)
}
