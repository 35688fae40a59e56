package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"lrd/internal/containers"
	"lrd/internal/output"
	"lrd/internal/sessions"
)

func (s *Server) containerAttach(w http.ResponseWriter, r *request) error {
	q := r.query()
	o := containers.AttachOptions{
		Stdin: q.flag("stdin"), Stdout: q.flag("stdout"), Stderr: q.flag("stderr"),
		Stream: q.flag("stream"), Logs: q.flag("logs"),
	}
	keys, err := sessions.ParseDetachKeys(q.text("detachKeys"))
	if err != nil {
		q.fail("%v", err)
	}
	if q.err != nil {
		return q.err
	}
	if !o.Stream {
		o.Stdin = false // nothing is followed, so there is nobody to type to
	}
	// Cancelling ends a write to the container's input that waits for the container; see containers.Attachment.
	ctx, release := context.WithCancel(r.Context())
	defer release()
	a, err := s.Containers.Attach(ctx, r.vars["ref"], o)
	if err != nil {
		return err
	}
	conn, err := sessions.TakeOver(w, r.Request, streamType(r.version, a.TTY))
	if err != nil {
		return err
	}
	streams := sessions.Streams{
		TTY: a.TTY, Stdout: o.Stdout, Stderr: o.Stderr, Stdin: a.Stdin, StdinOnce: a.StdinOnce,
		DetachKeys: keys, Done: a.Done, Release: release,
	}
	if a.Output != nil {
		streams.Output = a.Output
	}
	end, err := sessions.Run(r.Context(), conn, streams)
	s.Log.Debug("attached client left", "container", r.vars["ref"], "end", end.String(), "error", err)
	return nil
}

func (s *Server) containerLogs(w http.ResponseWriter, r *request) error {
	q := r.query()
	o := output.LinesOptions{
		Stdout: q.flag("stdout"), Stderr: q.flag("stderr"),
		Follow: q.flag("follow"), Timestamps: q.flag("timestamps"),
		Since: q.moment("since"), Until: q.moment("until"), Tail: q.tail("tail"),
	}
	q.flag("details") // known, and empty: lrd gives lines no extra attributes
	if q.err != nil {
		return q.err
	}
	if !o.Stdout && !o.Stderr {
		return invalid("Bad parameters: you must choose at least one stream")
	}
	lines, tty, err := s.Containers.Logs(r.Context(), r.vars["ref"], o)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", streamType(r.version, tty))
	w.WriteHeader(http.StatusOK)
	return copyLines(r.Context(), w, lines, sessions.NewWriter(w, !tty))
}

// copyLines sends lines until they end. It flushes when the next would have to be waited for, so that a burst
// goes out in large pieces and the last line of it at once.
func copyLines(ctx context.Context, w http.ResponseWriter, lines containers.OutputReader, to *sessions.Writer) error {
	flush := http.NewResponseController(w).Flush
	for {
		c, err := lines.Next(expired)
		if errors.Is(err, context.Canceled) {
			if err := flush(); err != nil {
				return err
			}
			c, err = lines.Next(ctx)
		}
		switch {
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return nil //nolint:nilerr // a client that leaves is no error
		case err != nil:
			return err
		}
		if err := to.Write(c); err != nil {
			return err
		}
	}
}

// expired is a context that is done: a Next with it returns what is there, and does not wait.
var expired = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

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
