package api

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/containers"
	"lrd/internal/output"
)

// realLogs serves the lines of a real store of output.
type realLogs struct {
	*fakeContainers
	log *output.Log
}

func (l realLogs) Logs(_ context.Context, _ string, o containers.LogsOptions) (containers.OutputReader, bool, error) {
	lines, err := l.log.Lines(o.LinesOptions)
	return lines, true, err
}

// Inspect knows every container.
func (l realLogs) Inspect(context.Context, string, bool) (container.InspectResponse, error) {
	return container.InspectResponse{ID: "c"}, nil
}

func (l realLogs) Reading(string, bool) (func(), error) { return func() {}, nil }

// TestFollowedLinesArriveAtOnce: what a session asks of a reader with an expired context holds for the real one.
func TestFollowedLinesArriveAtOnce(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "stdout")
	assert.NilError(t, unix.Mkfifo(fifo, 0o600))
	src, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	assert.NilError(t, err)
	stdout, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	assert.NilError(t, err)
	defer stdout.Close()
	log, err := output.Open(filepath.Join(dir, "output"), output.Options{})
	assert.NilError(t, err)
	defer log.Close()
	assert.NilError(t, log.BeginRun())
	assert.NilError(t, log.Drain(output.Stdout, src, output.FIFO))

	w := newWorld(t)
	w.Containers = realLogs{w.containers, log}
	w.serve(t)
	_, err = io.WriteString(stdout, "one\ntwo\nthr")
	assert.NilError(t, err)
	resp, err := w.http.Get("http://lrd/containers/c/logs?stdout=1&follow=1&until=4000000000")
	assert.NilError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, resp.StatusCode, http.StatusOK)
	lines := bufio.NewReader(resp.Body)
	for _, want := range []string{"one\n", "two\n", "three\n", "four\n"} {
		got, err := lines.ReadString('\n')
		assert.NilError(t, err)
		assert.Equal(t, got, want)
		if want == "two\n" {
			_, err := io.WriteString(stdout, "ee\nfour\n")
			assert.NilError(t, err)
		}
	}
	assert.NilError(t, log.EndRun(t.Context()))
	_, err = lines.ReadByte()
	assert.Equal(t, err, io.EOF)
}
