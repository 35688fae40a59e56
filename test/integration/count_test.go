//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"testing"
)

// count is how far a stream of numbered lines came, and what was wrong with it.
type count struct {
	last  int
	again int // how often it went back: repeats alone
	err   error
}

// countLines reads lines that are to be 1, 2, 3 and so on: whole, in order,
// none missing, none twice. It reads to the end in any case, so that who writes
// is not held up.
func countLines(r io.Reader) count { return countOn(r, false) }

// countRepeats is countLines, but what came last may come once more.
func countRepeats(r io.Reader) count { return countOn(r, true) }

func countOn(r io.Reader, repeats bool) (c count) {
	in := bufio.NewReaderSize(r, 1<<16)
	var want []byte
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return c
		}
		if n, err := strconv.Atoi(string(bytes.TrimSuffix(line, []byte("\n")))); repeats && err == nil && 0 < n && n <= c.last {
			c.last = n - 1
			c.again++
		}
		want = append(strconv.AppendInt(want[:0], int64(c.last+1), 10), '\n')
		if !bytes.Equal(line, want) {
			c.err = errors.Join(fmt.Errorf("after line %d comes %q", c.last, line[:min(len(line), 100)]), err)
			_, _ = io.Copy(io.Discard, in)
			return c
		}
		c.last++
	}
}

// checkCount is countLines for the test's own goroutine.
func checkCount(t *testing.T, r io.Reader) (last int) {
	t.Helper()
	c := countLines(r)
	if c.err != nil {
		t.Fatal(c.err)
	}
	return c.last
}
