package containers

import (
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/config"
	"lrd/internal/output"
)

func withLog(driver string, opts map[string]string) func(*CreateRequest) {
	return func(r *CreateRequest) { r.HostConfig.LogConfig = container.LogConfig{Type: driver, Config: opts} }
}

// printed has a container write, and waits until its json-file has it.
func (w *world) printed(id, text string) (file string) {
	w.t.Helper()
	assert.NilError(w.t, w.units.print(id, text))
	return w.fileOf(id, strings.TrimSpace(text))
}

// TestLogDriver: a log driver gets what a container writes, over restarts of the daemon, and a new name at the next start.
func TestLogDriver(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started(withName("web"), withLog("json-file", map[string]string{"tag": "{{.Name}}"}))
	w.printed(id, "one\n")
	assert.NilError(t, w.m.Rename(t.Context(), id, "shop"))
	w.restart(func() { assert.NilError(t, w.units.print(id, "two\n")) })
	w.printed(id, "three\n")
	w.units.exit(id, 0)
	w.becomes(id, container.StateExited)
	assert.NilError(t, w.m.Start(t.Context(), id))
	file := w.printed(id, "four\n")
	for _, text := range []string{"one", "two", "three", "four"} {
		assert.Equal(t, strings.Count(file, `{"log":"`+text+`\n"`), 1, file)
	}
	assert.Check(t, is.Contains(file, `{"log":"one\n","stream":"stdout","attrs":{"tag":"web"}`))
	assert.Check(t, is.Contains(file, `{"log":"four\n","stream":"stdout","attrs":{"tag":"shop"}`))

	lines, _, err := w.m.Logs(t.Context(), id, LogsOptions{LinesOptions: output.LinesOptions{Stdout: true, Tail: 1}, Details: true})
	assert.NilError(t, err)
	line, err := lines.Next(t.Context())
	assert.NilError(t, err)
	assert.Check(t, strings.HasSuffix(string(line.Data), "tag=shop four\n"), "%q", line.Data)

	// What was taken from it is counted also when it is gone.
	assert.Check(t, is.Equal(w.m.Drained()["json-file"], int64(len("two\nthree\nfour\n"))))
	outputs := w.m.Outputs()
	assert.Check(t, is.Len(outputs, 1))
	assert.Check(t, is.Equal(outputs[0].Streams[0].Bytes, int64(len("one\ntwo\nthree\nfour\n"))))
	assert.Check(t, is.Equal(w.m.States()[container.StateRunning], 1))
	assert.NilError(t, w.m.Remove(t.Context(), id, RemoveOptions{Force: true}))
	assert.Check(t, is.Equal(w.m.Drained()["json-file"], int64(len("two\nthree\nfour\n"))))
	w.leftNothing(id)
}

// TestLogDriverCatchesUp: a container that ended while its log was not forwarded yet is not forgotten.
func TestLogDriverCatchesUp(t *testing.T) {
	w := newWorld(t, 257)
	id := w.started(withLog("json-file", nil))
	file := w.printed(id, "one\n")
	w.restart(func() {
		assert.NilError(t, w.units.print(id, "the last\n"))
		w.units.exit(id, 0)
	})
	w.becomes(id, container.StateExited)
	assert.Check(t, is.Contains(w.fileOf(id, "the last"), file))
	// And when everything is delivered, the next daemon has nothing to do, and leaves it alone.
	eventually(t, "it is done", func() bool {
		w.restart(nil)
		return w.container(id).streams.opened() == nil
	})
}

// fileOf waits until the container's json-file has a text.
func (w *world) fileOf(id, text string) (file string) {
	w.t.Helper()
	got, err := w.m.Inspect(w.t.Context(), id, false)
	assert.NilError(w.t, err)
	eventually(w.t, "the log file has "+text, func() bool {
		data, err := os.ReadFile(got.LogPath)
		file = string(data)
		return err == nil && strings.Contains(file, text)
	})
	return file
}

func TestLogDriverNone(t *testing.T) {
	w := newWorld(t, 257)
	id := w.create(withLog("none", nil))
	_, _, err := w.m.Logs(t.Context(), id, LogsOptions{LinesOptions: output.LinesOptions{Stdout: true, Tail: -1}})
	assert.Check(t, errdefs.IsNotImplemented(err))
	assert.Check(t, is.ErrorContains(err, "configured logging driver does not support reading"))
	got, err := w.m.Inspect(t.Context(), id, false)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(got.LogPath, ""))
}

// TestLogDefaults: the daemon's options are for its driver, and a container's own come first.
func TestLogDefaults(t *testing.T) {
	cfg := config.Default()
	cfg.LogDriver, cfg.LogOpts = "json-file", map[string]string{"max-size": "1m", "max-file": "3"}
	for _, c := range []struct{ in, want container.LogConfig }{
		{container.LogConfig{}, container.LogConfig{Type: "json-file", Config: cfg.LogOpts}},
		{
			container.LogConfig{Config: map[string]string{"max-file": "5"}},
			container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m", "max-file": "5"}},
		},
		{container.LogConfig{Type: "journald"}, container.LogConfig{Type: "journald"}},
	} {
		assert.Check(t, is.DeepEqual(mergeLog(c.in, cfg), c.want))
	}
}
