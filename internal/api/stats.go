package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"lrd/internal/output"
	"lrd/internal/sessions"
)

// statsPause lies between two samples, as with Docker.
const statsPause = time.Second

// statsQuery is what a client of /containers/{ref}/stats asks for.
type statsQuery struct {
	stream bool
	// oneShot is for a client that computes no shares: it waits for no second sample.
	oneShot bool
}

func parseStats(q *params) (statsQuery, error) {
	s := statsQuery{stream: q.flagOr("stream", true), oneShot: q.flag("one-shot")}
	if q.err == nil && s.stream && s.oneShot {
		q.fail("cannot have stream=true and one-shot=true")
	}
	return s, q.err
}

func (s *Server) containerStats(w http.ResponseWriter, r *request) error {
	o, err := parseStats(r.query())
	if err != nil {
		return err
	}
	now, err := s.Containers.Stats(r.Context(), r.vars["ref"])
	if err != nil {
		return err
	}
	if o.oneShot || !o.stream && now.Read.IsZero() {
		return answerJSON(w, http.StatusOK, now)
	}
	leave, err := s.Sessions.Admit()
	if err != nil {
		return err
	}
	defer leave()
	saved := newSaved(r, kindStats)
	saved.Container = now.ID
	w.Header().Set("Content-Type", "application/json")
	_, err = s.serveBody(w, r, saved, sessions.Streams{Output: s.newStats(saved.Container, o, sessions.Cursor{}), Whole: true})
	return err
}

// resumeStats goes on with a client of an earlier process. A container that was removed meanwhile ends the stream.
func (s *Server) resumeStats(saved savedStream, at sessions.Cursor) (sessions.Streams, func(), error) {
	o, err := parseStats(saved.query())
	if err != nil {
		return sessions.Streams{}, nil, err
	}
	return sessions.Streams{Output: s.newStats(saved.Container, o, at), Whole: true}, func() {}, nil
}

// statsSource makes samples. Its cursor is the sample before, from which the next is computed, or another process's.
type statsSource struct {
	sample func(context.Context) (container.StatsResponse, error)
	stream bool
	// taken is when the sample before was taken, zero for none; previous is what counts of it.
	taken    time.Time
	previous container.CPUStats
	given    bool // without stream: the one sample was given
}

// Fields of a cursor of statistics.
const (
	statsTaken = iota // nanoseconds since 1970
	statsTotal
	statsUser
	statsKernel
	statsSystem
	statsFlags // the number of processors, and statsGiven
)

const statsGiven = 1 << 32

func (s *Server) newStats(id string, o statsQuery, at sessions.Cursor) *statsSource {
	source := &statsSource{
		stream: o.stream, given: at[statsFlags]&statsGiven != 0,
		sample: func(ctx context.Context) (container.StatsResponse, error) { return s.Containers.Stats(ctx, id) },
	}
	if at[statsTaken] != 0 {
		source.taken = time.Unix(0, at[statsTaken]).UTC()
		source.previous = container.CPUStats{
			CPUUsage: container.CPUUsage{
				TotalUsage: uint64(at[statsTotal]), UsageInUsermode: uint64(at[statsUser]), UsageInKernelmode: uint64(at[statsKernel]),
			},
			SystemUsage: uint64(at[statsSystem]),
			OnlineCPUs:  uint32(at[statsFlags]),
		}
	}
	return source
}

// Next returns a sample: the first at once, each further one a pause after the one before. Without stream there is
// one answer, the second sample, so that shares can be computed from it.
func (s *statsSource) Next(ctx context.Context) (output.Chunk, error) {
	for {
		if s.given {
			return output.Chunk{}, io.EOF
		}
		if err := s.pause(ctx); err != nil {
			return output.Chunk{}, err
		}
		now, err := s.sample(ctx)
		if errdefs.IsNotFound(err) {
			return output.Chunk{}, io.EOF // it was removed
		}
		if err != nil {
			return output.Chunk{}, err
		}
		first := s.taken.IsZero()
		if !first && !now.Read.IsZero() {
			now.PreRead, now.PreCPUStats = s.taken, s.previous
		}
		s.taken, s.previous = now.Read, now.CPUStats
		if s.taken.IsZero() { // it does not run
			s.taken = time.Now().UTC()
		}
		if first && !s.stream {
			continue
		}
		s.given = !s.stream
		line, err := json.Marshal(now)
		return output.Chunk{Data: append(line, '\n')}, err
	}
}

// pause waits until it is time for the next sample.
func (s *statsSource) pause(ctx context.Context) error {
	if s.taken.IsZero() {
		return nil
	}
	// A clock that was set back must not keep the client waiting.
	wait := min(time.Until(s.taken.Add(statsPause)), statsPause)
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Cursor is the sample before.
func (s *statsSource) Cursor() sessions.Cursor {
	if s.taken.IsZero() {
		return sessions.Cursor{}
	}
	p := s.previous
	c := sessions.Cursor{
		statsTaken: s.taken.UnixNano(),
		statsTotal: int64(p.CPUUsage.TotalUsage), statsUser: int64(p.CPUUsage.UsageInUsermode), statsKernel: int64(p.CPUUsage.UsageInKernelmode),
		statsSystem: int64(p.SystemUsage), statsFlags: int64(p.OnlineCPUs),
	}
	if s.given {
		c[statsFlags] |= statsGiven
	}
	return c
}
