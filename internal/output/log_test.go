package output

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("LRD_OUTPUT_TEST_ROLE"); role != "" {
		os.Exit(child(role))
	}
	goleak.VerifyTestMain(m)
}

// open opens a store that the test closes.
func open(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := Open(dir, Options{RetryPause: 10 * time.Millisecond})
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, l.Close()) })
	return l
}

// fifo makes a FIFO and opens it n times, as lrd and the container do.
func fifo(t testing.TB, n int) []*os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	assert.NilError(t, unix.Mkfifo(path, 0o600))
	var files []*os.File
	for range n {
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
		assert.NilError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		files = append(files, f)
	}
	return files
}

// drained starts a drain of a new FIFO and returns its other end.
func drained(t testing.TB, l *Log, s Stream) *os.File {
	t.Helper()
	f := fifo(t, 2)
	assert.NilError(t, l.Drain(s, f[0], FIFO))
	return f[1]
}

func write(t testing.TB, w io.Writer, s string) {
	t.Helper()
	_, err := io.WriteString(w, s)
	assert.NilError(t, err)
}

// raw reads everything up to the end of a run.
func raw(t testing.TB, r *Reader) (stdout, stderr string) {
	t.Helper()
	var b [3]strings.Builder
	for {
		c, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return b[Stdout].String(), b[Stderr].String()
		}
		assert.NilError(t, err)
		b[c.Stream].Write(c.Data)
	}
}

// content is what a data file holds.
func content(t testing.TB, dir string, s Stream) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, s.String()+".0000000000000000"))
	assert.NilError(t, err)
	return string(b)
}

func TestRun(t *testing.T) {
	l := open(t, t.TempDir())
	attached := l.Reader(l.End()) // before the start, as docker run does
	out, err := drained(t, l, Stdout), drained(t, l, Stderr)
	assert.NilError(t, l.BeginRun())
	assert.Assert(t, l.Running())
	write(t, out, "one\ntwo\n")
	write(t, err, "oops\n")
	assert.NilError(t, l.EndRun(t.Context()))
	assert.Assert(t, !l.Running())

	stdout, stderr := raw(t, attached)
	assert.Equal(t, stdout, "one\ntwo\n")
	assert.Equal(t, stderr, "oops\n")
	_, eof := attached.Next(t.Context())
	assert.Equal(t, eof, io.EOF, "the end is the end")

	// A second run, on the same pipes. Who comes now passes the end of the first.
	all, resumed := l.Reader(Position{}), l.Reader(attached.Position())
	assert.NilError(t, l.BeginRun())
	write(t, out, "three")
	assert.NilError(t, l.EndRun(t.Context()))
	stdout, _ = raw(t, all)
	assert.Equal(t, stdout, "one\ntwo\nthree")
	stdout, _ = raw(t, resumed)
	assert.Equal(t, stdout, "", "the first run's reader goes on as the first run's")
}

func TestRunOutlivesTheLog(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	assert.NilError(t, l.BeginRun())
	out := drained(t, l, Stdout)
	r := l.Reader(Position{})
	write(t, out, "hello")
	c, err := r.Next(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, string(c.Data), "hello")
	assert.NilError(t, l.Close())
	_, err = r.Next(t.Context())
	assert.ErrorIs(t, err, ErrClosed)

	l = open(t, dir)
	assert.Assert(t, l.Running())
	r = l.Reader(r.Position())
	assert.NilError(t, l.EndRun(t.Context()))
	_, err = r.Next(t.Context())
	assert.Equal(t, err, io.EOF)
}

func TestBusy(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	_, err := Open(dir, Options{})
	assert.ErrorIs(t, err, ErrBusy)
	assert.NilError(t, l.Close())
	open(t, dir)
}

func TestReaderWaits(t *testing.T) {
	l := open(t, t.TempDir())
	out := drained(t, l, Stdout)
	r := l.Reader(l.End())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := r.Next(ctx)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Equal(t, len(l.waiters), 0)
	time.AfterFunc(10*time.Millisecond, func() { _, _ = io.WriteString(out, "x") })
	c, err := r.Next(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, string(c.Data), "x")
}

// TestRetire reads on from a Log that is removed meanwhile.
func TestRetire(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	assert.NilError(t, l.BeginRun())
	w := drained(t, l, Stdout)
	write(t, w, "one\n")
	write(t, w, "two\n")
	behind, atEnd := l.Reader(Position{}), l.Reader(Position{})
	assert.NilError(t, l.EndRun(t.Context()))
	following := l.Reader(l.End())

	waiting := make(chan error, 1)
	go func() {
		_, err := following.Next(t.Context())
		waiting <- err
	}()
	_, err := atEnd.Next(t.Context())
	assert.NilError(t, err)
	assert.NilError(t, l.Retire())
	assert.NilError(t, Remove(dir))

	assert.ErrorIs(t, <-waiting, ErrClosed)
	var got strings.Builder
	for {
		c, err := behind.Next(t.Context())
		if err != nil {
			assert.ErrorIs(t, err, io.EOF) // the end of the run, as if nothing had been removed
			break
		}
		got.Write(c.Data)
	}
	assert.Equal(t, got.String(), "one\ntwo\n")
}
