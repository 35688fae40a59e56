package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/containers"
	"lrd/internal/output"
	"lrd/internal/sessions"
)

func (s *Server) execCreate(w http.ResponseWriter, r *request) error {
	var req container.ExecCreateRequest
	if err := r.decode(w, &req); err != nil {
		return err
	}
	if len(req.Cmd) == 0 {
		return invalid("no exec command specified")
	}
	if _, err := sessions.ParseDetachKeys(req.DetachKeys); err != nil {
		return invalid("%v", err)
	}
	id, err := s.Containers.ExecCreate(r.Context(), r.vars["ref"], req)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusCreated, container.ExecCreateResponse{ID: id})
}

func (s *Server) execStart(w http.ResponseWriter, r *request) error {
	var req container.ExecStartRequest
	if err := r.decode(w, &req); err != nil {
		return err
	}
	e, err := s.Containers.ExecInspect(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	o := containers.ExecStartOptions{Detach: req.Detach}
	if req.Tty {
		o.ConsoleSize = req.ConsoleSize
	}
	// Cancelling ends the hold on the command's streams; see containers.Attachment.
	ctx, release := context.WithCancel(r.Context())
	defer release()
	a, err := s.Containers.ExecStart(ctx, e.ID, o)
	var failed *containers.StartError
	switch {
	case errors.As(err, &failed) && !req.Detach:
		return sayExecFailed(w, r, e.ProcessConfig.Tty, failed)
	case err != nil:
		return err
	case req.Detach:
		w.WriteHeader(http.StatusOK)
		return nil
	}
	keys, err := sessions.ParseDetachKeys(string(e.DetachKeys))
	if err != nil {
		return err
	}
	conn, err := sessions.TakeOver(w, r.Request, streamType(r.version, a.TTY))
	if err != nil {
		return err
	}
	end, err := sessions.Run(r.Context(), conn, sessions.Streams{
		TTY: a.TTY, Output: a.Output, Stdout: e.OpenStdout, Stderr: e.OpenStderr, Stdin: a.Stdin, StdinOnce: a.StdinOnce,
		DetachKeys: keys, Done: a.Done, Release: release,
	})
	s.Log.Debug("client of an exec left", "exec", e.ID, "end", end.String(), "error", err)
	return nil
}

// sayExecFailed tells a client that waits for a stream, and learns the exit code afterwards, why there is none.
// As with Docker, it is the first and last that standard output shows.
func sayExecFailed(w http.ResponseWriter, r *request, tty bool, why error) error {
	conn, err := sessions.TakeOver(w, r.Request, streamType(r.version, tty))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := sessions.NewWriter(conn, !tty).WriteBytes(output.Stdout, []byte(why.Error()+"\r\n")); err != nil {
		return nil //nolint:nilerr // the client is gone
	}
	conn.Finish(r.Context())
	return nil
}

func (s *Server) execResize(w http.ResponseWriter, r *request) error {
	height, width, err := windowSize(r.query())
	if err != nil {
		return err
	}
	if err := s.Containers.ExecResize(r.Context(), r.vars["id"], height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) execInspect(w http.ResponseWriter, r *request) error {
	e, err := s.Containers.ExecInspect(r.Context(), r.vars["id"])
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, e)
}
