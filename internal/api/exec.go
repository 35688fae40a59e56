package api

import (
	"context"
	"net/http"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/containers"
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
	if !req.Detach {
		return s.execAttached(w, r, e, o)
	}
	if _, err := s.Containers.ExecStart(r.Context(), e.ID, o); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// execAttached starts a command whose streams the client gets: a session. The command begins when the client's connection
// outlives lrd, and if it cannot be run, its output says why, as with Docker.
func (s *Server) execAttached(w http.ResponseWriter, r *request, e container.ExecInspectResponse, o containers.ExecStartOptions) error {
	keys, err := sessions.ParseDetachKeys(string(e.DetachKeys))
	if err != nil {
		return err
	}
	leave, err := s.Sessions.Admit()
	if err != nil {
		return err
	}
	defer leave()
	// A container that removes itself at its end waits a while for the client to read all.
	read, err := s.Containers.Reading(e.ContainerID, false)
	if err != nil {
		return err
	}
	// Cancelling ends the hold on the command's streams; see containers.Attachment.
	ctx, release := context.WithCancel(r.Context())
	defer release()
	end := sessions.EndFailed
	var a *containers.Attachment
	defer func() {
		if end != sessions.EndFrozen {
			execOver(a, read)
		}
	}()
	a, err = s.Containers.ExecStart(ctx, e.ID, o)
	if err != nil {
		return err
	}
	streams := execStreams(e, a, keys)
	streams.Release, streams.Begin = release, a.Begin
	conn, err := hijack(w)
	if err != nil {
		streams.Discard()
		return err
	}
	saved := newSaved(r, kindExec)
	saved.Container, saved.Exec = e.ContainerID, e.ID
	saved.follows = streams.Follow(e.ID, nil)
	end, err = s.Sessions.Serve(r.Context(), conn, saved.description(sessions.Framing{Multiplexed: !a.TTY}),
		upgradeHead(r.Request, streamType(r.version, a.TTY)), streams)
	return err
}

// execOver lets go of what was kept for a client, which may not have come to an Attachment.
func execOver(a *containers.Attachment, read func()) {
	if a != nil && a.Over != nil {
		a.Over()
	}
	read()
}

func execStreams(e container.ExecInspectResponse, a *containers.Attachment, keys []byte) sessions.Streams {
	return sessions.Streams{
		TTY: a.TTY, Output: placed(a.Output), Stdout: e.OpenStdout, Stderr: e.OpenStderr, Stdin: a.Stdin, StdinOnce: a.StdinOnce,
		DetachKeys: keys, Done: a.Done,
	}
}

// resumeExec goes on with the client of a command that an earlier process has started.
func (s *Server) resumeExec(ctx context.Context, saved savedStream, at sessions.Cursor) (sessions.Streams, func(), error) {
	e, err := s.Containers.ExecInspect(ctx, saved.Exec)
	if err != nil {
		return sessions.Streams{}, nil, err
	}
	keys, err := sessions.ParseDetachKeys(string(e.DetachKeys))
	if err != nil {
		return sessions.Streams{}, nil, err
	}
	read, err := s.Containers.Reading(e.ContainerID, false)
	if err != nil {
		return sessions.Streams{}, nil, err
	}
	a, err := s.Containers.ExecAttach(ctx, e.ID, at.ReaderPosition())
	if err != nil {
		read()
		return sessions.Streams{}, nil, err
	}
	return execStreams(e, a, keys), func() { execOver(a, read) }, nil
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
