package sessions

import (
	"context"

	"lrd/internal/output"
)

// Source is a position in what a client follows.
type Source interface {
	// Next returns the next chunk, whose data is valid until the next call, waiting for it if need be; io.EOF
	// when there will be no more. With a ctx that is done it returns what is there already, and does not wait.
	Next(ctx context.Context) (output.Chunk, error)
}

// Placed is a Source from whose place another process can go on: a Source made for Cursor gives, from its first
// Next on, exactly the bytes that this one would give next, be it in other chunks.
type Placed interface {
	Source
	Cursor() Cursor
}

// A releaser is a Source for which something is kept until it is released: what it has not read.
type releaser interface{ release() }

// FromReader makes a Placed of a container's raw output.
func FromReader(r *output.Reader) Placed { return readerSource{r} }

type readerSource struct{ *output.Reader }

func (s readerSource) release() { _ = s.Close() }

func (s readerSource) Cursor() Cursor {
	p := s.Position()
	return Cursor{p.Record, p.Offset, p.Through}
}

// ReaderPosition is where a reader of raw output was.
func (c Cursor) ReaderPosition() output.Position {
	return output.Position{Record: c[0], Offset: c[1], Through: c[2]}
}

// FromLines makes a Placed of a container's lines.
func FromLines(l *output.Lines) Placed { return linesSource{l} }

type linesSource struct{ *output.Lines }

func (s linesSource) release() { _ = s.Close() }

func (s linesSource) Cursor() Cursor {
	p := s.Position()
	return Cursor{p.Stdout, p.Stderr, p.Through, p.Limit}
}

// LinesPosition is where lines were.
func (c Cursor) LinesPosition() *output.LinesPosition {
	return &output.LinesPosition{Stdout: c[0], Stderr: c[1], Through: c[2], Limit: c[3]}
}
