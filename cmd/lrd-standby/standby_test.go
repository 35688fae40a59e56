package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"lrd/internal/handover"
	"lrd/internal/output"
)

// box is a container without a terminal, and the daemon that drains it while the standby does not.
type box struct {
	t    *testing.T
	s    *service
	id   string
	fifo string
	log  *output.Log
	file *os.File // what the daemon's store has
}

func newBox(t *testing.T, s *service, n int) *box {
	b := &box{t: t, s: s, id: fmt.Sprintf("%064x", n)}
	b.fifo = filepath.Join(t.TempDir(), "stdout")
	assert.NilError(t, unix.Mkfifo(b.fifo, 0o600))
	b.file = openFIFO(t, b.fifo)
	return b
}

func openFIFO(t *testing.T, path string) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func (b *box) held() handover.Log { return handover.Log{ID: b.id, Dir: filepath.Join(b.s.dir, b.id)} }

// drain is the daemon at work.
func (b *box) drain() {
	b.t.Helper()
	var err error
	b.log, err = output.Open(b.held().Dir, output.Options{})
	assert.NilError(b.t, err)
	src, err := os.OpenFile(b.fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	assert.NilError(b.t, err)
	assert.NilError(b.t, b.log.Drain(output.Stdout, src, output.FIFO))
}

func (b *box) files() []handover.File {
	return []handover.File{{Name: handover.Name(b.id, handover.Stdout), File: b.file}}
}

// stop is a stop of the daemon, of which boxes are all containers.
func stop(t *testing.T, s *service, boxes ...*box) error {
	h := handover.Holding{Drain: true}
	for _, b := range boxes {
		h.Logs = append(h.Logs, b.held())
		h.Files = append(h.Files, b.files()...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return handover.Pass(ctx, placesIn(s.dir).socket, h, func(released func(string)) {
		for _, b := range boxes {
			assert.Check(t, b.log.Close())
			released(b.id)
		}
	})
}

// start is a start of the daemon, up to where it has taken all back; drain follows.
func start(t *testing.T, s *service) (names []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	assert.NilError(t, handover.TakeBack(ctx, placesIn(s.dir).socket, func(files []handover.File) error {
		names = nil
		for _, f := range files {
			names = append(names, f.Name)
		}
		handover.CloseFiles(files)
		return nil
	}))
	return names
}

// counter writes 1, 2, 3 and so on, one to a line, until its end, and knows how long it had to wait.
type counter struct {
	stop    atomic.Bool
	done    chan struct{}
	last    int
	longest time.Duration
}

func (b *box) count() *counter {
	c := &counter{done: make(chan struct{})}
	// Blocking, as a container's is.
	fd, err := unix.Open(b.fifo, unix.O_RDWR|unix.O_CLOEXEC, 0)
	assert.NilError(b.t, err)
	go func() {
		defer close(c.done)
		defer unix.Close(fd)
		for !c.stop.Load() {
			line := strconv.AppendInt(nil, int64(c.last+1), 10)
			begin := time.Now()
			if _, err := unix.Write(fd, append(line, '\n')); errors.Is(err, unix.EINTR) {
				continue
			}
			c.longest = max(c.longest, time.Since(begin))
			c.last++
		}
	}()
	return c
}

func (c *counter) end() int {
	c.stop.Store(true)
	<-c.done
	return c.last
}

// read checks that a log has 1, 2, 3 and so on, and returns the last.
func (b *box) read() int {
	b.t.Helper()
	assert.NilError(b.t, b.log.Settle(b.t.Context()))
	r := b.log.Reader(output.Position{}).Until(b.log.End())
	pr, pw := io.Pipe()
	go func() {
		for {
			c, err := r.Next(b.t.Context())
			if err != nil {
				_ = pw.CloseWithError(err)
				return
			}
			_, _ = pw.Write(c.Data)
		}
	}()
	lines, last := bufio.NewScanner(pr), 0
	for lines.Scan() {
		if lines.Text() != strconv.Itoa(last+1) {
			b.t.Fatalf("%q follows on %d", lines.Text(), last)
		}
		last++
	}
	assert.NilError(b.t, lines.Err())
	return last
}

// TestKilledAnywhere: the standby is killed after every number of steps there is, by itself, while a container writes
// flat out through stops and starts of the daemon.
func TestKilledAnywhere(t *testing.T) {
	var steps atomic.Int64
	s := startService(t, func() int { return int(steps.Add(1)) % 9 })
	b := newBox(t, s, 1)
	b.drain()
	c := b.count()
	for range 9 {
		assert.NilError(t, stop(t, s, b))
		time.Sleep(2 * time.Millisecond) // it writes
		start(t, s)
		b.drain()
	}
	wrote := c.end()
	assert.Equal(t, b.read(), wrote)
	assert.Assert(t, s.starts.Load() > 4, "it was not killed")
	t.Logf("%d lines, %d processes, blocked for at most %s", wrote, s.starts.Load(), c.longest)
	eventually(t, "the store is empty", func() bool { return len(s.names()) == 1 })
	eventually(t, "nothing is on record", func() bool { return !handover.Held(placesIn(s.dir).record) })
}

// TestKilledFromOutside is the same with kills at any time.
func TestKilledFromOutside(t *testing.T) {
	s := startService(t, func() int { return 0 })
	boxes := []*box{newBox(t, s, 1), newBox(t, s, 2)}
	var counters []*counter
	for _, b := range boxes {
		b.drain()
		counters = append(counters, b.count())
	}
	for n := range 6 {
		timer := time.AfterFunc(time.Duration(n)*500*time.Microsecond, s.kill)
		assert.NilError(t, stop(t, s, boxes...))
		timer.Stop()
		if n%2 == 0 {
			s.kill()
		}
		timer = time.AfterFunc(time.Duration(n)*300*time.Microsecond, s.kill)
		start(t, s)
		timer.Stop()
		for _, b := range boxes {
			b.drain()
		}
	}
	for i, b := range boxes {
		wrote := counters[i].end()
		assert.Equal(t, b.read(), wrote)
	}
}

// TestDaemonLeavesHalfWay: a daemon that dies before it has taken what it was given has taken nothing.
func TestDaemonLeavesHalfWay(t *testing.T) {
	s := startService(t, func() int { return 0 })
	b := newBox(t, s, 1)
	b.drain()
	c := b.count()
	assert.NilError(t, stop(t, s, b))

	client, err := handover.Dial(t.Context(), placesIn(s.dir).socket)
	assert.NilError(t, err)
	files, err := client.Give(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, len(files), 1)
	handover.CloseFiles(files)
	assert.NilError(t, client.Close())

	size := func() int64 {
		fi, err := os.Stat(filepath.Join(b.held().Dir, "stdout.0000000000000000"))
		assert.NilError(t, err)
		return fi.Size()
	}
	before := size()
	eventually(t, "it drains on", func() bool { return size() > before+1<<20 })
	assert.Equal(t, strings.Join(start(t, s), " "), handover.Name(b.id, handover.Stdout))
	b.drain()
	wrote := c.end()
	assert.Equal(t, b.read(), wrote)
}
