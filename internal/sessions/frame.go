package sessions

import (
	"encoding/binary"
	"fmt"

	"lrd/internal/output"
)

const (
	frameHead  = 8 // see the package's comment
	chunkHead  = len("0000\r\n")
	chunkTail  = len("\r\n")
	lastChunk  = "0\r\n\r\n"
	worthwhile = 512 // less room than this is left empty when what is to be sent does not fit
)

// piece is what is sent next, with everything around it. One piece is one write(2) where the kernel takes it as
// a whole, one chunk of HTTP, and any number of whole frames: wherever a session is interrupted between two
// pieces, the client's stream is well formed.
type piece struct {
	framing Framing
	max     int
	whole   bool // it is one chunk of the source's, as large as that is
	b       []byte
}

func newPiece(f Framing, limit int) *piece {
	p := &piece{framing: f, max: limit}
	p.reset()
	return p
}

// reset begins the next piece, in memory of its own.
func (p *piece) reset() {
	p.b = make([]byte, 0, 512)
	if p.framing.Chunked {
		p.b = append(p.b, "0000\r\n"...)
	}
}

func (p *piece) empty() bool {
	return len(p.b) == 0 || p.framing.Chunked && len(p.b) == chunkHead
}

// add takes as much of data as there is room for, and returns how much.
func (p *piece) add(s output.Stream, data []byte) int {
	if p.whole && !p.empty() {
		return 0
	}
	room := p.max - len(p.b)
	if p.whole {
		room = maxPiece - len(p.b)
	}
	if p.framing.Chunked {
		room -= chunkTail
	}
	if p.framing.Multiplexed {
		room -= frameHead
	}
	if room < len(data) && room < worthwhile && !p.empty() {
		return 0
	}
	n := min(len(data), max(room, 1))
	if p.framing.Multiplexed {
		p.b = append(p.b, byte(s), 0, 0, 0)
		p.b = binary.BigEndian.AppendUint32(p.b, uint32(n))
	}
	p.b = append(p.b, data[:n]...)
	return n
}

// bytes is the piece, whole.
func (p *piece) bytes() []byte {
	if p.framing.Chunked {
		copy(p.b, fmt.Sprintf("%04x", len(p.b)-chunkHead))
		p.b = append(p.b, "\r\n"...)
	}
	return p.b
}

// end is what follows on the last piece.
func (f Framing) end() []byte {
	if f.Chunked {
		return []byte(lastChunk)
	}
	return nil
}
