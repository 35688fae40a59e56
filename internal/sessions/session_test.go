package sessions

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"go.uber.org/goleak"
	"gotest.tools/v3/assert"

	"lrd/internal/output"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// container is the container's side in memory: what it wrote, and what it read.
type container struct {
	chunks chan output.Chunk // closed when the run ends
	done   chan struct{}

	mu     sync.Mutex
	read   bytes.Buffer
	closed bool
	full   chan struct{} // not nil: Write waits for it or for released
	gone   chan struct{}
}

func newContainer() *container {
	return &container{chunks: make(chan output.Chunk, 100), done: make(chan struct{}), gone: make(chan struct{})}
}

func (c *container) says(s output.Stream, text string) {
	c.chunks <- output.Chunk{Stream: s, Data: []byte(text)}
}

func (c *container) exits() { close(c.chunks); close(c.done) }

func (c *container) Next(ctx context.Context) (output.Chunk, error) {
	select {
	case chunk, ok := <-c.chunks:
		if !ok {
			return chunk, io.EOF
		}
		return chunk, nil
	case <-ctx.Done():
		return output.Chunk{}, ctx.Err()
	}
}

func (c *container) Write(p []byte) (int, error) {
	if c.full != nil {
		select {
		case <-c.full:
		case <-c.gone:
			return 0, errors.New("released")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read.Write(p)
}

func (c *container) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *container) input() (text string, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read.String(), c.closed
}

// session runs one over a real unix socket, because what half-closed means is the kernel's business.
type session struct {
	t      *testing.T
	client *net.UnixConn
	stop   context.CancelFunc
	result chan End
}

func begin(t *testing.T, s Streams) *session {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	assert.NilError(t, err)
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	assert.NilError(t, err)
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	assert.NilError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	sess := &session{t: t, client: client.(*net.UnixConn), stop: stop, result: make(chan End, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := newConn(server)
		if err != nil {
			t.Error(err)
		}
		end, err := newRun(conn, s, Framing{Multiplexed: !s.TTY}, &state{}).serve(ctx, func() bool { return false })
		if end != EndFailed && err != nil {
			t.Errorf("%v with error %v", end, err)
		}
		sess.result <- end
	}()
	t.Cleanup(func() { stop(); <-done })
	return sess
}

func (s *session) ended(want End) {
	s.t.Helper()
	select {
	case got := <-s.result:
		assert.Equal(s.t, got, want)
	case <-time.After(time.Minute):
		s.t.Fatal("the session does not end")
	}
}

func (s *session) types(text string) {
	s.t.Helper()
	_, err := io.WriteString(s.client, text)
	assert.NilError(s.t, err)
}

// output reads both streams to their ends.
func (s *session) output() (stdout, stderr string) {
	s.t.Helper()
	var both [2]bytes.Buffer
	_, err := stdcopy.StdCopy(&both[0], &both[1], s.client)
	assert.NilError(s.t, err)
	return both[0].String(), both[1].String()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never happened: " + what)
		}
	}
}

func all(c *container) Streams {
	return Streams{
		Output: c, Stdout: true, Stderr: true, Stdin: c, StdinOnce: true, Done: c.done,
		Release: sync.OnceFunc(func() { close(c.gone) }),
	}
}

func TestMultiplexedOutputEndsWithTheRun(t *testing.T) {
	c := newContainer()
	s := begin(t, all(c))
	c.says(output.Stdout, "one\n")
	c.says(output.Stderr, "two\n")
	c.says(output.Stdout, "")
	c.says(output.Stdout, "\xff\x00three")
	c.exits()
	stdout, stderr := s.output()
	s.client.Close()
	s.ended(EndExited)
	assert.Equal(t, stdout, "one\n\xff\x00three")
	assert.Equal(t, stderr, "two\n")
}

func TestOnlyTheStreamsAskedForAreSent(t *testing.T) {
	c := newContainer()
	streams := all(c)
	streams.Stdout = false
	s := begin(t, streams)
	c.says(output.Stdout, "no")
	c.says(output.Stderr, "yes")
	c.exits()
	stdout, stderr := s.output()
	assert.Equal(t, stdout+"/"+stderr, "/yes")
}

func TestHalfCloseReachesTheContainerAndOutputGoesOn(t *testing.T) {
	c := newContainer()
	s := begin(t, all(c))
	s.types("input")
	assert.NilError(t, s.client.CloseWrite())
	eventually(t, "end of file", func() bool { _, closed := c.input(); return closed })
	text, _ := c.input()
	assert.Equal(t, text, "input")
	c.says(output.Stdout, "later")
	c.exits()
	stdout, _ := s.output()
	assert.Equal(t, stdout, "later")
	s.ended(EndExited)
}

func TestHalfCloseOfAClientWithoutInputMeansNothing(t *testing.T) {
	c := newContainer()
	streams := all(c)
	streams.Stdin = nil
	s := begin(t, streams)
	assert.NilError(t, s.client.CloseWrite())
	time.Sleep(20 * time.Millisecond)
	c.says(output.Stdout, "still here")
	c.exits()
	stdout, _ := s.output()
	assert.Equal(t, stdout, "still here")
}

func TestHalfCloseWithoutStdinOnceDetaches(t *testing.T) {
	c := newContainer()
	streams := all(c)
	streams.StdinOnce = false
	s := begin(t, streams)
	s.types("x")
	assert.NilError(t, s.client.CloseWrite())
	s.ended(EndDetached)
	text, closed := c.input()
	assert.Equal(t, text, "x")
	assert.Assert(t, !closed)
}

func TestClientGoneIsSeenWithoutAnyOutput(t *testing.T) {
	for name, stdin := range map[string]bool{"with input": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			c := newContainer()
			streams := all(c)
			if !stdin {
				streams.Stdin = nil
			}
			s := begin(t, streams)
			assert.NilError(t, s.client.CloseWrite()) // as the docker client does at once when it has no input
			time.Sleep(10 * time.Millisecond)
			s.client.Close()
			s.ended(EndGone)
			_, closed := c.input()
			assert.Equal(t, closed, stdin)
		})
	}
}

func TestClientGoneWithATTYLeavesTheInputOpen(t *testing.T) {
	c := newContainer()
	streams := all(c)
	streams.TTY = true
	s := begin(t, streams)
	s.client.Close()
	select {
	case <-s.result: // detached or gone: the same for the container
	case <-time.After(time.Minute):
		t.Fatal("the session does not end")
	}
	_, closed := c.input()
	assert.Assert(t, !closed)
}

func TestDetachKeysEndTheSessionNotTheContainer(t *testing.T) {
	c := newContainer()
	streams := all(c)
	streams.TTY, streams.DetachKeys = true, DefaultDetachKeys
	s := begin(t, streams)
	c.says(output.Stdout, "$ ")
	prompt := make([]byte, 2)
	_, err := io.ReadFull(s.client, prompt)
	assert.NilError(t, err)
	assert.Equal(t, string(prompt), "$ ")
	s.types("ls\x10")
	s.types("\x11rm")
	got, err := io.ReadAll(s.client)
	assert.NilError(t, err)
	s.client.Close()
	s.ended(EndDetached)
	assert.Equal(t, string(got), "")
	text, closed := c.input()
	assert.Equal(t, text, "ls")
	assert.Assert(t, !closed)
}

func TestDetachKeysAreDataWithoutATTY(t *testing.T) {
	c := newContainer()
	streams := all(c)
	streams.DetachKeys = DefaultDetachKeys
	s := begin(t, streams)
	s.types("a\x10\x11b")
	assert.NilError(t, s.client.CloseWrite())
	eventually(t, "end of file", func() bool { _, closed := c.input(); return closed })
	text, _ := c.input()
	assert.Equal(t, text, "a\x10\x11b")
}

func TestStopEndsAtOnceAndTouchesNothing(t *testing.T) {
	c := newContainer()
	s := begin(t, all(c))
	c.says(output.Stdout, "x")
	buf := make([]byte, 9)
	_, err := io.ReadFull(s.client, buf)
	assert.NilError(t, err)
	s.stop()
	s.ended(EndStopped)
	_, closed := c.input()
	assert.Assert(t, !closed, "the container's input was closed by a daemon that leaves")
}

func TestContainerThatDoesNotReadHoldsNothingUp(t *testing.T) {
	c := newContainer()
	c.full = make(chan struct{})
	s := begin(t, all(c))
	s.types("nobody reads this")
	time.Sleep(10 * time.Millisecond)
	c.exits()
	_, err := io.ReadAll(s.client)
	assert.NilError(t, err)
	s.client.Close()
	s.ended(EndExited)
}

func TestUnreadInputDoesNotCostTheClientItsOutput(t *testing.T) {
	c := newContainer()
	c.full = make(chan struct{})
	s := begin(t, all(c))
	// More than the session reads before it waits for the container.
	assert.NilError(t, s.client.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
	_, _ = s.client.Write(make([]byte, 1<<20))
	c.says(output.Stdout, "last words")
	c.exits()
	stdout, _ := s.output()
	assert.Equal(t, stdout, "last words")
	s.client.Close()
	s.ended(EndExited)
}

func TestInputOnlySessionEndsWithTheRun(t *testing.T) {
	c := newContainer()
	streams := all(c)
	streams.Output = nil
	s := begin(t, streams)
	s.types("x")
	eventually(t, "input", func() bool { text, _ := c.input(); return text == "x" })
	c.exits()
	_, err := io.ReadAll(s.client)
	assert.NilError(t, err)
	s.client.Close()
	s.ended(EndExited)
}

type broken struct{}

func (broken) Next(context.Context) (output.Chunk, error) {
	return output.Chunk{}, errors.New("disk on fire")
}

func TestUnreadableOutputIsAnError(t *testing.T) {
	s := begin(t, Streams{Output: broken{}, Stdout: true})
	_, err := io.ReadAll(s.client)
	assert.NilError(t, err)
	s.client.Close()
	s.ended(EndFailed)
}

func TestParseDetachKeys(t *testing.T) {
	for in, want := range map[string]string{
		"": "\x10\x11", "ctrl-p,ctrl-q": "\x10\x11", "a": "a", "ctrl-a,a": "\x01a", "ctrl-p,DEL": "\x10\x7f", "ctrl-@": "\x00", "ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_": "\x1b\x1c\x1d\x1e\x1f",
	} {
		got, err := ParseDetachKeys(in)
		assert.NilError(t, err, in)
		assert.Equal(t, string(got), want, in)
	}
	for _, in := range []string{",", "ctrl-", "ctrl-A", "ctrl-aa", "shift-a", "ab", "a,,b"} {
		_, err := ParseDetachKeys(in)
		assert.ErrorContains(t, err, "invalid detach keys ("+in+")")
	}
	_, err := ParseDetachKeys(strings.Repeat("a,", maxDetachKeys) + "a")
	assert.ErrorContains(t, err, "they are 65, and 64 at most")
}

func TestDetectorFindsKeysAcrossAnyBoundaries(t *testing.T) {
	for _, tc := range []struct{ keys, in, want string }{
		{"pq", "abpqxx", "ab|"},
		{"pq", "ppq", "p|"},
		{"aab", "aaab", "a|"},
		{"pq", "pxpyp", "pxpyp"},
		{"aa", "a", "a"},
		{"", "pq", "pq"},
		{"abac", "ababac", "ab|"},
	} {
		for cut := 0; cut <= len(tc.in); cut++ {
			for cut2 := cut; cut2 <= len(tc.in); cut2++ {
				d := newDetector([]byte(tc.keys))
				var out []byte
				var err error
				for _, piece := range []string{tc.in[:cut], tc.in[cut:cut2], tc.in[cut2:]} {
					if out, err = d.pass(out, []byte(piece)); err != nil {
						out = append(out, '|')
						break
					}
				}
				out = append(out, d.rest()...)
				assert.Equal(t, string(out), tc.want, "keys %q in %q cut at %d and %d", tc.keys, tc.in, cut, cut2)
			}
		}
	}
}

func FuzzDetector(f *testing.F) {
	f.Add("pq", "appq", 2)
	f.Fuzz(func(t *testing.T, keys, in string, cut int) {
		if keys == "" || cut < 0 || cut > len(in) {
			t.Skip()
		}
		d := newDetector([]byte(keys))
		out, err := d.pass(nil, []byte(in[:cut]))
		if err == nil {
			out, err = d.pass(out, []byte(in[cut:]))
		}
		want, _, found := strings.Cut(in, keys)
		if found != (err != nil) {
			t.Fatalf("detached: %v, want %v", err != nil, found)
		}
		if !found {
			out = append(out, d.rest()...)
		}
		if string(out) != want {
			t.Fatalf("passed %q, want %q", out, want)
		}
	})
}

func TestClientThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	c := newContainer()
	c.chunks = make(chan output.Chunk, 1<<12)
	s := begin(t, all(c))
	for range 1 << 12 {
		c.says(output.Stdout, strings.Repeat("x", 4096))
	}
	s.stop() // the daemon leaves while the session waits for the client
	s.ended(EndStopped)
}

type releasing struct {
	Source
	released int
}

func (r *releasing) release() { r.released++ }

// What is kept for a client that never got its stream is let go.
func TestDiscard(t *testing.T) {
	source, let := &releasing{}, 0
	Streams{Output: source, Release: func() { let++ }}.Discard()
	assert.Equal(t, source.released, 1)
	assert.Equal(t, let, 1)
	Streams{}.Discard()
}
