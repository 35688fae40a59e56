package output

import (
	"bytes"
	"time"
)

// lineStream is one stream on its way into lines.
type lineStream struct {
	chosen  bool
	pos     int64  // the next byte to look at
	held    []byte // the line so far, the bytes before pos
	given   bool   // held was given: it is empty from the next look on
	time    int64  // of the first byte held
	after   time.Time
	newline bool // there was a newline in this lineBlock
}

// chunk is b as a line of the stream.
func (ls *lineStream) chunk(s Stream, b []byte) Chunk {
	return Chunk{Stream: s, Time: time.Unix(0, ls.time), After: ls.after, Data: b}
}

// batch returns how much of b is whole lines of one block; 0: none.
func (ls *lineStream) batch(b []byte, block int64) int {
	left := block - ls.pos%block
	if int64(len(b)) > left {
		b = b[:left]
	}
	return bytes.LastIndexByte(b, '\n') + 1
}

// passed moves on by n bytes that end with a newline.
func (ls *lineStream) passed(n, block int64) {
	ls.pos += n
	ls.newline = ls.pos%block != 0
}

// look goes over b to the next end of a line, or of a block. It returns how
// far it came and whether a line ends there.
func (ls *lineStream) look(b []byte, block int64) (n int, ends bool) {
	left := block - ls.pos%block
	if int64(len(b)) > left {
		b = b[:left]
	}
	n = len(b)
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		n, ends = i+1, true
		ls.newline = true
	}
	ls.pos += int64(n)
	if ls.pos%block == 0 {
		ends = ends || !ls.newline
		ls.newline = false
	}
	return n, ends
}
