//go:build integration

package integration

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"
	"gotest.tools/v3/assert"
)

// fluentdServer takes entries by the forward protocol, and confirms each. It serves one connection after the other, so that what a
// client has left in one that is over is taken before what the next client says.
type fluentdServer struct {
	net.Listener
	done chan struct{} // closed when the server's goroutine is over

	mu    sync.Mutex // guards what follows
	conn  net.Conn   // that is served
	ended bool
	seen  []map[string]any // the entries' records, in order
	err   error
}

func (l *lab) serveFluentd(socket string) *fluentdServer {
	l.t.Helper()
	listener, err := net.Listen("unix", l.path(socket))
	assert.NilError(l.t, err)
	s := &fluentdServer{Listener: listener, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conn = conn
			if s.ended {
				_ = conn.Close() // nothing was taken from it
			}
			s.mu.Unlock()
			s.serve(conn)
		}
	}()
	return s
}

// serve takes what comes through one connection. That it ends, be it between an entry and its confirmation, is what the test is about.
func (s *fluentdServer) serve(conn net.Conn) {
	defer conn.Close()
	for in := msgp.NewReader(conn); ; {
		v, err := in.ReadIntf()
		if err != nil {
			return
		}
		chunk, err := s.take(v)
		if err != nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			return
		}
		if _, err := conn.Write(msgp.AppendMapStrStr(nil, map[string]string{"ack": chunk})); err != nil {
			return
		}
	}
}

// take takes a message of the protocol's Message Mode: tag, time, record, options.
func (s *fluentdServer) take(v any) (chunk string, err error) {
	entry, _ := v.([]any)
	if len(entry) != 4 || entry[0] != "flu" {
		return "", fmt.Errorf("not an entry of this container: %v", v)
	}
	record, ok := entry[2].(map[string]any)
	options, _ := entry[3].(map[string]any)
	chunk, _ = options["chunk"].(string)
	if !ok || chunk == "" {
		return "", fmt.Errorf("an entry without a record, or that is not to be confirmed: %v", v)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, record)
	return chunk, nil
}

// end ends it, as it is, and tells what it has taken.
func (s *fluentdServer) end(t *testing.T) []map[string]any {
	t.Helper()
	assert.NilError(t, s.Close())
	s.mu.Lock()
	s.ended = true
	if s.conn != nil {
		_ = s.conn.Close() // it may have ended by itself
	}
	s.mu.Unlock()
	<-s.done
	assert.NilError(t, s.err)
	return s.seen
}

func (s *fluentdServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

// fluentdGoneAndBack: a container writes on while its fluentd server is away, and lrd is killed again and again: no line
// is lost, they come in order, and twice only the one that was not confirmed when one of the two went.
func (l *lab) fluentdGoneAndBack(t *testing.T) {
	const socket, present, lines = "/run/fluentd-test", 500, 800 // those that are written while the server is there, and all
	server := l.serveFluentd(socket)
	l.docker("run", "--detach", "--interactive", "--name", "flu", "--network", "none", "--log-driver", "fluentd",
		"--log-opt", "fluentd-address=unix://"+socket, "--log-opt", "tag={{.Name}}", "--log-opt", "labels=team", "--label", "team=core",
		"busybox", "sh", "-c", fmt.Sprintf(`i=0; while [ $i -lt %d ]; do i=$((i + 1)); echo line $i; [ $i -ne %d ] || read line; read -t 0.001 nothing; done; read line`, lines, present))
	interrupted := 0
	kill := func() {
		l.kill9()
		interrupted++
	}
	for range rounds(t, 3, 100) {
		before := server.count()
		l.eventually(time.Minute, "nothing arrives", func() bool { return server.count() > before || server.count() >= present })
		kill()
	}
	reached := func(line int) func() bool {
		return func() bool {
			return strings.HasSuffix(l.docker("logs", "--tail", "1", "flu"), fmt.Sprintf("line %d", line))
		}
	}
	l.eventually(time.Minute, "the container does not write", reached(present))
	seen := server.end(t)
	interrupted++
	attach := l.dockerCmd("attach", "flu")
	attach.Stdin = strings.NewReader("go on\n")
	assert.NilError(t, attach.Start())
	l.eventually(time.Minute, "the container is held up", reached(lines))
	kill()
	server = l.serveFluentd(socket)
	last := fmt.Sprintf("line %d", lines)
	l.eventually(time.Minute, "the rest does not arrive", func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		return len(server.seen) > 0 && server.seen[len(server.seen)-1]["log"] == last
	})
	n, doubled := 0, 0
	for _, record := range append(seen, server.end(t)...) {
		switch record["log"] {
		case fmt.Sprintf("line %d", n+1):
			n++
		case fmt.Sprintf("line %d", n):
			doubled++
		default:
			t.Fatalf("%v comes after line %d", record["log"], n)
		}
		assert.Equal(t, record["container_name"], "/flu")
		assert.Equal(t, record["source"], "stdout")
		assert.Equal(t, record["team"], "core")
	}
	assert.Equal(t, n, lines)
	// One each; some more if this server is too slow to confirm in time.
	assert.Assert(t, doubled <= 10*interrupted, "%d lines came twice in %d interruptions", doubled, interrupted)
	l.docker("rm", "--force", "flu")
	_ = attach.Wait()
}
