package api

import (
	"context"
	"net/http"
	"strconv"

	"lrd/internal/containers"
	"lrd/internal/output"
	"lrd/internal/sessions"
)

func parseAttach(q *params) (o containers.AttachOptions, keys []byte, err error) {
	o = containers.AttachOptions{
		Stdin: q.flag("stdin"), Stdout: q.flag("stdout"), Stderr: q.flag("stderr"),
		Stream: q.flag("stream"), Logs: q.flag("logs"),
	}
	keys, err = sessions.ParseDetachKeys(q.text("detachKeys"))
	if err != nil {
		q.fail("%v", err)
	}
	if !o.Stream {
		o.Stdin = false // nothing is followed, so there is nobody to type to
	}
	return o, keys, q.err
}

func (s *Server) containerAttach(w http.ResponseWriter, r *request) error {
	o, keys, err := parseAttach(r.query())
	if err != nil {
		return err
	}
	saved, leave, err := s.follow(r, kindAttach)
	if err != nil {
		return err
	}
	end := sessions.EndFailed
	defer func() { leave(end) }()
	// Cancelling ends a write to the container's input that waits for the container; see containers.Attachment.
	ctx, release := context.WithCancel(r.Context())
	defer release()
	a, err := s.Containers.Attach(ctx, saved.Container, o)
	if err != nil {
		return err
	}
	streams := attachStreams(a, o, keys)
	streams.Release = release
	conn, err := hijack(w)
	if err != nil {
		streams.Discard()
		return err
	}
	if o.Stream {
		saved.follows = streams.Follow(saved.Container, nil)
	}
	end, err = s.Sessions.Serve(r.Context(), conn, saved.description(sessions.Framing{Multiplexed: !a.TTY}),
		upgradeHead(r.Request, streamType(r.version, a.TTY)), streams)
	return err
}

func attachStreams(a *containers.Attachment, o containers.AttachOptions, keys []byte) sessions.Streams {
	return sessions.Streams{
		TTY: a.TTY, Output: placed(a.Output), Stdout: o.Stdout, Stderr: o.Stderr, Stdin: a.Stdin, StdinOnce: a.StdinOnce,
		DetachKeys: keys, Done: a.Done,
	}
}

// placed is what a client reads, with a place that can be saved where there is one.
func placed(r containers.OutputReader) sessions.Source {
	switch r := r.(type) {
	case nil:
		return nil
	case *output.Reader:
		return sessions.FromReader(r)
	case *output.Lines:
		return sessions.FromLines(r)
	}
	return r
}

// resumeAttach goes on with an attached client of an earlier process.
func (s *Server) resumeAttach(ctx context.Context, saved savedStream, at sessions.Cursor) (sessions.Streams, func(), error) {
	o, keys, err := parseAttach(saved.query())
	if err != nil {
		return sessions.Streams{}, nil, err
	}
	from := at.ReaderPosition()
	o.From = &from
	done, err := s.Containers.Reading(saved.Container, true)
	if err != nil {
		return sessions.Streams{}, nil, err
	}
	a, err := s.Containers.Attach(ctx, saved.Container, o)
	if err != nil {
		done()
		return sessions.Streams{}, nil, err
	}
	streams := attachStreams(a, o, keys)
	if now, err := s.Containers.Inspect(ctx, saved.Container, false); err == nil && now.State.FinishedAt != saved.Finished {
		// The run that was attached to has ended, and been told so, before. With output, its end is in there.
		over := make(chan struct{})
		close(over)
		streams.Done = over
	}
	return streams, done, nil
}

func parseLogs(q *params) (containers.LogsOptions, error) {
	o := containers.LogsOptions{Details: q.flag("details"), LinesOptions: output.LinesOptions{
		Stdout: q.flag("stdout"), Stderr: q.flag("stderr"),
		Follow: q.flag("follow"), Timestamps: q.flag("timestamps"),
		Since: q.moment("since"), Until: q.moment("until"), Tail: q.tail("tail"), Batch: true,
	}}
	if q.err == nil && !o.Stdout && !o.Stderr {
		q.fail("Bad parameters: you must choose at least one stream")
	}
	return o, q.err
}

func (s *Server) containerLogs(w http.ResponseWriter, r *request) error {
	o, err := parseLogs(r.query())
	if err != nil {
		return err
	}
	saved, leave, err := s.follow(r, kindLogs)
	if err != nil {
		return err
	}
	end := sessions.EndFailed
	defer func() { leave(end) }()
	lines, tty, err := s.Containers.Logs(r.Context(), saved.Container, o)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", streamType(r.version, tty))
	saved.multiplexed = !tty
	streams := sessions.Streams{Output: placed(lines), Stdout: o.Stdout, Stderr: o.Stderr}
	if !o.Details { // which only lrd knows
		saved.follows = streams.Follow(saved.Container, &o.LinesOptions)
	}
	end, err = s.serveBody(w, r, saved, streams)
	return err
}

// resumeLogs goes on with a client of an earlier process.
func (s *Server) resumeLogs(ctx context.Context, saved savedStream, at sessions.Cursor) (sessions.Streams, func(), error) {
	o, err := parseLogs(saved.query())
	if err != nil {
		return sessions.Streams{}, nil, err
	}
	o.From = at.LinesPosition()
	done, err := s.Containers.Reading(saved.Container, false)
	if err != nil {
		return sessions.Streams{}, nil, err
	}
	lines, _, err := s.Containers.Logs(ctx, saved.Container, o)
	if err != nil {
		done()
		return sessions.Streams{}, nil, err
	}
	return sessions.Streams{Output: placed(lines), Stdout: o.Stdout, Stderr: o.Stderr}, done, nil
}

// tail reads how many lines; all is -1.
func (p *params) tail(name string) int {
	s := p.values.Get(name)
	if s == "" || s == "all" {
		return -1
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		p.fail("invalid value for %s: %q is neither a number nor all", name, s)
	}
	return max(n, -1)
}
