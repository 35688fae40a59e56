package sessions

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"lrd/internal/output"
)

// tape is a container's output with a cursor: chunk n of it is wholly known.
type tape struct {
	chunks []output.Chunk
	at     int
}

func newTape(chunks int) *tape {
	t := &tape{}
	n := 0
	for i := range chunks {
		var b bytes.Buffer
		for range 1 + i*7%40 {
			n++
			fmt.Fprintf(&b, "%d\n", n)
		}
		t.chunks = append(t.chunks, output.Chunk{Stream: output.Stream(1 + i%2), Data: b.Bytes()})
	}
	return t
}

func (t *tape) all() string {
	var b strings.Builder
	for _, c := range t.chunks {
		b.Write(c.Data)
	}
	return b.String()
}

func (t *tape) from(c Cursor) *tape { return &tape{chunks: t.chunks, at: int(c[0])} }

func (t *tape) Next(context.Context) (output.Chunk, error) {
	if t.at == len(t.chunks) {
		return output.Chunk{}, io.EOF
	}
	t.at++
	return t.chunks[t.at-1], nil
}

func (t *tape) Cursor() Cursor { return Cursor{int64(t.at)} }

// pair is a connection: the daemon's end, for any number of processes one after the other, and the client's.
func pair(t *testing.T) (server *os.File, client *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	assert.NilError(t, err)
	server = os.NewFile(uintptr(fds[0]), "server")
	other := os.NewFile(uintptr(fds[1]), "client")
	defer other.Close()
	c, err := net.FileConn(other)
	assert.NilError(t, err)
	t.Cleanup(func() { server.Close(); c.Close() })
	return server, c.(*net.UnixConn)
}

// process is one process's part in a session. It goes away after so many steps (of either pump), by SIGKILL: both
// pumps stop where they are, and nothing is written down any more. It returns whether the session has ended.
func process(t *testing.T, server *os.File, path string, d Description, s func(Cursor) Streams, steps int, maxWrite int) (ended bool) {
	t.Helper()
	nc, err := net.FileConn(server)
	assert.NilError(t, err)
	conn, err := newConn(nc)
	assert.NilError(t, err)
	st, _, err := loadState(path)
	if os.IsNotExist(err) {
		st, err = newState(path, d)
		assert.NilError(t, err)
		st.setOutput([]byte("HEAD\n"), Cursor{}, 0, false)
	}
	assert.NilError(t, err)
	var left atomic.Int64
	left.Store(int64(steps))
	killed := make(chan struct{})
	var once sync.Once
	conn.maxWrite = maxWrite
	conn.step = func() {
		if left.Add(-1) < 0 {
			once.Do(func() { close(killed) })
			runtime.Goexit()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		select {
		case <-killed:
			// What is dead writes nothing.
			st.mu.Lock()
			if st.file != nil {
				st.file.Close()
				st.file, _ = os.OpenFile(os.DevNull, os.O_RDWR, 0)
			}
			st.mu.Unlock()
			cancel()
		case <-ctx.Done():
		}
	}()
	streams := s(st.get().at)
	end, err := newRun(conn, streams, d.Framing, st).serve(ctx, func() bool { return true })
	assert.NilError(t, err)
	st.close()
	return end != EndFrozen
}

// lines checks numbers that count, where doubled allows that some come again: it returns how many did.
func lines(t *testing.T, got string) (doubled int) {
	t.Helper()
	next := 1
	for line := range strings.Lines(got) {
		var n int
		_, err := fmt.Sscanf(line, "%d\n", &n)
		assert.NilError(t, err, "torn: %q", line)
		assert.Assert(t, n <= next, "%d is missing: %d follows", next, n)
		if n < next {
			doubled += next - n
		}
		next = n + 1
	}
	return doubled
}

// unframe is what a client makes of a stream; it fails where the stream is not well formed.
func unframe(t *testing.T, f Framing, b []byte) string {
	t.Helper()
	if f.Chunked {
		var body []byte
		for {
			head, rest, ok := bytes.Cut(b, []byte("\r\n"))
			assert.Assert(t, ok)
			var n int
			_, err := fmt.Sscanf(string(head), "%x", &n)
			assert.NilError(t, err, "%q", head)
			assert.Assert(t, len(rest) >= n+2 && string(rest[n:n+2]) == "\r\n", "a chunk is torn")
			body, b = append(body, rest[:n]...), rest[n+2:]
			if n == 0 {
				break
			}
		}
		b = body
	}
	if !f.Multiplexed {
		return string(b)
	}
	var out strings.Builder
	for len(b) > 0 {
		assert.Assert(t, len(b) >= frameHead && b[0] <= 2 && b[1] == 0, "a frame is torn")
		n := int(binary.BigEndian.Uint32(b[4:]))
		assert.Assert(t, len(b) >= frameHead+n, "a frame is torn")
		out.Write(b[frameHead : frameHead+n])
		b = b[frameHead+n:]
	}
	return out.String()
}

var framings = []Framing{{}, {Multiplexed: true}, {Chunked: true}, {Chunked: true, Multiplexed: true}}

// doubles finds out how often something comes again in got, which else is want; no more than limit bytes at a time.
func doubles(t *testing.T, got, want string, limit int) (times int) {
	t.Helper()
	const sure = 16 // so many bytes are found in one place only
	at := 0
	here := func(p int) bool {
		n := min(sure, len(got), len(want)-p)
		return n > 0 && got[:n] == want[p:p+n]
	}
	for len(got) > 0 {
		if here(at) {
			got, at = got[1:], at+1
			continue
		}
		back := 1
		for ; back <= min(limit, at) && !here(at-back); back++ {
		}
		if back > min(limit, at) {
			// What comes again begins within the next few bytes.
			assert.Assert(t, at < len(want) && got[0] == want[at], "behind byte %d of %d comes %q", at, len(want), got[:min(len(got), 100)])
			got, at = got[1:], at+1
			continue
		}
		at, times = at-back, times+1
	}
	assert.Equal(t, at, len(want), "the end is missing")
	return times
}

// TestKilledAnywhere: a SIGKILL after every number of steps there is, again and again. Nothing is lost, the stream
// is well formed, and at most one piece is doubled by each. The pieces are small: that is how large a unix socket
// takes them when its buffer is the smallest there is.
func TestKilledAnywhere(t *testing.T) {
	all, doubled := 0, 0
	for _, framing := range framings {
		for steps := 1; steps < 40; steps++ {
			server, client := pair(t)
			assert.NilError(t, client.SetReadBuffer(1<<20))
			setBuffer(t, server, 1)
			source := newTape(60)
			path := filepath.Join(t.TempDir(), "s")
			got := make(chan []byte, 1)
			go func() { b, _ := io.ReadAll(client); client.Close(); got <- b }()
			kills, piece := 0, 0
			streams := func(at Cursor) Streams {
				return Streams{Output: source.from(at), Stdout: true, Stderr: true}
			}
			// The same number again would never come further than that.
			for !process(t, server, path, Description{Framing: framing}, streams, steps+kills, 0) {
				kills++
				if st, _, err := loadState(path); err == nil {
					piece = max(piece, len(st.out))
					st.close()
				}
			}
			b := <-got
			for bytes.HasPrefix(b, []byte("HEAD\n")) {
				b = b[len("HEAD\n"):]
			}
			assert.Assert(t, piece < 4096, "the pieces are of %d bytes", piece)
			n := doubles(t, unframe(t, framing, b), source.all(), piece)
			assert.Assert(t, n <= kills, "%d kills doubled %d pieces", kills, n)
			all, doubled = all+kills, doubled+n
		}
	}
	t.Logf("%d kills, %d pieces doubled", all, doubled)
}

// setBuffer sets the size of the send buffer, as far as the kernel lets it.
func setBuffer(t *testing.T, f *os.File, size int) {
	t.Helper()
	raw, err := f.SyscallConn()
	assert.NilError(t, err)
	assert.NilError(t, raw.Control(func(fd uintptr) {
		assert.NilError(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, size))
	}))
}

// TestFrozenAnywhere: a planned stop after every number of bytes there is. Every byte is seen once.
func TestFrozenAnywhere(t *testing.T) {
	for _, framing := range framings {
		source := newTape(12)
		for _, maxWrite := range []int{1, 7, 0} {
			server, client := pair(t)
			path := filepath.Join(t.TempDir(), "s")
			got := make(chan []byte, 1)
			go func() { b, _ := io.ReadAll(client); client.Close(); got <- b }()
			for {
				nc, err := net.FileConn(server)
				assert.NilError(t, err)
				conn, err := newConn(nc)
				assert.NilError(t, err)
				st, _, err := loadState(path)
				if os.IsNotExist(err) {
					st, err = newState(path, Description{Framing: framing})
					assert.NilError(t, err)
					st.setOutput([]byte("HEAD\n"), Cursor{}, 0, false)
				}
				assert.NilError(t, err)
				conn.maxWrite = maxWrite
				ctx, stop := context.WithCancel(t.Context())
				var n atomic.Int64
				conn.step = func() {
					if n.Add(1) == 9 {
						stop()
					}
				}
				end, err := newRun(conn, Streams{Output: source.from(st.get().at), Stdout: true, Stderr: true}, framing, st).serve(ctx, func() bool { return true })
				stop()
				assert.NilError(t, err)
				st.close()
				if end != EndFrozen {
					break
				}
			}
			text, ok := strings.CutPrefix(string(<-got), "HEAD\n")
			assert.Assert(t, ok)
			assert.Equal(t, unframe(t, framing, []byte(text)), source.all())
		}
	}
}

// pipeStdin is the input, a pipe, of a container that ends when its input does.
type pipeStdin struct {
	*os.File
	closed atomic.Bool
	done   chan struct{} // closed with it
}

func (p *pipeStdin) Close() error {
	if !p.closed.Swap(true) {
		close(p.done)
	}
	return nil
}

func (p *pipeStdin) Pipe() (syscall.RawConn, error) { return p.SyscallConn() }

// TestInputAcrossProcesses: input by way of splice(2), and copied, with stops and kills in between.
func TestInputAcrossProcesses(t *testing.T) {
	want := newTape(200).all()
	for _, tc := range []struct {
		name          string
		splice, kills bool
	}{
		{"spliced, frozen", true, false},
		{"spliced, killed", true, true},
		{"copied, frozen", false, false},
		{"copied, killed", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server, client := pair(t)
			r, w, err := os.Pipe()
			assert.NilError(t, err)
			defer r.Close()
			read := make(chan string, 1)
			go func() { b, _ := io.ReadAll(r); read <- string(b) }()
			go func() {
				for line := range strings.Lines(want) {
					if _, err := io.WriteString(client, line); err != nil {
						return
					}
				}
				_ = client.CloseWrite()
			}()
			path := filepath.Join(t.TempDir(), "s")
			done := make(chan struct{})
			stdin := &pipeStdin{File: w, done: done}
			var in io.WriteCloser = stdin
			if !tc.splice {
				in = struct{ io.WriteCloser }{stdin}
			}
			streams := func(Cursor) Streams { return Streams{Stdin: in, StdinOnce: true, Done: done} }
			for n := 0; !stdin.closed.Load(); n++ {
				if tc.kills {
					process(t, server, path, Description{}, streams, 10+n, 0)
					continue
				}
				frozen(t, server, path, streams, 10+n)
			}
			w.Close()
			got := <-read
			if tc.kills && !tc.splice {
				lines(t, got)
			} else {
				assert.Assert(t, got == want, "%d bytes of %d", len(got), len(want))
			}
		})
	}
}

// frozen is a process that leaves in a planned way after so many steps, or when the input has ended.
func frozen(t *testing.T, server *os.File, path string, s func(Cursor) Streams, steps int) {
	t.Helper()
	nc, err := net.FileConn(server)
	assert.NilError(t, err)
	conn, err := newConn(nc)
	assert.NilError(t, err)
	st, _, err := loadState(path)
	if os.IsNotExist(err) {
		st, err = newState(path, Description{})
	}
	assert.NilError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var n atomic.Int64
	conn.step = func() {
		if n.Add(1) >= int64(steps) {
			stop()
		}
	}
	streams := s(Cursor{})
	in := streams.Stdin
	streams.Stdin = closer{in, stop}
	if p, ok := in.(PipeInput); ok {
		streams.Stdin = pipeCloser{closer{in, stop}, p}
	}
	_, err = newRun(conn, streams, Framing{}, st).serve(ctx, func() bool { return true })
	assert.NilError(t, err)
	st.close()
}

// closer stops the process when the input has ended: there is nothing more to see.
type closer struct {
	io.WriteCloser
	stop func()
}

func (c closer) Close() error { defer c.stop(); return c.WriteCloser.Close() }

type pipeCloser struct {
	closer
	PipeInput
}

func TestManagerGoesOn(t *testing.T) {
	server, client := pair(t)
	store := &fakeStore{}
	dir := t.TempDir()
	source := newTape(100)
	nc, err := net.FileConn(server)
	assert.NilError(t, err)
	conn, err := newConn(nc)
	assert.NilError(t, err)
	m := New(Options{Dir: dir, Descriptors: store, Max: func() int { return 1 }, Log: slog.New(slog.DiscardHandler)})
	assert.NilError(t, m.Freeze(t.Context())) // at once: the session begins, and is frozen
	leave, err := m.Admit()
	assert.NilError(t, err)
	_, err = m.Admit()
	assert.ErrorContains(t, err, "max-sessions")
	end, err := m.Serve(t.Context(), conn, Description{Kind: "k"}, []byte("HEAD\n"), Streams{Output: source, Stdout: true})
	leave()
	assert.NilError(t, err)
	assert.Equal(t, end, EndFrozen)

	next := New(Options{Dir: dir, Descriptors: store})
	next.Restore(store, func(_ context.Context, d Description, at Cursor) (Streams, func(), error) {
		assert.Equal(t, d.Kind, "k")
		return Streams{Output: source.from(at), Stdout: true}, func() {}, nil
	})
	b, err := io.ReadAll(client)
	assert.NilError(t, err)
	client.Close()
	assert.NilError(t, next.End(t.Context()))
	assert.Equal(t, strings.TrimPrefix(string(b), "HEAD\n"), source.all())
	assert.Equal(t, len(store.Names()), 0)
	entries, err := os.ReadDir(dir)
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 0)
}

func TestDamagedStateClosesItsConnectionOnly(t *testing.T) {
	server, client := pair(t)
	store := &fakeStore{}
	dir := t.TempDir()
	assert.NilError(t, store.Put(t.Context(), "session.bad", server))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "bad"), []byte("nonsense"), 0o600))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "lonely"), nil, 0o600))
	m := New(Options{Dir: dir, Descriptors: store})
	m.Restore(store, nil)
	_, err := client.Read(make([]byte, 1))
	assert.Equal(t, err, io.EOF)
	assert.Equal(t, m.Count(), 0)
	assert.Equal(t, len(store.Names()), 0)
	entries, err := os.ReadDir(dir)
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 0)
	assert.NilError(t, m.End(t.Context()))
}

// fakeStore is systemd's.
type fakeStore struct {
	mu    sync.Mutex
	files map[string]*os.File
}

func (s *fakeStore) Put(_ context.Context, name string, files ...*os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		s.files = map[string]*os.File{}
	}
	s.files[name] = dup(files[0])
	return nil
}

func dup(f *os.File) *os.File {
	raw, _ := f.SyscallConn()
	fd := -1
	_ = raw.Control(func(old uintptr) { fd, _ = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return os.NewFile(uintptr(fd), f.Name())
}

func (s *fakeStore) Remove(_ context.Context, names ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if f := s.files[name]; f != nil {
			f.Close()
			delete(s.files, name)
		}
	}
	return nil
}

func (s *fakeStore) Names() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.files {
		names = append(names, name)
	}
	return names
}

func (s *fakeStore) Take(name string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return dup(s.files[name])
}

// FuzzState: whatever is in a session's file, it is understood or refused. The file's parts are the input, as there
// is a lot of nothing between them.
func FuzzState(f *testing.F) {
	r := record{at: Cursor{1, 2, 3}, skip: 4, outLen: 5, outSent: 2, inLen: 3, inSent: 1, held: 1}
	f.Add(r.encode(), []byte("piece"), []byte("in"), []byte("\x02\x00\x00\x00{}"))
	f.Add(r.encode(), []byte("piece"), []byte("inp"), []byte("\x0a\x00\x00\x00{\"kind\":1}"))
	f.Add(r.encode()[:20], []byte(nil), []byte(nil), []byte("\xff\xff\xff\xff"))
	r.over, r.inputEnded, r.outLen, r.outSent, r.inLen, r.inSent = true, true, 0, 0, 0, 0
	f.Add(r.encode(), []byte(nil), []byte(nil), []byte("\x1c\x00\x00\x00{\"framing\":{\"chunked\":true}}"))
	f.Fuzz(func(t *testing.T, head, out, in, static []byte) {
		if len(head) == recordSize { // else none but the seeds would have the right sum
			head = bytes.Clone(head)
			binary.LittleEndian.PutUint32(head[recordSize-4:], crc32.Checksum(head[:recordSize-4], castagnoli))
		}
		s := &state{}
		d, err := s.parse(parts{0: head, outputPlace: out, inputPlace: in, staticPlace: static})
		if err != nil {
			return
		}
		if len(s.unsent()) > maxPiece || len(s.unwritten()) > maxInput {
			t.Fatal("a state out of bounds was taken")
		}
		again, err := decodeRecord(s.rec.encode())
		if err != nil || again != s.rec {
			t.Fatalf("%+v became %+v, %v", s.rec, again, err)
		}
		if _, err := json.Marshal(d); err != nil {
			t.Fatal(err)
		}
	})
}

// parts is a file with holes.
type parts map[int64][]byte

func (p parts) ReadAt(b []byte, at int64) (n int, err error) {
	for place, part := range p {
		if at >= place && at-place < int64(len(part)) {
			if n = copy(b, part[at-place:]); n == len(b) {
				return n, nil
			}
			return n, io.ErrUnexpectedEOF
		}
	}
	return 0, io.EOF
}
