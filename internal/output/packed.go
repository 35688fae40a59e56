package output

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A closed data file is compressed in the seekable format of zstd: each block
// of packBlock bytes is a frame of its own, and a last, skippable frame lists
// them. `zstdcat` reads it, and any byte of it is one block away.
//
//	frame …                     one for each packBlock bytes; the last is shorter
//	uint32 0x184D2A5E           skippable frame, little endian
//	uint32 8 × frames + 9       its length
//	{ uint32 compressed size, uint32 size } …
//	uint32 frames, uint8 0, uint32 0x8F92EAB1
//
// (facebook/zstd, contrib/seekable_format/zstd_seekable_compression_format.md)
const (
	packBlock = 256 << 10

	packSkippable = 0x184D2A5E
	packMagic     = 0x8F92EAB1
	packFooter    = 9
	packEntry     = 8
)

// The coders are shared by all Logs of the process, as each has buffers, and
// made when the first needs one. Both are safe for concurrent use, and have no
// goroutines of their own where they code one block at a time.
var (
	encoder = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
			zstd.WithWindowSize(packBlock), zstd.WithEncoderLevel(zstd.SpeedFastest))
	})
	decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(packBlock))
	})
)

var errPacked = errors.New("the compressed segment is damaged")

// pack compresses what from gives into to, until it ends or stop says so.
func pack(to io.Writer, from io.Reader, stop func() bool) error {
	enc, err := encoder()
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(to, packBlock)
	in, out := make([]byte, packBlock), make([]byte, 0, packBlock+packBlock/8)
	var table []byte
	frames := uint32(0)
	for {
		if stop() {
			return ErrClosed
		}
		n, err := io.ReadFull(from, in)
		if n == 0 {
			if !errors.Is(err, io.EOF) {
				return err
			}
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		out = enc.EncodeAll(in[:n], out[:0])
		table = binary.LittleEndian.AppendUint32(table, uint32(len(out)))
		table = binary.LittleEndian.AppendUint32(table, uint32(n))
		frames++
		if _, err := w.Write(out); err != nil {
			return err
		}
	}
	var head, foot []byte
	head = binary.LittleEndian.AppendUint32(head, packSkippable)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(table)+packFooter))
	foot = binary.LittleEndian.AppendUint32(foot, frames)
	foot = append(foot, 0)
	foot = binary.LittleEndian.AppendUint32(foot, packMagic)
	for _, b := range [][]byte{head, table, foot} {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return w.Flush()
}

// packed is a compressed data file.
type packed struct {
	file   *os.File
	starts []int64 // where each frame begins, and the last one ends
	size   int64   // of what was compressed
}

// openPacked reads the table of a compressed file. It takes file over when it works.
func openPacked(file *os.File) (*packed, error) {
	fi, err := file.Stat()
	if err != nil {
		return nil, err
	}
	var foot [packFooter]byte
	if _, err := file.ReadAt(foot[:], max(0, fi.Size()-packFooter)); err != nil {
		return nil, fmt.Errorf("%w: %w", errPacked, err)
	}
	frames := int64(binary.LittleEndian.Uint32(foot[0:]))
	table := frames * packEntry
	at := fi.Size() - packFooter - table
	if binary.LittleEndian.Uint32(foot[5:]) != packMagic || foot[4] != 0 || at < packEntry {
		return nil, errPacked
	}
	b := make([]byte, table)
	if _, err := file.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("%w: %w", errPacked, err)
	}
	z := &packed{file: file, starts: make([]int64, 1, frames+1)}
	for i := range frames {
		long := int64(binary.LittleEndian.Uint32(b[i*packEntry:]))
		n := int64(binary.LittleEndian.Uint32(b[i*packEntry+4:]))
		if n == 0 || n > packBlock || n < packBlock && i != frames-1 || long > 2*packBlock {
			return nil, errPacked
		}
		z.starts = append(z.starts, z.starts[i]+long)
		z.size += n
	}
	if z.starts[frames] != at-8 {
		return nil, errPacked
	}
	return z, nil
}

// unpackTo writes all of it to a file.
func (z *packed) unpackTo(w io.Writer) error {
	var u unpacker
	for n := range int64(len(z.starts) - 1) {
		if err := u.load(z, n); err != nil {
			return err
		}
		if _, err := w.Write(u.data); err != nil {
			return err
		}
	}
	return nil
}

// An unpacker reads packed files and remembers the last block of one.
type unpacker struct {
	of   *packed
	n    int64
	data []byte
	raw  []byte
}

// readAt is io.ReaderAt's, over what was compressed.
func (u *unpacker) readAt(z *packed, b []byte, off int64) error {
	for len(b) > 0 {
		n := off / packBlock
		if off < 0 || off >= z.size {
			return io.ErrUnexpectedEOF
		}
		if u.of != z || u.n != n {
			if err := u.load(z, n); err != nil {
				return err
			}
		}
		got := copy(b, u.data[off-n*packBlock:])
		b, off = b[got:], off+int64(got)
	}
	return nil
}

func (u *unpacker) load(z *packed, n int64) error {
	dec, err := decoder()
	if err != nil {
		return err
	}
	u.of = nil
	long := int(z.starts[n+1] - z.starts[n])
	if cap(u.raw) < long {
		u.raw = make([]byte, long)
	}
	if u.data == nil {
		u.data = make([]byte, 0, packBlock)
	}
	if _, err := z.file.ReadAt(u.raw[:long], z.starts[n]); err != nil {
		return err
	}
	data, err := dec.DecodeAll(u.raw[:long], u.data[:0])
	if err == nil && int64(len(data)) != min(packBlock, z.size-n*packBlock) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errPacked, err)
	}
	u.of, u.n, u.data = z, n, data
	return nil
}
