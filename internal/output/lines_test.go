package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// put stores bytes as a drain does, at a time of the test's choice.
func put(t testing.TB, l *Log, s Stream, at int64, data string) {
	t.Helper()
	st := l.stream(s)
	st.mu.Lock()
	defer st.mu.Unlock()
	_, err := st.file.WriteAt([]byte(data), st.end)
	assert.NilError(t, err)
	st.end += int64(len(data))
	assert.NilError(t, l.commit(st, func() time.Time { return time.Unix(0, at) }, 0))
}

// read reads lines to their end, each as "time stream text".
func read(t testing.TB, r *Lines) []string {
	t.Helper()
	got := []string{}
	for {
		c, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return got
		}
		assert.NilError(t, err)
		got = append(got, fmt.Sprintf("%d %s %q", c.Time.UnixNano(), c.Stream, c.Data))
	}
}

func lines(t testing.TB, l *Log, o LinesOptions) []string {
	t.Helper()
	r, err := l.Lines(o)
	assert.NilError(t, err)
	return read(t, r)
}

func TestLines(t *testing.T) {
	l := open(t, t.TempDir())
	put(t, l, Stdout, 10, "a\nb")
	put(t, l, Stderr, 20, "E\n\xff\xfe")
	put(t, l, Stdout, 30, "b\n\nc")
	put(t, l, Stderr, 40, "F\nG")

	both := LinesOptions{Stdout: true, Stderr: true, Tail: -1}
	whole := []string{
		`10 stdout "a\n"`, `20 stderr "E\n"`, `10 stdout "bb\n"`, `30 stdout "\n"`, `20 stderr "\xff\xfeF\n"`,
		`30 stdout "c"`, `40 stderr "G"`,
	}
	with := func(f func(*LinesOptions)) LinesOptions { o := both; f(&o); return o }
	for _, tc := range []struct {
		name string
		o    LinesOptions
		want []string
	}{
		{"all", both, whole},
		{"follow a stopped container", with(func(o *LinesOptions) { o.Follow = true }), whole},
		{"tail 0", with(func(o *LinesOptions) { o.Tail = 0 }), []string{}},
		{"tail 1", with(func(o *LinesOptions) { o.Tail = 1 }), whole[6:]},
		{"tail 3", with(func(o *LinesOptions) { o.Tail = 3 }), whole[4:]},
		{"tail 5", with(func(o *LinesOptions) { o.Tail = 5 }), whole[2:]},
		{"tail more than all", with(func(o *LinesOptions) { o.Tail = 99 }), whole},
		{"stdout", LinesOptions{Stdout: true, Tail: 2}, []string{whole[3], whole[5]}},
		{"stderr", LinesOptions{Stderr: true, Tail: 2}, []string{whole[4], whole[6]}},
		{"since", with(func(o *LinesOptions) { o.Since = time.Unix(0, 20) }), append(append([]string{}, whole[1]), whole[3:]...)},
		{"until", with(func(o *LinesOptions) { o.Until = time.Unix(0, 10) }), []string{whole[0], whole[2]}},
		{"between", with(func(o *LinesOptions) { o.Since, o.Until = time.Unix(0, 15), time.Unix(0, 35) }), []string{whole[1], whole[3], whole[4], whole[5]}},
		{"tail before until", with(func(o *LinesOptions) { o.Tail, o.Until = 2, time.Unix(0, 30) }), whole[5:6]},
		{"follow with until gone", with(func(o *LinesOptions) { o.Follow, o.Until = true, time.Unix(0, 10) }), []string{whole[0], whole[2]}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.DeepEqual(t, lines(t, l, tc.o), tc.want)
		})
	}
	for _, bad := range []LinesOptions{{Tail: 1}, {Stdout: true, Tail: -2}} {
		_, err := l.Lines(bad)
		assert.ErrorContains(t, err, "cannot read lines")
	}
}

func TestTimestamps(t *testing.T) {
	l := open(t, t.TempDir())
	put(t, l, Stdout, time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC).UnixNano(), "x\ny")
	r, err := l.Lines(LinesOptions{Stdout: true, Timestamps: true, Tail: -1})
	assert.NilError(t, err)
	for _, want := range []string{"2026-01-02T03:04:05.600000000Z x\n", "2026-01-02T03:04:05.600000000Z y"} {
		c, err := r.Next(t.Context())
		assert.NilError(t, err)
		assert.Equal(t, string(c.Data), want)
	}
}

// naive computes lines from everything, in the plainest way: the yardstick.
func naive(pieces []piece, block int, o LinesOptions) []string {
	type line struct {
		s    Stream
		at   int64
		data []byte
	}
	var done []line
	var cur [3]line
	var seen [3][]byte
	chosen := [3]bool{Stdout: o.Stdout, Stderr: o.Stderr}
	for _, p := range pieces {
		if !chosen[p.s] {
			continue
		}
		for _, b := range []byte(p.data) {
			c := &cur[p.s]
			if len(c.data) == 0 {
				c.s, c.at = p.s, p.at
			}
			c.data = append(c.data, b)
			seen[p.s] = append(seen[p.s], b)
			n := len(seen[p.s])
			if b == '\n' || n%block == 0 && !bytes.Contains(seen[p.s][n-block:], []byte("\n")) {
				done = append(done, *c)
				cur[p.s] = line{}
			}
		}
	}
	for _, s := range kept {
		if len(cur[s].data) > 0 {
			done = append(done, cur[s])
		}
	}
	if o.Tail >= 0 {
		done = done[max(0, len(done)-o.Tail):]
	}
	got := []string{}
	for _, d := range done {
		if (o.Since.IsZero() || d.at >= o.Since.UnixNano()) && (o.Until.IsZero() || d.at <= o.Until.UnixNano()) {
			got = append(got, fmt.Sprintf("%d %s %q", d.at, d.s, d.data))
		}
	}
	return got
}

type piece struct {
	s    Stream
	at   int64
	data string
}

// TestLinesLikeNaive: whatever is asked for, reading from the end gives what
// computing from the start gives. Blocks are small, so that everything
// happens at their borders.
func TestLinesLikeNaive(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		l := open(t, t.TempDir())
		l.lineBlock, l.scanBlock = 32, 8
		newlines := rnd.IntN(30) // the larger the rarer
		var pieces []piece
		for i := range 1 + rnd.IntN(60) {
			var b strings.Builder
			for range 1 + rnd.IntN(1+rnd.IntN(100)) {
				if rnd.IntN(newlines+1) == 0 {
					b.WriteByte('\n')
				} else {
					b.WriteByte(byte('a' + rnd.IntN(26)))
				}
			}
			p := piece{s: kept[rnd.IntN(2)], at: int64(1000 + i*10 + rnd.IntN(10)), data: b.String()}
			pieces = append(pieces, p)
			put(t, l, p.s, p.at, p.data)
			l.now = func() time.Time { return time.Unix(0, p.at) }
			if rnd.IntN(10) == 0 {
				assert.NilError(t, l.mark(map[bool]uint8{true: flagEnd, false: flagBegin | flagRunning}[l.Running()]))
			}
		}
		if l.Running() {
			assert.NilError(t, l.mark(flagEnd))
		}
		for range 40 {
			o := LinesOptions{Tail: rnd.IntN(40) - 1, Follow: rnd.IntN(2) == 0}
			o.Stdout, o.Stderr = rnd.IntN(3) > 0, rnd.IntN(3) > 0
			if !o.Stdout && !o.Stderr {
				continue
			}
			if rnd.IntN(3) == 0 {
				o.Since = time.Unix(0, int64(990+rnd.IntN(620)))
			}
			if rnd.IntN(3) == 0 {
				o.Until = time.Unix(0, int64(990+rnd.IntN(620)))
			}
			want := naive(pieces, 32, o)
			assert.DeepEqual(t, lines(t, l, o), want)
			if len(want) == 0 {
				continue
			}
			// In batches it is the same, also interrupted between any two.
			if rnd.IntN(8) == 0 {
				o.Batch = true
				assert.Equal(t, joined(t, l, o, rnd), strings.Join(joinLines(want), ""))
				o.Batch = false
			}
			// Interrupted anywhere, it goes on where it was.
			r, err := l.Lines(o)
			assert.NilError(t, err)
			k := rnd.IntN(len(want))
			for range k {
				_, err := r.Next(t.Context())
				assert.NilError(t, err)
			}
			at := r.Position()
			o.From = &at
			assert.DeepEqual(t, lines(t, l, o), want[k:])
		}
		assert.NilError(t, l.Close())
	}
}

// joinLines leaves of lines, as read gives them, stream and text.
func joinLines(lines []string) (all []string) {
	for _, line := range lines {
		_, line, _ = strings.Cut(line, " ")
		s, quoted, _ := strings.Cut(line, " ")
		text, err := strconv.Unquote(quoted)
		if err != nil {
			panic(err)
		}
		for _, b := range text {
			all = append(all, s+string(b)+" ")
		}
	}
	return all
}

// joined reads bytes with their streams, by several Lines of which each goes on where the one before was left.
func joined(t *testing.T, l *Log, o LinesOptions, rnd *rand.Rand) string {
	t.Helper()
	var all strings.Builder
	r, err := l.Lines(o)
	assert.NilError(t, err)
	for {
		c, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return all.String()
		}
		assert.NilError(t, err)
		for _, b := range string(c.Data) {
			all.WriteString(c.Stream.String() + string(b) + " ")
		}
		if rnd.IntN(3) == 0 {
			at := r.Position()
			o.From = &at
			r, err = l.Lines(o)
			assert.NilError(t, err)
		}
	}
}

// TestLinesEndWhereTheyWould: Lines that do not follow end where they would have, had they not been interrupted.
func TestLinesEndWhereTheyWould(t *testing.T) {
	l := open(t, t.TempDir())
	put(t, l, Stdout, 1, "one\ntwo\n")
	o := LinesOptions{Stdout: true, Tail: -1}
	r, err := l.Lines(o)
	assert.NilError(t, err)
	_, err = r.Next(t.Context())
	assert.NilError(t, err)
	at := r.Position()
	put(t, l, Stdout, 2, "three\n")
	o.From = &at
	assert.Equal(t, len(lines(t, l, o)), 1)
}

// TestLongLine: a line without end does not fill the memory.
func TestLongLine(t *testing.T) {
	l := open(t, t.TempDir())
	for range 40 {
		put(t, l, Stdout, 1, strings.Repeat("x", 100<<10))
	}
	put(t, l, Stdout, 1, "\n")
	r, err := l.Lines(LinesOptions{Stdout: true, Tail: -1})
	assert.NilError(t, err)
	var total, n int
	for ; ; n++ {
		c, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		assert.NilError(t, err)
		assert.Assert(t, len(c.Data) < 2*lineBlock)
		total += len(c.Data)
	}
	assert.Equal(t, total, 40*100<<10+1)
	assert.Equal(t, n, 8)
	assert.Equal(t, len(lines(t, l, LinesOptions{Stdout: true, Tail: 3})), 3)
}

// TestFollow: from the tail into what is being written, no hole, no double,
// and the end with the run.
func TestFollow(t *testing.T) {
	l := open(t, t.TempDir())
	out, errs := drained(t, l, Stdout), drained(t, l, Stderr)
	assert.NilError(t, l.BeginRun())
	const count = 3000
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for i := range count {
			fmt.Fprintf(out, "out %d", i) // torn between two writes
			fmt.Fprintf(errs, "err %d\n", i)
			fmt.Fprintln(out)
		}
		assert.Check(t, l.EndRun(context.Background()))
	}()
	for i := range 6 {
		tail := []int{-1, 20}[i%2]
		r, err := l.Lines(LinesOptions{Stdout: true, Stderr: true, Follow: true, Tail: tail})
		assert.NilError(t, err)
		next := map[Stream]int{Stdout: -1, Stderr: -1}
		for {
			c, err := r.Next(t.Context())
			if errors.Is(err, io.EOF) {
				break
			}
			assert.NilError(t, err)
			var n int
			_, err = fmt.Sscanf(string(c.Data), map[Stream]string{Stdout: "out %d\n", Stderr: "err %d\n"}[c.Stream], &n)
			assert.NilError(t, err, "%q", c.Data)
			if next[c.Stream] >= 0 {
				assert.Equal(t, n, next[c.Stream])
			}
			next[c.Stream] = n + 1
		}
		for _, s := range kept { // the last lines may be all of one stream
			assert.Assert(t, next[s] == count || tail >= 0 && next[s] < 0, "%s: %d", s, next[s])
		}
	}
	<-wrote
}

// TestFollowOpenLine: a line that is being written when following begins is
// given whole, once, also after a tail of none.
func TestFollowOpenLine(t *testing.T) {
	l := open(t, t.TempDir())
	assert.NilError(t, l.BeginRun())
	put(t, l, Stdout, 1, "old\nhel")
	r, err := l.Lines(LinesOptions{Stdout: true, Follow: true})
	assert.NilError(t, err)
	put(t, l, Stdout, 2, "lo\nwor")
	assert.NilError(t, l.EndRun(t.Context()))
	assert.DeepEqual(t, read(t, r), []string{`1 stdout "hello\n"`, `2 stdout "wor"`})
}

// TestFollowUntil: following ends when the time has come, without a byte.
func TestFollowUntil(t *testing.T) {
	l := open(t, t.TempDir())
	assert.NilError(t, l.BeginRun())
	put(t, l, Stdout, 1, "a\nb")
	r, err := l.Lines(LinesOptions{Stdout: true, Follow: true, Tail: -1, Until: time.Now().Add(30 * time.Millisecond)})
	assert.NilError(t, err)
	assert.DeepEqual(t, read(t, r), []string{`1 stdout "a\n"`, `1 stdout "b"`})
}

// TestTailOfTheQuieter: the last lines of one stream are found behind many records of the other.
func TestTailOfTheQuieter(t *testing.T) {
	l := open(t, t.TempDir())
	put(t, l, Stderr, 1, "first\nsecond\n")
	for i := range 1000 {
		put(t, l, Stdout, int64(2+i), "x\n")
		if i == 300 {
			put(t, l, Stderr, int64(2+i), "third\nfo")
		}
	}
	put(t, l, Stderr, 2000, "urth\n")
	for i := range 1000 {
		put(t, l, Stdout, int64(2000+i), "y\n")
	}
	assert.Equal(t, chosen(t, l, LinesOptions{Stderr: true, Tail: 2}), "third\nfourth\n")
	assert.Equal(t, chosen(t, l, LinesOptions{Stderr: true, Tail: 3}), "second\nthird\nfourth\n")
	assert.Equal(t, chosen(t, l, LinesOptions{Stderr: true, Tail: 9}), "first\nsecond\nthird\nfourth\n")
}
