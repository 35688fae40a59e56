package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	eventtypes "github.com/moby/moby/api/types/events"

	"lrd/internal/output"
	"lrd/internal/sessions"
)

func parseWait(q *params) (container.WaitCondition, error) {
	cond := container.WaitCondition(q.text("condition"))
	switch cond {
	case "":
		cond = container.WaitConditionNotRunning
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		q.fail("invalid condition: %q", string(cond))
	}
	return cond, q.err
}

func (s *Server) containerWait(w http.ResponseWriter, r *request) error {
	cond, err := parseWait(r.query())
	if err != nil {
		return err
	}
	if !waitAnswersAtOnce(r.version) {
		return s.waitFirst(w, r, cond)
	}
	leave, err := s.Sessions.Admit()
	if err != nil {
		return err
	}
	defer leave()
	c, err := s.Containers.Inspect(r.Context(), r.vars["ref"], false)
	if err != nil {
		return err
	}
	saved := newSaved(r, kindWait)
	saved.of(c)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	result, err := s.Containers.Wait(ctx, c.ID, cond)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	// The client may start the container as soon as it has the head: the wait is registered.
	_, err = s.serveBody(w, r, saved, sessions.Streams{
		Output:   &waitSource{result: result},
		Farewell: waitBody(container.WaitResponse{StatusCode: -1, Error: &container.WaitExitError{Message: errLeaving.Error()}}),
	})
	return err
}

// waitFirst answers a client that takes the head for the answer.
func (s *Server) waitFirst(w http.ResponseWriter, r *request, cond container.WaitCondition) error {
	result, err := s.Containers.Wait(r.Context(), r.vars["ref"], cond)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	select {
	case resp, ok := <-result:
		if ok {
			return answerJSONBody(w, resp)
		}
	case <-r.Context().Done():
	}
	return context.Cause(r.Context())
}

func waitBody(r container.WaitResponse) []byte {
	b, _ := json.Marshal(r) // numbers and strings always can be
	return append(b, '\n')
}

// waitSource is the answer to a wait. Its cursor says whether it was given.
type waitSource struct {
	result <-chan container.WaitResponse
	given  bool
}

func (s *waitSource) Next(ctx context.Context) (output.Chunk, error) {
	if s.given {
		return output.Chunk{}, io.EOF
	}
	select {
	case resp, ok := <-s.result:
		if ok {
			s.given = true
			return output.Chunk{Data: waitBody(resp)}, nil
		}
		<-ctx.Done() // the channel is closed without an answer because this is done, or about to be
		return output.Chunk{}, context.Cause(ctx)
	case <-ctx.Done():
		return output.Chunk{}, context.Cause(ctx)
	}
}

func (s *waitSource) Cursor() sessions.Cursor {
	if s.given {
		return sessions.Cursor{1}
	}
	return sessions.Cursor{}
}

// resumeWait goes on with a wait of an earlier process. The containers are known and not looked at yet, so that
// an end during the downtime is still to be told; one that the earlier process has told, but not this client,
// shows in the time of the container's last end, or, where the container is gone with it, in the history of events.
func (s *Server) resumeWait(ctx context.Context, saved savedStream, at sessions.Cursor) (sessions.Streams, func(), error) {
	cond, err := parseWait(saved.query())
	if err != nil {
		return sessions.Streams{}, nil, err
	}
	source := &waitSource{given: at[0] != 0}
	c, err := s.Containers.Inspect(ctx, saved.Container, false)
	switch {
	case source.given:
	case errdefs.IsNotFound(err):
		source.result = answered(s.codeOfGone(ctx, saved.Container))
	case err != nil:
		return sessions.Streams{}, nil, err
	case cond == container.WaitConditionNextExit && c.State != nil && c.State.FinishedAt != saved.Finished:
		source.result = answered(c.State.ExitCode)
	default:
		if source.result, err = s.Containers.Wait(ctx, saved.Container, cond); err != nil {
			return sessions.Streams{}, nil, err
		}
	}
	return sessions.Streams{Output: source}, func() {}, nil
}

func answered(code int) <-chan container.WaitResponse {
	result := make(chan container.WaitResponse, 1)
	result <- container.WaitResponse{StatusCode: int64(code)}
	return result
}

// codeOfGone is the exit code of the last run of a container that was removed; 0 if it never ran, or nobody knows.
func (s *Server) codeOfGone(ctx context.Context, id string) (code int) {
	died := func(m eventtypes.Message) bool {
		return m.Type == eventtypes.ContainerEventType && m.Action == eventtypes.ActionDie && m.Actor.ID == id
	}
	sub := s.Events.Subscribe(time.Unix(0, 1), time.Now(), died)
	defer sub.Close()
	for {
		m, err := sub.Next(ctx)
		if err != nil {
			return code
		}
		if n, err := strconv.Atoi(m.Actor.Attributes["exitCode"]); err == nil {
			code = n
		}
	}
}
