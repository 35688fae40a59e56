package logdrivers

import (
	"bytes"
	"time"

	"lrd/internal/output"
)

// pieceSize is where a line is cut, as by Docker: a line of more bytes becomes
// several entries, and so does one of exactly so many, whose last piece is empty.
const pieceSize = 16 << 10

// An entry is one message to a log driver. It is good until the next one is made.
type entry struct {
	ordinal int64 // from 1
	stream  output.Stream
	time    time.Time // when the line's first byte arrived
	line    []byte    // without the newline
	more    bool      // the line goes on in the next entry of this stream, or was never ended
	piece   int       // number of the piece, from 1; 0 for a line that is in one piece
	first   int64     // ordinal of the line's first piece; it identifies the line
}

// A splitter makes entries of a stream's bytes. Its exported fields are saved.
type splitter struct {
	Time  int64 `json:"time,omitempty"`  // nanoseconds: of the line that has begun
	Piece int   `json:"piece,omitempty"` // pieces of it that were given
	First int64 `json:"first,omitempty"` // ordinal of the first of them

	stream output.Stream
	held   []byte // of the line that has begun, less than pieceSize; saved beside the others
}

// next takes bytes off data, up to and with the end of an entry, and fills e
// in. It returns how many it took, and whether there is an entry: if not, it took all and
// holds them. at is when the data arrived.
func (s *splitter) next(data []byte, at time.Time, e *entry) (n int, ok bool) {
	if len(s.held) == 0 && s.Piece == 0 {
		s.Time = at.UnixNano()
	}
	room := pieceSize - len(s.held)
	n = bytes.IndexByte(data[:min(len(data), room)], '\n')
	more := false
	var line []byte
	switch {
	case n >= 0:
		line, n = data[:n], n+1
	case len(data) >= room:
		line, n, more = data[:room], room, true
	default:
		s.held = append(s.held, data...)
		return len(data), false
	}
	if len(s.held) > 0 {
		s.held = append(s.held, line...)
		line = s.held
		s.held = s.held[:0]
	}
	s.entry(line, more, e)
	return n, true
}

// end fills e in with what is held when the run has ended; ok says that there is something.
func (s *splitter) end(e *entry) (ok bool) {
	if len(s.held) > 0 {
		line := s.held
		s.held = s.held[:0]
		s.entry(line, true, e)
		ok = true
	}
	s.Piece, s.First, s.Time = 0, 0, 0
	return ok
}

// entry makes an entry of a line or a piece of one. The ordinal is the caller's to set before.
func (s *splitter) entry(line []byte, more bool, e *entry) {
	e.stream, e.line, e.more, e.time = s.stream, line, more, time.Unix(0, s.Time)
	e.piece, e.first = 0, e.ordinal
	if more || s.Piece > 0 {
		s.Piece++
		if s.Piece == 1 {
			s.First = e.ordinal
		}
		e.piece, e.first = s.Piece, s.First
	}
	if !more {
		s.Piece, s.First = 0, 0
	}
}
