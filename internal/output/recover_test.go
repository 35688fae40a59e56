package output

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func indexFile(dir string) string { return filepath.Join(dir, "index.0000000000000000") }

// edit changes a file of a closed store.
func edit(t testing.TB, path string, f func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(path, f(b), 0o600))
}

// signed makes a record's checksum right again.
func signed(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return b
}

func TestRecord(t *testing.T) {
	for _, r := range []record{
		{},
		{time: 1, flags: flagBegin | flagRunning},
		{time: -1, at: ends{1, maxOffset}, length: maxRecordLength, stream: Stderr, flags: flagMask},
		{time: math.MaxInt64, at: ends{5, 0}, length: 1, stream: Stdout, flags: flagRecovered},
		{time: 7, at: ends{5, 6}, note: noteSegment, value: 3, flags: flagRunning},
		{time: 7, at: ends{5, 6}, note: noteLeft},
		{time: 7, note: noteLostHigh, about: Stdout, value: 1},
		{time: 8, note: noteLostLow, about: Stderr, value: maxRecordLength, flags: flagRunning},
	} {
		var b [recordSize]byte
		r.encode(b[:])
		got, err := decode(b[:])
		assert.NilError(t, err)
		assert.Equal(t, got, r)
		for i := range b {
			b[i] ^= 0x10
			_, err := decode(b[:])
			assert.ErrorIs(t, err, errBadRecord, "byte %d", i)
			b[i] ^= 0x10
		}
	}
}

// TestRecover: what is left behind in each way is read as it should be.
func TestRecover(t *testing.T) {
	const size = recordSize
	for _, tc := range []struct {
		name           string
		damage         func(t *testing.T, dir string)
		stdout, stderr string
		records        int64 // 5 were written: created, begin, "one", "err", "two"
		recovered      int
	}{
		{"nothing", func(*testing.T, string) {}, "one\ntwo\n", "err\n", 5, 0},
		{"killed after a splice", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "stdout.0000000000000000"), func(b []byte) []byte { return append(b, "more"...) })
		}, "one\ntwo\nmore", "err\n", 6, 1},
		{"torn record", func(t *testing.T, dir string) {
			edit(t, indexFile(dir), func(b []byte) []byte { return b[:len(b)-1] })
		}, "one\ntwo\n", "err\n", 5, 1},
		{"index lost", func(t *testing.T, dir string) {
			edit(t, indexFile(dir), func([]byte) []byte { return nil })
		}, "one\ntwo\n", "err\n", 3, 2},
		{"index of zeros", func(t *testing.T, dir string) {
			edit(t, indexFile(dir), func(b []byte) []byte { return make([]byte, len(b)) })
		}, "one\ntwo\n", "err\n", 3, 2},
		{"zeros at the end", func(t *testing.T, dir string) {
			edit(t, indexFile(dir), func(b []byte) []byte { return append(b, make([]byte, 1000*size+7)...) })
		}, "one\ntwo\n", "err\n", 5, 0},
		{"data behind the index", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "stdout.0000000000000000"), func(b []byte) []byte { return b[:6] })
		}, "one\ntw", "err\n", 5, 1},
		{"data gone", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "stdout.0000000000000000"), func(b []byte) []byte { return nil })
		}, "", "err\n", 3, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir)
			assert.NilError(t, l.BeginRun())
			put(t, l, Stdout, 100, "one\n")
			put(t, l, Stderr, 200, "err\n")
			put(t, l, Stdout, 300, "two\n")
			assert.NilError(t, l.Close())
			tc.damage(t, dir)

			l = open(t, dir)
			assert.Equal(t, l.state().count, tc.records)
			stdout, stderr := raw(t, l.Reader(Position{}).Until(l.End()))
			assert.Equal(t, stdout, tc.stdout)
			assert.Equal(t, stderr, tc.stderr)
			c := cursor{v: &view{l: l}}
			recovered := 0
			st := l.state()
			for n := range st.count {
				r, err := c.get(&st, n, false)
				assert.NilError(t, err)
				if r.flags&flagRecovered != 0 {
					recovered++
					assert.Assert(t, time.Since(time.Unix(0, r.time)) < time.Minute, "the file's time")
				}
			}
			assert.Equal(t, recovered, tc.recovered)
			// And it goes on from there.
			put(t, l, Stdout, time.Now().UnixNano(), "after\n")
			stdout, _ = raw(t, l.Reader(Position{}).Until(l.End()))
			assert.Equal(t, stdout, tc.stdout+"after\n")
		})
	}
}

// TestRecoverMuch: more than one record can hold.
func TestRecoverMuch(t *testing.T) {
	dir := t.TempDir()
	assert.NilError(t, open(t, dir).Close())
	const much = 3*maxRecordLength + 5
	assert.NilError(t, os.Truncate(filepath.Join(dir, "stderr.0000000000000000"), much))
	l := open(t, dir)
	st := l.state()
	assert.Equal(t, st.count, int64(5))
	assert.Equal(t, st.ends, ends{0, much})
}

// TestLaterFormat: another version's index is left alone.
func TestLaterFormat(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	put(t, l, Stdout, 1, "x")
	assert.NilError(t, l.Close())
	edit(t, indexFile(dir), func(b []byte) []byte {
		last := b[len(b)-recordSize:]
		last[27] |= 2 << formatShift
		signed(last)
		return b
	})
	before, err := os.ReadFile(indexFile(dir))
	assert.NilError(t, err)
	_, err = Open(dir, Options{})
	assert.ErrorIs(t, err, ErrFormat)
	after, err := os.ReadFile(indexFile(dir))
	assert.NilError(t, err)
	assert.Assert(t, bytes.Equal(before, after))
}

// TestDamage: a wrong record in the middle. Reading comes up to it and says
// so; counting back takes what is behind it, and says so.
func TestDamage(t *testing.T) {
	for name, spoil := range map[string]func([]byte){
		"checksum": func(b []byte) { b[3]++ },
		"gap":      func(b []byte) { b[8]++; signed(b) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir)
			for i := range 100 {
				put(t, l, Stdout, int64(i), string(rune('0'+i%10))+"\n")
			}
			assert.NilError(t, l.Close())
			edit(t, indexFile(dir), func(b []byte) []byte {
				spoil(b[60*recordSize:][:recordSize])
				return b
			})
			l = open(t, dir)

			var damage *DamageError
			got := 0
			r := l.Reader(Position{})
			c, err := r.Next(t.Context())
			for ; err == nil; c, err = r.Next(t.Context()) {
				if !c.Notice {
					got++
				}
			}
			assert.Assert(t, errors.As(err, &damage), "%v", err)
			assert.Equal(t, damage.Record, int64(60))
			assert.Equal(t, got, 59)

			all, err := l.Lines(LinesOptions{Stdout: true, Tail: -1})
			assert.NilError(t, err)
			got, err = count(all)
			assert.Assert(t, errors.As(err, &damage), "%v", err)
			assert.Equal(t, got, 59)

			few, err := l.Lines(LinesOptions{Stdout: true, Tail: 10})
			assert.NilError(t, err)
			got, err = count(few)
			assert.Equal(t, err, io.EOF)
			assert.Equal(t, got, 10)

			many, err := l.Lines(LinesOptions{Stdout: true, Tail: 70})
			assert.NilError(t, err)
			got, err = count(many)
			assert.Assert(t, errors.As(err, &damage), "%v", err)
			assert.Equal(t, got, 40)
		})
	}
}

// count reads to the end, whatever it is.
func count(r *Lines) (n int, err error) {
	for {
		c, err := r.Next(context.Background())
		if err != nil {
			return n, err
		}
		if !c.Notice {
			n++
		}
	}
}

// FuzzIndex opens and reads stores of arbitrary bytes. fix makes the checksums
// right, so that what is behind them is reached.
func FuzzIndex(f *testing.F) {
	var good [3 * recordSize]byte
	(&record{time: 5}).encode(good[0:])
	(&record{time: 6, length: 4, stream: Stdout, flags: flagRunning}).encode(good[32:])
	(&record{time: 7, at: ends{4, 0}, length: 2, stream: Stderr, flags: flagEnd}).encode(good[64:])
	f.Add(good[:], []byte("abc\n"), []byte("x\n"), false, 3)
	f.Add(good[:70], []byte("abc\nmore"), []byte(""), true, -1)
	note := bytes.Clone(good[:])
	(&record{time: 7, at: ends{4, 0}, note: noteLostLow, about: Stderr, value: 9}).encode(note[64:])
	f.Add(note, []byte("abc\n"), []byte(""), false, 2)
	f.Add(bytes.Repeat([]byte{0xff}, 100), []byte(strings.Repeat("x", 200)), []byte("\n\n"), true, 1)
	f.Fuzz(func(t *testing.T, index, stdout, stderr []byte, fix bool, tail int) {
		dir := t.TempDir()
		index = bytes.Clone(index)
		for i := 0; fix && i+recordSize <= len(index); i += recordSize {
			index[i+27] &= 0x7f // no later format
			signed(index[i:][:recordSize])
		}
		assert.NilError(t, os.WriteFile(indexFile(dir), index, 0o600))
		assert.NilError(t, os.WriteFile(filepath.Join(dir, "stdout.0000000000000000"), stdout, 0o600))
		assert.NilError(t, os.WriteFile(filepath.Join(dir, "stderr.0000000000000000"), stderr, 0o600))
		if tail%3 == 1 && len(index) > 2*recordSize { // its end as a segment of its own
			cut := len(index) / 2 / recordSize
			assert.NilError(t, os.Truncate(indexFile(dir), int64(cut*recordSize)))
			assert.NilError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("index.%016x", cut)), index[cut*recordSize:], 0o600))
			assert.NilError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("stdout.%016x", len(stdout))), stderr, 0o600))
		}
		l, err := Open(dir, Options{MaxSize: 100, MaxFiles: 2})
		if errors.Is(err, ErrFormat) {
			return
		}
		assert.NilError(t, err)
		defer l.Close()
		l.lineBlock, l.scanBlock = 16, 4

		// The data is what it was, and all of it is covered.
		st := l.state()
		if tail%3 != 1 {
			assert.Equal(t, st.ends, ends{int64(len(stdout)), int64(len(stderr))})
		}

		given := 0
		r := l.Reader(Position{}).Until(l.End())
		var c Chunk
		for c, err = r.Next(t.Context()); err == nil; c, err = r.Next(t.Context()) {
			if !c.Notice {
				given += len(c.Data)
			}
		}
		var damage *DamageError
		assert.Assert(t, errors.Is(err, io.EOF) || errors.As(err, &damage), "%v", err)
		assert.Assert(t, given <= len(stdout)+2*len(stderr), "a byte was doubled")
		for _, o := range []LinesOptions{
			{Stdout: true, Stderr: true, Tail: -1},
			{Stdout: true, Stderr: true, Tail: max(tail, -1)},
			{Stderr: true, Tail: max(tail, -1), Since: time.Unix(0, 6)},
			{Stdout: true, Tail: 2, Until: time.Unix(0, 7), Timestamps: true},
			{Stdout: true, Stderr: true, From: &LinesPosition{Stdout: int64(tail), Stderr: 2}},
		} {
			lines, err := l.Lines(o)
			if err == nil {
				_, err = count(lines)
			}
			assert.Assert(t, errors.Is(err, io.EOF) || errors.As(err, &damage), "%v", err)
		}
	})
}
