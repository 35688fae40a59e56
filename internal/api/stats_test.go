package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"
)

// sampled makes samples that count, until it has made so many.
func sampled(end int) func(context.Context) (container.StatsResponse, error) {
	n := 0
	return func(context.Context) (container.StatsResponse, error) {
		if n == end {
			return container.StatsResponse{}, errdefs.ErrNotFound
		}
		n++
		stats := container.StatsResponse{Read: time.Now()}
		stats.CPUStats.CPUUsage.TotalUsage = uint64(n)
		stats.CPUStats.SystemUsage, stats.CPUStats.OnlineCPUs = uint64(100*n), 2
		return stats, nil
	}
}

func nextStats(t *testing.T, s *statsSource) container.StatsResponse {
	t.Helper()
	c, err := s.Next(t.Context())
	assert.NilError(t, err)
	var r container.StatsResponse
	assert.NilError(t, json.Unmarshal(c.Data, &r))
	return r
}

func TestStatsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &statsSource{stream: true, sample: sampled(3)}
		begin := time.Now()
		first := nextStats(t, s)
		assert.Assert(t, first.PreRead.IsZero() && first.PreCPUStats.CPUUsage.TotalUsage == 0)
		assert.Equal(t, time.Since(begin), time.Duration(0))
		over, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.Next(over)
		assert.Assert(t, errors.Is(err, context.Canceled))
		assert.Equal(t, nextStats(t, s).PreCPUStats.CPUUsage.TotalUsage, uint64(1))
		assert.Equal(t, time.Since(begin), statsPause)

		// Another process: what the first took is the sample before.
		other := (&Server{}).newStats("", statsQuery{stream: true}, s.Cursor())
		other.sample = s.sample
		third := nextStats(t, other)
		assert.Equal(t, time.Since(begin), 2*statsPause)
		assert.Equal(t, third.PreCPUStats.CPUUsage.TotalUsage, uint64(2))
		assert.Equal(t, third.PreCPUStats.SystemUsage, uint64(200))
		assert.Equal(t, third.PreCPUStats.OnlineCPUs, uint32(2))
		assert.Assert(t, third.PreRead.Equal(begin.Add(statsPause)))
		_, err = other.Next(t.Context())
		assert.Equal(t, err, io.EOF, "the container is gone")
	})
}

func TestStatsWithoutStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &statsSource{sample: sampled(9)}
		assert.Equal(t, nextStats(t, s).PreCPUStats.CPUUsage.TotalUsage, uint64(1))
		again := (&Server{}).newStats("", statsQuery{}, s.Cursor())
		for _, s := range []*statsSource{s, again} {
			_, err := s.Next(t.Context())
			assert.Equal(t, err, io.EOF)
		}
	})
}

func TestClientAsksForStats(t *testing.T) {
	c := newWorld(t).serve(t).client(t)
	run(t, c, "web", container.Config{Cmd: []string{"cat"}, OpenStdin: true}, nil)
	_, err := c.ContainerStats(t.Context(), "nosuch", client.ContainerStatsOptions{})
	assert.Assert(t, errdefs.IsNotFound(err), "%v", err)
	for _, o := range []client.ContainerStatsOptions{{}, {Stream: true}} {
		r, err := c.ContainerStats(t.Context(), "web", o)
		assert.NilError(t, err)
		var got container.StatsResponse
		assert.NilError(t, json.NewDecoder(r.Body).Decode(&got))
		assert.Equal(t, got.Name, "/web")
		assert.Assert(t, !got.Read.IsZero())
		assert.NilError(t, r.Body.Close())
	}
	_, err = c.ContainerCreate(t.Context(), client.ContainerCreateOptions{Name: "still", Config: &container.Config{Image: "busybox"}})
	assert.NilError(t, err)
	r, err := c.ContainerStats(t.Context(), "still", client.ContainerStatsOptions{IncludePreviousSample: true})
	assert.NilError(t, err)
	var got container.StatsResponse
	assert.NilError(t, json.NewDecoder(r.Body).Decode(&got))
	assert.Assert(t, got.Read.IsZero() && got.Name == "/still")
}
