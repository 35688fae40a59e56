package output

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// TestCloseInFlow closes and opens again under a writer that goes flat out:
// the planned restart.
func TestCloseInFlow(t *testing.T) {
	dir := t.TempDir()
	pipes := fifo(t, 2)
	stop := make(chan struct{})
	var wrote int64
	var wg sync.WaitGroup
	wg.Go(func() {
		n, err := number(pipes[0], stop)
		assert.Check(t, err)
		wrote = n
	})
	attach := func(l *Log) {
		f, err := openFIFO(pipes[1].Name())
		assert.NilError(t, err)
		assert.NilError(t, l.Drain(Stdout, f, FIFO))
	}
	for range 30 {
		l, err := Open(dir, Options{})
		assert.NilError(t, err)
		attach(l)
		time.Sleep(2 * time.Millisecond)
		assert.NilError(t, l.Close())
		assert.NilError(t, l.Close())
	}
	close(stop)
	l := open(t, dir)
	assert.Equal(t, l.state().count, l.End().Record)
	attach(l)
	wg.Wait()
	assert.NilError(t, l.EndRun(t.Context()))
	assert.Equal(t, verifyNumbered(t, &chunks{t: t, r: l.Reader(Position{}).Until(l.End()), s: Stdout}), wrote)
	assert.Equal(t, verifyIndex(t, l), 0, "a planned end leaves nothing to recover")
}

// TestEndRunEnds: the next run's flat out writing does not keep the last one
// from ending; everything written before is in.
func TestEndRunEnds(t *testing.T) {
	l := open(t, t.TempDir())
	pipes := fifo(t, 2)
	assert.NilError(t, l.Drain(Stdout, pipes[0], FIFO))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = number(pipes[1], stop) })
	defer wg.Wait()
	defer close(stop)
	for range 20 {
		assert.NilError(t, l.BeginRun())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		assert.NilError(t, l.EndRun(ctx))
		cancel()
	}
}

// TestEndRunAgainstClose: whoever comes first, no descriptor is used that is
// closed, and what is recorded is right.
func TestEndRunAgainstClose(t *testing.T) {
	dir := t.TempDir()
	for range 100 {
		l, err := Open(dir, Options{})
		assert.NilError(t, err)
		out := drained(t, l, Stdout)
		master, slave := rawPTY(t)
		assert.NilError(t, l.DrainThrough(Stderr, dup(t, master), fifo(t, 1)[0]))
		assert.NilError(t, l.BeginRun())
		write(t, out, strings.Repeat("x", 10_000))
		write(t, slave, "y")
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := l.EndRun(context.Background()); err != nil {
				assert.Check(t, errors.Is(err, ErrClosed), "%v", err)
			}
		})
		wg.Go(func() { assert.Check(t, l.StopDrains()) })
		wg.Go(func() { assert.Check(t, l.Close()) })
		wg.Wait()
		assert.NilError(t, slave.Close())
		assert.NilError(t, master.Close())
	}
	verifyIndex(t, open(t, dir))
}

// TestEndRunTakesAll: what was written before EndRun is before the marker.
func TestEndRunTakesAll(t *testing.T) {
	l := open(t, t.TempDir())
	out, errs := drained(t, l, Stdout), drained(t, l, Stderr)
	for i := range 200 {
		r := l.Reader(l.End())
		assert.NilError(t, l.BeginRun())
		a, b := strings.Repeat("a", i*50), strings.Repeat("b", 1+i)
		write(t, out, a)
		write(t, errs, b)
		assert.NilError(t, l.EndRun(t.Context()))
		stdout, stderr := raw(t, r)
		assert.Equal(t, stdout, a)
		assert.Equal(t, stderr, b)
	}
}

// TestTwoSourcesOfOneStream: a new pipe beside the old one, as at a restart.
func TestTwoSourcesOfOneStream(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	a, b := drained(t, l, Stdout), drained(t, l, Stdout)
	var wg sync.WaitGroup
	for _, w := range []io.Writer{a, b} {
		wg.Go(func() {
			for range 2000 {
				_, err := io.WriteString(w, "0123456789\n")
				assert.Check(t, err)
			}
		})
	}
	wg.Wait()
	assert.NilError(t, l.EndRun(t.Context()))
	assert.Equal(t, len(content(t, dir, Stdout)), 2*2000*11)
	verifyIndex(t, l)
}

func TestStopDrains(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	pipes := fifo(t, 3)
	assert.NilError(t, l.Drain(Stdout, pipes[0], FIFO))
	write(t, pipes[2], "one\n")
	assert.NilError(t, l.EndRun(t.Context()))
	assert.NilError(t, l.StopDrains())
	assert.ErrorIs(t, pipes[0].Close(), os.ErrClosed, "the source was closed")
	write(t, pipes[2], "two\n")
	assert.NilError(t, l.EndRun(t.Context()))
	assert.Equal(t, content(t, dir, Stdout), "one\n")
	assert.NilError(t, l.Drain(Stdout, pipes[1], FIFO))
	assert.NilError(t, l.EndRun(t.Context()))
	assert.Equal(t, content(t, dir, Stdout), "one\ntwo\n")
}

func TestDrainRefuses(t *testing.T) {
	l := open(t, t.TempDir())
	pipe := func(flags int) *os.File {
		var p [2]int
		assert.NilError(t, unix.Pipe2(p[:], flags|unix.O_CLOEXEC))
		assert.NilError(t, unix.Close(p[1]))
		return os.NewFile(uintptr(p[0]), "pipe")
	}
	for _, tc := range []struct {
		name, want string
		drain      func() error
	}{
		{"blocking", "must be non-blocking", func() error { return l.Drain(Stdout, pipe(0), FIFO) }},
		{"read only", "open for reading and writing", func() error { return l.Drain(Stdout, pipe(unix.O_NONBLOCK), FIFO) }},
		{"stdin", "no output of that name", func() error { return l.Drain(Stdin, fifo(t, 1)[0], FIFO) }},
		{"unknown kind", "unknown kind", func() error { return l.Drain(Stdout, fifo(t, 1)[0], 7) }},
		{"bad pipe", "through a pipe", func() error { return l.DrainThrough(Stdout, fifo(t, 1)[0], pipe(0)) }},
	} {
		t.Run(tc.name, func(t *testing.T) { assert.ErrorContains(t, tc.drain(), tc.want) })
	}
	assert.NilError(t, l.Close())
	f := fifo(t, 1)[0]
	assert.ErrorIs(t, l.Drain(Stdout, f, FIFO), ErrClosed)
	assert.ErrorIs(t, f.Close(), os.ErrClosed, "taken over also when it fails")
	assert.ErrorIs(t, l.BeginRun(), ErrClosed)
}

// TestConsole: no open slave is not the end, in both ways of draining.
func TestConsole(t *testing.T) {
	for _, through := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "through a pipe"}[through], func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir)
			master, slave := rawPTY(t)
			console := dup(t, master)
			if through {
				assert.NilError(t, l.DrainThrough(Stdout, console, fifo(t, 1)[0]))
			} else {
				assert.NilError(t, l.Drain(Stdout, console, Console))
			}
			r := l.Reader(l.End())
			next := func(want string) {
				t.Helper()
				for got := ""; got != want; {
					c, err := r.Next(t.Context())
					assert.NilError(t, err)
					got += string(c.Data)
					assert.Assert(t, strings.HasPrefix(want, got), "%q", got)
				}
			}
			write(t, slave, "hello")
			next("hello")
			for range 3 {
				name := slave.Name()
				assert.NilError(t, slave.Close())
				time.Sleep(5 * time.Millisecond) // long enough to see EIO
				var err error
				slave, err = os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
				assert.NilError(t, err)
				write(t, slave, "again")
				next("again")
			}
			// The last words of one who exits at once.
			assert.NilError(t, l.BeginRun())
			big := strings.Repeat("z", 10_000)
			wrote := make(chan error)
			go func() { _, err := io.WriteString(slave, big); wrote <- errors.Join(err, slave.Close()) }()
			assert.NilError(t, <-wrote)
			assert.NilError(t, l.EndRun(t.Context()))
			next(big)
			_, err := r.Next(t.Context())
			assert.Equal(t, err, io.EOF)
		})
	}
}

// TestThroughLeftover: what an earlier process left in the pipe comes first.
func TestThroughLeftover(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	master, slave := rawPTY(t)
	via := fifo(t, 2)
	write(t, via[1], "left ")
	write(t, slave, "over")
	assert.NilError(t, l.DrainThrough(Stdout, dup(t, master), via[0]))
	assert.NilError(t, l.EndRun(t.Context()))
	assert.Equal(t, content(t, dir, Stdout), "left over")
}

func TestSetPipeSize(t *testing.T) {
	f := fifo(t, 1)[0]
	for _, tc := range []struct{ ask, want int }{
		{1, os.Getpagesize()},
		{128 << 10, 128 << 10},
		{128<<10 + 1, 256 << 10},
		{DefaultPipeSize(), DefaultPipeSize()},
	} {
		got, err := SetPipeSize(f, tc.ask)
		assert.NilError(t, err)
		assert.Equal(t, got, tc.want)
	}
	// Beyond the ceiling: all that is granted, never less than before.
	got, err := SetPipeSize(f, 4*DefaultPipeSize())
	assert.NilError(t, err)
	assert.Assert(t, got >= DefaultPipeSize())

	_, err = SetPipeSize(f, 0)
	assert.ErrorContains(t, err, "not a size")
	regular, err := os.Create(filepath.Join(t.TempDir(), "file"))
	assert.NilError(t, err)
	defer regular.Close()
	_, err = SetPipeSize(regular, 4096)
	assert.ErrorIs(t, err, unix.EBADF)
	// Smaller than what is in it: the kernel refuses, and it stays.
	write(t, f, strings.Repeat("x", 40_000))
	now, err := SetPipeSize(f, 4096)
	assert.ErrorIs(t, err, unix.EBUSY)
	assert.Equal(t, now, got)
}

// TestDrainAllocatesNothing measures the hot path, with a reader waiting.
func TestDrainAllocatesNothing(t *testing.T) {
	l := open(t, t.TempDir())
	pipes := fifo(t, 2)
	s := &source{l: l, stream: l.stream(Stdout)}
	s.take = s.spliceToFile
	fd := int(pipes[0].Fd())
	wake := make(chan struct{}, 1)
	l.waiters = make([]chan struct{}, 0, 1)
	line := bytes.Repeat([]byte("x"), 100)
	allocs := testing.AllocsPerRun(200, func() {
		l.waiters = append(l.waiters, wake)
		_, _ = unix.Write(fd, line)
		if n, err := s.step(fd, true); n != len(line) || err != nil {
			panic(err)
		}
		<-wake
	})
	assert.Equal(t, allocs, 0.0)
}
