package sessions

import (
	"encoding/binary"
	"io"

	"lrd/internal/output"
)

// Writer sends chunks of a container's output to a client, raw or multiplexed, each with one Write to what is below.
type Writer struct {
	w           io.Writer
	multiplexed bool
	buf         []byte
}

// NewWriter returns a Writer to w. multiplexed puts every chunk into a frame that names its stream; raw
// writes its bytes alone.
func NewWriter(w io.Writer, multiplexed bool) *Writer {
	return &Writer{w: w, multiplexed: multiplexed}
}

// Write sends one chunk. Empty ones are left out.
func (w *Writer) Write(c output.Chunk) error {
	return w.WriteBytes(c.Stream, c.Data)
}

// WriteBytes sends data as a chunk of that stream.
func (w *Writer) WriteBytes(s output.Stream, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if !w.multiplexed {
		_, err := w.w.Write(data)
		return err
	}
	// The head of a frame: see the package's comment.
	w.buf = append(w.buf[:0], byte(s), 0, 0, 0)
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(data)))
	w.buf = append(w.buf, data...)
	_, err := w.w.Write(w.buf)
	return err
}
