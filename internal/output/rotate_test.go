package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// opened opens a store with options, which the test closes.
func opened(t testing.TB, dir string, o Options) *Log {
	t.Helper()
	o.RetryPause = 10 * time.Millisecond
	l, err := Open(dir, o)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, l.Close()) })
	return l
}

// files returns the names of a store's files that begin and end so.
func files(t testing.TB, dir, prefix, suffix string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, prefix+"*"+suffix))
	assert.NilError(t, err)
	return names
}

// numbers appends the lines from n on to a store by way of its FIFO, and waits until they are in it.
func numbers(t testing.TB, l *Log, w io.Writer, from, to int) {
	t.Helper()
	end := l.state().ends[0]
	for n := from; n < to; n++ {
		b := appendLine(nil, n)
		_, err := w.Write(b)
		assert.NilError(t, err)
		end += int64(len(b))
	}
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if at := l.state().ends[0]; at < end {
			return poll.Continue("%d of %d bytes", at, end)
		}
		return poll.Success()
	}, poll.WithDelay(time.Millisecond), poll.WithTimeout(time.Minute))
}

// want is the lines from n up to another.
func want(from, to int) string {
	var b []byte
	for n := from; n < to; n++ {
		b = appendLine(b, n)
	}
	return string(b)
}

// given returns the lines that o chooses, as they are.
func given(t testing.TB, l *Log, o LinesOptions) (all []string) {
	t.Helper()
	r, err := l.Lines(o)
	assert.NilError(t, err)
	for {
		c, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return all
		}
		assert.NilError(t, err)
		all = append(all, string(c.Data))
	}
}

func chosen(t testing.TB, l *Log, o LinesOptions) string {
	t.Helper()
	return strings.Join(given(t, l, o), "")
}

// TestRotate: readers see one stream of bytes, however many files it is in,
// packed or not, in this process and in the next.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	o := Options{MaxSize: 16 << 10, Compress: true}
	l := opened(t, dir, o)
	assert.NilError(t, l.BeginRun())
	out := drained(t, l, Stdout)
	follower, err := l.Lines(LinesOptions{Stdout: true, Stderr: true, Follow: true, Tail: 0})
	assert.NilError(t, err)
	numbers(t, l, out, 0, 500)
	half, err := l.Lines(LinesOptions{Stdout: true, Tail: -1})
	assert.NilError(t, err)
	for range 250 {
		_, err := half.Next(t.Context())
		assert.NilError(t, err)
	}
	saved, savedRaw := half.Position(), l.End()
	middle := time.Now()
	numbers(t, l, out, 500, 1000)
	put(t, l, Stderr, time.Now().UnixNano(), "the end\n")

	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if len(files(t, dir, "stdout", "")) > 5 && len(files(t, dir, "stdout", ".zst")) == len(files(t, dir, "stdout", ""))-1 {
			return poll.Success()
		}
		return poll.Continue("not all packed: %v", files(t, dir, "", ""))
	})
	for _, f := range files(t, dir, "stdout", ".zst") {
		fi, err := os.Stat(f)
		assert.NilError(t, err)
		assert.Assert(t, fi.Size() < 8<<10, "%s", f)
	}
	var got strings.Builder
	for range 1000 {
		c, err := follower.Next(t.Context())
		assert.NilError(t, err)
		got.Write(c.Data)
	}
	assert.Equal(t, got.String(), want(0, 1000))
	assert.NilError(t, l.EndRun(t.Context()))
	c, err := follower.Next(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, string(c.Data), "the end\n")
	_, err = follower.Next(t.Context())
	assert.Equal(t, err, io.EOF)

	check := func(l *Log) {
		t.Helper()
		b, e := raw(t, l.Reader(Position{}).Until(l.End()))
		assert.Equal(t, b, want(0, 1000))
		assert.Equal(t, e, "the end\n")
		b, _ = raw(t, l.Reader(savedRaw).Until(l.End()))
		assert.Equal(t, b, want(500, 1000))
		assert.Equal(t, chosen(t, l, LinesOptions{Stdout: true, Tail: -1, From: &saved}), want(250, 500))
		on := saved
		on.Limit = 0
		assert.Equal(t, chosen(t, l, LinesOptions{Stdout: true, Tail: -1, From: &on}), want(250, 1000))
		for _, n := range []int{0, 1, 7, 300, 999, 2000} {
			assert.Equal(t, chosen(t, l, LinesOptions{Stdout: true, Tail: n}), want(max(0, 1000-n), 1000), "tail %d", n)
		}
		assert.Equal(t, chosen(t, l, LinesOptions{Stdout: true, Stderr: true, Tail: 3}), want(998, 1000)+"the end\n")
		assert.Equal(t, chosen(t, l, LinesOptions{Stdout: true, Tail: -1, Since: middle}), want(500, 1000))
		assert.Equal(t, chosen(t, l, LinesOptions{Stdout: true, Tail: -1, Until: middle}), want(0, 500))
	}
	check(l)
	assert.NilError(t, l.Close())
	l = opened(t, dir, Options{MaxSize: 16 << 10})
	check(l)
	assert.NilError(t, l.BeginRun())
	numbers(t, l, drained(t, l, Stdout), 1000, 1200)
	assert.Equal(t, chosen(t, l, LinesOptions{Stdout: true, Tail: -1}), want(0, 1200))
}

// TestRotateRemoves: what is kept is the end, from the beginning of a line on.
func TestRotateRemoves(t *testing.T) {
	for _, most := range []int{1, 3} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			dir := t.TempDir()
			o := Options{MaxSize: 16 << 10, MaxFiles: most, Compress: true}
			l := opened(t, dir, o)
			numbers(t, l, drained(t, l, Stdout), 0, 1000)
			for range 2 {
				l.comeback.Reset(0) // the time is over in which an earlier process's readers come back
				poll.WaitOn(t, func(poll.LogT) poll.Result {
					if n := len(files(t, dir, "stdout", "")); n > most {
						return poll.Continue("%d files", n)
					}
					return poll.Success()
				})
				assert.Assert(t, len(files(t, dir, "index", "")) <= most)
				got := given(t, l, LinesOptions{Stdout: true, Tail: -1})
				assert.Assert(t, most == 1 || len(got) > 2*(16<<10)/400, "%d lines", len(got))
				assert.Equal(t, strings.Join(got, ""), want(1000-len(got), 1000))
				assert.Equal(t, chosen(t, l, LinesOptions{Stdout: true, Tail: 5000}), strings.Join(got, ""))
				assert.Equal(t, chosen(t, l, LinesOptions{Stdout: true, Tail: 5}), want(995, 1000))
				b, _ := raw(t, l.Reader(Position{}).Until(l.End()))
				assert.Assert(t, strings.HasSuffix(b, strings.Join(got, "")))
				assert.NilError(t, l.Close())
				l = opened(t, dir, o)
			}
			// Who was further back is told so.
			r, err := l.Lines(LinesOptions{Stdout: true, Tail: -1, From: &LinesPosition{Stdout: 10}})
			assert.NilError(t, err)
			c, err := r.Next(t.Context())
			assert.NilError(t, err)
			assert.Assert(t, c.Notice)
			assert.Equal(t, string(c.Data), fmt.Sprintf("lrd: %d bytes of output were removed by rotation before being read here\n", l.state().segs[0].begin[0]-10))
			again := l.Reader(Position{Record: 1, Through: 1})
			c, err = again.Next(t.Context())
			assert.NilError(t, err)
			assert.Assert(t, c.Notice && c.Stream == Stderr, "%q", c.Data)
		})
	}
}

// TestLag: a reader that lags keeps what it has not read, then slows the
// container; one that stands still, or yields, is given up and told so.
func TestLag(t *testing.T) {
	setup := func(t *testing.T) (*Log, *os.File) {
		l := opened(t, t.TempDir(), Options{MaxSize: 8 << 10, MaxFiles: 2})
		l.pinMax = 32 << 10
		assert.NilError(t, l.BeginRun())
		return l, drained(t, l, Stdout)
	}
	// written waits until nothing more is taken from the pipe, which is full then.
	flood := func(t *testing.T, w *os.File) (n int64) {
		assert.NilError(t, w.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
		stop := make(chan struct{})
		n, err := number(w, stop)
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
		return n
	}
	t.Run("slows", func(t *testing.T) {
		l, w := setup(t)
		r := l.Reader(Position{})
		n := flood(t, w)
		assert.Assert(t, n < 1<<20, "%d bytes were written", n)
		var got bytes.Buffer
		for int64(got.Len()) < n {
			c, err := r.Next(t.Context())
			assert.NilError(t, err)
			assert.Assert(t, !c.Notice)
			got.Write(c.Data)
		}
		assert.Equal(t, verifyPrefix(t, got.Bytes()), n)
	})
	t.Run("closed", func(t *testing.T) {
		l, w := setup(t)
		r := l.Reader(Position{})
		flood(t, w)
		assert.NilError(t, r.Close())
		assert.NilError(t, w.SetWriteDeadline(time.Time{}))
		stop := make(chan struct{})
		finish := numbering(t, w, stop)
		poll.WaitOn(t, func(poll.LogT) poll.Result {
			if l.state().ends[0] > 4<<20 {
				return poll.Success()
			}
			return poll.Continue("held back")
		}, poll.WithTimeout(time.Minute))
		close(stop)
		finish()
	})
	t.Run("patient", func(t *testing.T) {
		l, w := setup(t)
		l.patient, l.stallTime = true, time.Nanosecond
		r := l.Reader(Position{})
		n := flood(t, w)
		var got bytes.Buffer
		for int64(got.Len()) < n {
			c, err := r.Next(t.Context())
			assert.NilError(t, err)
			assert.Assert(t, !c.Notice)
			got.Write(c.Data)
		}
		assert.Equal(t, verifyPrefix(t, got.Bytes()), n)
	})
	for _, how := range []string{"stalled", "yields"} {
		t.Run(how, func(t *testing.T) {
			l, w := setup(t)
			l.stallTime = 20 * time.Millisecond
			r := l.Reader(Position{})
			if how == "yields" {
				r.Yield()
				l.stallTime = time.Hour
			}
			stop := make(chan struct{})
			finish := numbering(t, w, stop)
			poll.WaitOn(t, func(poll.LogT) poll.Result {
				if l.state().ends[0] > 4<<20 {
					return poll.Success()
				}
				return poll.Continue("held back")
			}, poll.WithTimeout(time.Minute))
			close(stop)
			finish()
			c, err := r.Next(t.Context())
			assert.NilError(t, err)
			assert.Assert(t, c.Notice, "%q", c.Data)
			for c.Notice { // again, if what was left in the pipe has rotated more away
				c, err = r.Next(t.Context())
				assert.NilError(t, err)
			}
			assert.Assert(t, len(c.Data) > 0)
		})
	}
}

// verifyPrefix checks that b is the numbered lines from 0 on, up to anywhere.
func verifyPrefix(t *testing.T, b []byte) int64 {
	t.Helper()
	for n, at := 0, 0; at < len(b); n++ {
		line := appendLine(nil, n)
		line = line[:min(len(line), len(b)-at)]
		assert.Equal(t, string(b[at:at+len(line)]), string(line), "line %d", n)
		at += len(line)
	}
	return int64(len(b))
}

// TestRetireRotated: who reads on when the container is removed gets the
// closed segments too.
func TestRetireRotated(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir, Options{MaxSize: 8 << 10})
	numbers(t, l, drained(t, l, Stdout), 0, 300)
	r := l.Reader(Position{})
	c, err := r.Next(t.Context())
	assert.NilError(t, err)
	got := bytes.Clone(c.Data)
	other, err := l.Lines(LinesOptions{Stdout: true, Tail: 1})
	assert.NilError(t, err)
	assert.NilError(t, l.Retire())
	assert.NilError(t, Remove(dir))
	for {
		c, err := r.Next(t.Context())
		if errors.Is(err, ErrClosed) {
			break
		}
		assert.NilError(t, err)
		got = append(got, c.Data...)
	}
	assert.Equal(t, string(got), want(0, 300))
	assert.Assert(t, !l.shut.Load())
	assert.NilError(t, other.Close())
	assert.Assert(t, l.shut.Load(), "the last reader closes the files")
}

// TestKillRotating: SIGKILL at any point of rotating and compressing leaves
// every byte where it was.
func TestKillRotating(t *testing.T) {
	rounds := kills(20)
	for _, role := range []string{"rotate", "remove"} {
		t.Run(role, func(t *testing.T) {
			dir := t.TempDir()
			out, err := keepFIFO(dir, Stdout)
			assert.NilError(t, err)
			defer out.Close()
			errs, err := keepFIFO(dir, Stderr)
			assert.NilError(t, err)
			defer errs.Close()
			stop := make(chan struct{})
			finished := numbering(t, out, stop)
			killRounds(t, rounds, role, dir)
			// One that lives takes the rest.
			cmd, in, ready := spawn(t, role, dir)
			for ready.Scan() && ready.Text() != "ready" {
			}
			close(stop)
			wrote := finished()
			assert.NilError(t, in.Close())
			assert.NilError(t, cmd.Wait())
			l := opened(t, filepath.Join(dir, "log"), roleOptions(role))
			assert.NilError(t, l.Drain(Stdout, dup(t, out), FIFO))
			assert.NilError(t, l.EndRun(t.Context()))
			st := l.state()
			assert.Equal(t, st.ends[0], wrote)
			if role == "rotate" {
				verifyNumbered(t, &chunks{t: t, r: l.Reader(Position{}).Until(l.End()), s: Stdout})
			} else {
				got := given(t, l, LinesOptions{Stdout: true, Tail: -1})
				var first int
				_, err := fmt.Sscanf(got[0], "line %d", &first)
				assert.NilError(t, err, "%q", got[0])
				assert.Equal(t, strings.Join(got, ""), want(first, first+len(got)))
			}
			assert.NilError(t, l.Close())
			assert.Equal(t, len(files(t, l.dir, "", suffixNew)), 0)
		})
	}
}

// keepFIFO makes the FIFO that a role drains.
func keepFIFO(dir string, s Stream) (*os.File, error) {
	path := filepath.Join(dir, s.String())
	if err := mkfifo(path); err != nil {
		return nil, err
	}
	return openFIFO(path)
}

// TestAway: what was written while nobody drained says so.
func TestAway(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir, Options{})
	pipes := fifo(t, 3)
	assert.NilError(t, l.Drain(Stdout, pipes[0], FIFO))
	write(t, pipes[2], "before\n")
	assert.NilError(t, l.EndRun(t.Context()))
	assert.NilError(t, l.Close())
	left := time.Now()
	write(t, pipes[2], "meanwhile\n")
	l = opened(t, dir, Options{})
	l.now = func() time.Time { return time.Now().Add(2 * time.Second) } // that it took
	back := time.Now()
	assert.NilError(t, l.Drain(Stdout, pipes[1], FIFO))
	assert.NilError(t, l.EndRun(t.Context()))
	write(t, pipes[2], "after\n")
	assert.NilError(t, l.EndRun(t.Context()))
	r, err := l.Lines(LinesOptions{Stdout: true, Tail: -1})
	assert.NilError(t, err)
	for _, line := range []string{"before\n", "meanwhile\n", "after\n"} {
		c, err := r.Next(t.Context())
		assert.NilError(t, err)
		assert.Equal(t, string(c.Data), line)
		if line != "meanwhile\n" {
			assert.Assert(t, c.After.IsZero(), line)
			continue
		}
		assert.Assert(t, !c.After.IsZero() && c.After.Before(left) && left.Sub(c.After) < time.Second, "after %v, left %v", c.After, left)
		assert.Assert(t, c.Time.After(back))
	}
	got := given(t, l, LinesOptions{Stdout: true, Tail: 2, Prefix: " "})
	assert.Assert(t, strings.HasPrefix(got[0], "written-after=20") && strings.HasSuffix(got[0], "Z meanwhile\n"), "%q", got)
	assert.Equal(t, got[1], " after\n")
	got = given(t, l, LinesOptions{Stdout: true, Tail: 2, Prefix: "a=b ", Timestamps: true})
	assert.Assert(t, strings.Contains(got[0], "Z written-after=20") && strings.HasSuffix(got[0], "Z,a=b meanwhile\n"), "%q", got)
	assert.Assert(t, strings.HasSuffix(got[1], "Z a=b after\n"), "%q", got)
}

// TestCutByHand: closed segments that somebody has cut or thrown away are read
// up to the damage, which is told, and from the other end as well.
func TestCutByHand(t *testing.T) {
	for name, harm := range map[string]func(*testing.T, string){
		"data cut": func(t *testing.T, dir string) {
			f := files(t, dir, "stdout", "")
			assert.NilError(t, os.Truncate(f[len(f)/2], 3000))
		},
		"data gone": func(t *testing.T, dir string) {
			f := files(t, dir, "stdout", "")
			assert.NilError(t, os.Remove(f[len(f)/2]))
		},
		"index cut": func(t *testing.T, dir string) {
			f := files(t, dir, "index", "")
			assert.NilError(t, os.Truncate(f[len(f)/2], recordSize+5))
		},
		"index garbled": func(t *testing.T, dir string) {
			f := files(t, dir, "index", "")
			edit(t, f[len(f)/2], func(b []byte) []byte { b[len(b)-7] ^= 1; return b })
		},
		"index gone": func(t *testing.T, dir string) {
			f := files(t, dir, "index", "")
			assert.NilError(t, os.Remove(f[len(f)/2]))
		},
	} {
		for _, packed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, packed %v", name, packed), func(t *testing.T) {
				dir := t.TempDir()
				o := Options{MaxSize: 8 << 10, Compress: packed}
				l := opened(t, dir, o)
				numbers(t, l, drained(t, l, Stdout), 0, 300)
				poll.WaitOn(t, func(poll.LogT) poll.Result {
					if packed && len(files(t, dir, "stdout", ".zst")) != len(files(t, dir, "stdout", ""))-1 {
						return poll.Continue("not packed")
					}
					return poll.Success()
				})
				assert.NilError(t, l.Close())
				harm(t, dir)
				l = opened(t, dir, o)
				r, err := l.Lines(LinesOptions{Stdout: true, Tail: -1})
				assert.NilError(t, err)
				n := 0
				for ; ; n++ {
					c, e := r.Next(context.Background())
					if e != nil {
						err = e
						break
					}
					if c.Notice {
						n--
						assert.Assert(t, strings.Contains(string(c.Data), "damaged"), "%q", c.Data)
						continue
					}
					assert.Equal(t, string(c.Data), want(n, n+1))
				}
				var damage *DamageError
				assert.Assert(t, errors.As(err, &damage), "%v", err)
				assert.Assert(t, n > 50 && n < 250, "%d lines", n)
				assert.Equal(t, chosen(t, l, LinesOptions{Stdout: true, Tail: 20}), want(280, 300))
			})
		}
	}
}

// TestLastIndexGone: without the newest index file what lies before it is still there, compressed or not.
func TestLastIndexGone(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir, Options{MaxSize: 8 << 10, Compress: true})
	numbers(t, l, drained(t, l, Stdout), 0, 300)
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if len(files(t, dir, "stdout", ".zst")) != len(files(t, dir, "stdout", ""))-1 {
			return poll.Continue("not packed")
		}
		return poll.Success()
	})
	assert.NilError(t, l.Close())
	index := files(t, dir, "index", "")
	assert.NilError(t, os.Remove(index[len(index)-1]))
	for range 2 {
		l = opened(t, dir, Options{MaxSize: 8 << 10, Compress: true})
		got := given(t, l, LinesOptions{Stdout: true, Tail: -1})
		whole := got[:len(got)-1] // the last one was torn by hand
		assert.Assert(t, len(whole) > 200, "%d lines", len(whole))
		assert.Equal(t, strings.Join(whole, ""), want(0, len(whole)))
		assert.NilError(t, l.Close())
	}
}
