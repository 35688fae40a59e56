package output

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// Stream says where bytes come from. The numbers are those of the multiplexed
// stream's header (Docker Engine API, "Attach to a container").
type Stream uint8

// The streams. Nothing is kept of Stdin; it has its place for the API's sake.
const (
	Stdin  Stream = 0
	Stdout Stream = 1
	Stderr Stream = 2
)

// String returns the stream's usual name.
func (s Stream) String() string {
	switch s {
	case Stdin:
		return "stdin"
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	default:
		return "unknown"
	}
}

// ends is a place in both streams: how many bytes of each lie before it.
// Index with Stream.slot.
type ends [2]int64

// slot is the stream's place in arrays of what is kept per stream.
func (s Stream) slot() int { return int(s) - 1 }

// kept is every stream that has a data file, in the order in which lines
// without a newline are given at the end.
var kept = [2]Stream{Stdout, Stderr}

// A record is an entry of the index. On disk, little endian:
//
//	 0  int64   time, nanoseconds since 1970
//	 8  int64   bytes of stdout before this record
//	16  int64   bytes of stderr before this record
//	24  uint24  length: bytes of its stream that this record covers
//	27  uint8   bits 0-1 stream (0: a marker, without bytes)
//	            bit 2 recovered, bit 3 running
//	            bit 4 begin (marker) or away (data), bit 5 end
//	            bits 6-7 format, 0
//	28  uint32  CRC-32C of bytes 0 to 27
//
// A note says something about the output that no byte of it can. It covers no
// bytes; its format is 1, so that a reader that does not know notes says so:
//
//	24  uint24  value
//	27  uint8   bits 0-1 stream that it is about (0: both), bit 3 running
//	            bits 4-5 kind of note, bits 6-7 format, 1
//
// Both streams' places stand in every record, so any one of them is enough to
// go on from, forwards or backwards, and places can be looked up by bisection.
type record struct {
	time   int64
	at     ends
	length int64
	stream Stream // 0 for a marker or a note
	flags  uint8

	note  note // 0: none
	about Stream
	value int64 // of a note, 24 bits
}

// A note is what the kind of a note record says, plus one.
type note uint8

const (
	// noteSegment is the first record of a segment. Bits 0 and 1 of its value
	// say that stdout or stderr begins with a line here.
	noteSegment note = 1 + iota
	// noteLeft says that the drains were stopped in order, at its time.
	noteLeft
	// noteLostHigh and, right behind it, noteLostLow say how many bytes of a
	// stream were dropped here: 24 bits each. Their times are when the first and
	// the last were.
	noteLostHigh
	noteLostLow
)

const (
	recordSize = 32

	// maxRecordLength is what 24 bits hold.
	maxRecordLength = 1<<24 - 1

	// maxOffset keeps sums of offsets and lengths far from overflow.
	maxOffset = math.MaxInt64 / 4

	streamMask    = 1<<0 | 1<<1
	flagRecovered = 1 << 2    // found in the data file after a crash; the time is the file's
	flagRunning   = 1 << 3    // a run was going on
	flagBegin     = 1 << 4    // marker: a run begins
	flagAway      = flagBegin // data: was in the source before its drain was there
	flagEnd       = 1 << 5    // marker: the run is over
	flagMask      = flagRecovered | flagRunning | flagBegin | flagEnd
	noteShift     = 4
	noteMask      = 3
	formatShift   = 6
	formatNote    = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode writes r into b, which has room for recordSize bytes.
func (r *record) encode(b []byte) {
	_ = b[recordSize-1]
	binary.LittleEndian.PutUint64(b[0:], uint64(r.time))
	binary.LittleEndian.PutUint64(b[8:], uint64(r.at[0]))
	binary.LittleEndian.PutUint64(b[16:], uint64(r.at[1]))
	kind, word := uint32(r.stream)|uint32(r.flags), uint32(r.length)
	if r.note != 0 {
		kind = uint32(r.about) | uint32(r.flags&flagRunning) | uint32(r.note-1)<<noteShift | formatNote<<formatShift
		word = uint32(r.value) & maxRecordLength
	}
	binary.LittleEndian.PutUint32(b[24:], word|kind<<24)
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
}

// decode reads a record from b. What it returns is sound in itself: places are
// not negative and far from overflow, a marker is empty, data is not.
func decode(b []byte) (record, error) {
	_ = b[recordSize-1]
	if binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli) {
		return record{}, errBadRecord
	}
	word := binary.LittleEndian.Uint32(b[24:])
	kind := uint8(word >> 24)
	r := record{
		time: int64(binary.LittleEndian.Uint64(b[0:])),
		at:   ends{int64(binary.LittleEndian.Uint64(b[8:])), int64(binary.LittleEndian.Uint64(b[16:]))},
	}
	switch kind >> formatShift {
	case 0:
		r.length, r.stream, r.flags = int64(word&maxRecordLength), Stream(kind&streamMask), kind&flagMask
	case formatNote:
		r.value, r.about, r.flags = int64(word&maxRecordLength), Stream(kind&streamMask), kind&flagRunning
		r.note = note(kind>>noteShift&noteMask) + 1
	default:
		return record{}, ErrFormat
	}
	for _, at := range r.at {
		if at < 0 || at > maxOffset {
			return record{}, errBadRecord
		}
	}
	if r.stream > Stderr || r.about > Stderr || (r.stream == Stdin) != (r.length == 0) {
		return record{}, errBadRecord
	}
	return r, nil
}

// late says that the bytes of r are older than its time says.
func (r *record) late() bool {
	return r.stream != Stdin && r.flags&(flagAway|flagRecovered) != 0
}

// after is where the streams stand behind r.
func (r *record) after() ends {
	e := r.at
	if r.stream != Stdin {
		e[r.stream.slot()] += r.length
	}
	return e
}
