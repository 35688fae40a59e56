package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// TestMetrics: all that the package's comment promises is there, in the form that Prometheus reads.
func TestMetrics(t *testing.T) {
	var failing error
	m := New(Sources{
		Containers:  func() map[string]int { return map[string]int{"running": 3, "exited": 1} },
		Descriptors: func(context.Context) (uint32, uint32, error) { return 7, 8192, failing },
		Sessions:    func() int { return 2 },
		Outputs: func() []Output {
			return []Output{{ID: "0123", Name: `we"b`, Driver: "json-file", Bytes: [2]int64{100, 5}, Dropped: [2]int64{1, 0}}}
		},
		Drained:   func() map[string]int64 { return map[string]int64{"json-file": 105} },
		Forwarded: func() map[string]int64 { return map[string]int64{"json-file": 90} },
	}, "1.2.3", slog.New(slog.DiscardHandler))
	m.Restored(4, 250*time.Millisecond)
	m.Reloaded(nil)
	m.Reloaded(errors.New("no"))
	m.Reloaded(nil)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	served := make(chan error, 1)
	go func() { served <- m.Serve(l) }()
	get := func(path string) (int, string) {
		resp, err := http.Get("http://" + l.Addr().String() + path)
		assert.NilError(t, err)
		defer resp.Body.Close() // it was only read
		body, err := io.ReadAll(resp.Body)
		assert.NilError(t, err)
		return resp.StatusCode, string(body)
	}
	code, text := get("/metrics")
	assert.Equal(t, code, http.StatusOK)
	for _, line := range []string{
		`lrd_info{version="1.2.3"} 1`,
		`lrd_containers{state="running"} 3`,
		`lrd_descriptors_stored 7`,
		`lrd_descriptors_max 8192`,
		`lrd_sessions 2`,
		`lrd_container_output_bytes_total{driver="json-file",id="0123",name="we\"b",stream="stdout"} 100`,
		`lrd_container_output_dropped_bytes_total{driver="json-file",id="0123",name="we\"b",stream="stderr"} 0`,
		`lrd_output_drained_bytes_total{driver="json-file"} 105`,
		`lrd_output_forwarded_bytes_total{driver="json-file"} 90`,
		`lrd_restore_duration_seconds 0.25`,
		`lrd_restore_containers 4`,
		`lrd_reloads_total{result="ok"} 2`,
		`lrd_reloads_total{result="failed"} 1`,
	} {
		assert.Check(t, is.Contains(text, "\n"+line+"\n"))
	}
	assert.Check(t, is.Contains(text, "\nprocess_open_fds "))
	assert.Check(t, is.Contains(text, "\ngo_goroutines "))

	failing = errors.New("systemd does not answer")
	code, text = get("/metrics")
	assert.Equal(t, code, http.StatusOK)
	assert.Check(t, !strings.Contains(text, "lrd_descriptors_stored 7"), "what is not known is left out")
	assert.Check(t, is.Contains(text, "\nlrd_sessions 2\n"))

	code, _ = get("/")
	assert.Equal(t, code, http.StatusNotFound)
	assert.NilError(t, m.Close())
	assert.NilError(t, <-served)
}
