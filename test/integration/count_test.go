//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"io"
	"strconv"
	"testing"
)

// checkCount reads lines that are to be 1, 2, 3 and so on: whole, in order,
// none missing, none twice. It gives back the last one.
func checkCount(t *testing.T, r io.Reader) (last int) {
	t.Helper()
	in := bufio.NewReaderSize(r, 1<<16)
	var want []byte
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return last
		}
		want = append(strconv.AppendInt(want[:0], int64(last+1), 10), '\n')
		if !bytes.Equal(line, want) {
			t.Fatalf("after line %d comes %q (%v)", last, line[:min(len(line), 100)], err)
		}
		last++
	}
}
