package sessions

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"lrd/internal/output"
)

// A session's file. Everything is at a fixed place and is written in place, so that an update is a copy in
// memory (the directory is on a tmpfs) and a SIGKILL finds the old or the new record:
//
//	     0  record, recordSize bytes: what changes (encode)
//	  4096  the piece of output that is being sent, at most maxPiece bytes
//	128 Ki  input that was read and not yet written, at most maxInput bytes
//	256 Ki  the Description: length as a uint32, JSON
//
// A record lies within one page, and the kernel does not give up within a page.
const (
	outputPlace = 4 << 10
	inputPlace  = 128 << 10
	staticPlace = 256 << 10

	recordSize = 128
	// maxPiece bounds a piece of output with everything around it.
	maxPiece = 64 << 10
	// maxInput bounds what is read of the input and not yet written.
	maxInput = 64 << 10
	// maxDescription is more than net/http takes as the head of a request.
	maxDescription = 2 << 20

	recordMagic   = 0x5344524c // LRDS
	recordVersion = 1
)

// A Cursor is the place of a [Placed] source, in the source's own terms.
type Cursor [6]int64

// Description is what a session is; it does not change.
type Description struct {
	// Kind and Options are for the one who resumes the session.
	Kind    string          `json:"kind"`
	Options json.RawMessage `json:"options,omitempty"`
	// Container is the ID of the one that is followed; for the log. Empty if there is none.
	Container string  `json:"container,omitempty"`
	Framing   Framing `json:"framing"`
	// Follows is what a process that knows nothing of Kind can do for the client; nil if it can do nothing.
	Follows *Follows `json:"follows,omitempty"`
}

// Follows are Streams in terms of stores of output alone.
type Follows struct {
	// Log is the ID of the container, or of the command in one, whose output is read and whose input is written.
	Log string `json:"log"`
	// Raw reads it as it arrives, from an output.Position; Lines reads lines, from an output.LinesPosition. If neither
	// is set, nothing is read.
	Raw   bool                 `json:"raw,omitempty"`
	Lines *output.LinesOptions `json:"lines,omitempty"`
	// Stdin says that what the client types is input. The others are those of Streams.
	Stdin      bool   `json:"stdin,omitempty"`
	TTY        bool   `json:"tty,omitempty"`
	Stdout     bool   `json:"stdout,omitempty"`
	Stderr     bool   `json:"stderr,omitempty"`
	StdinOnce  bool   `json:"stdin-once,omitempty"`
	DetachKeys []byte `json:"detach-keys,omitempty"`
}

// Follow describes s, which reads and writes the output and the input of log, for a process that knows no more.
func (s Streams) Follow(log string, lines *output.LinesOptions) *Follows {
	return &Follows{
		Log: log, Raw: s.Output != nil && lines == nil, Lines: lines, Stdin: s.Stdin != nil,
		TTY: s.TTY, Stdout: s.Stdout, Stderr: s.Stderr, StdinOnce: s.StdinOnce, DetachKeys: s.DetachKeys,
	}
}

// Streams are those that f describes, but for Output and Stdin.
func (f *Follows) Streams() Streams {
	return Streams{TTY: f.TTY, Stdout: f.Stdout, Stderr: f.Stderr, StdinOnce: f.StdinOnce, DetachKeys: f.DetachKeys}
}

// Framing is the form in which output is sent.
type Framing struct {
	// Multiplexed puts everything into frames that name their stream; see the package's comment.
	Multiplexed bool `json:"multiplexed,omitempty"`
	// Chunked is HTTP's chunked transfer coding (RFC 9112, section 7.1).
	Chunked bool `json:"chunked,omitempty"`
}

// record is what changes of a session.
type record struct {
	// at is the place in the source behind the piece that is being sent, but for skip bytes of the item that
	// follows: these are sent too.
	at   Cursor
	skip int64
	// outLen bytes make up the piece; outSent of them are sent.
	outLen, outSent uint32
	// inLen bytes were read of the input; inSent of them are written.
	inLen, inSent uint32
	// held is how many bytes of the detach keys are typed.
	held uint32
	// over: nothing follows on the piece.
	over bool
	// inputEnded: the client's end of input was passed on.
	inputEnded bool
}

const (
	flagOver = 1 << iota
	flagInputEnded
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r *record) encode() []byte {
	b := make([]byte, 0, recordSize)
	var flags uint32
	if r.over {
		flags |= flagOver
	}
	if r.inputEnded {
		flags |= flagInputEnded
	}
	for _, v := range []uint32{recordMagic, recordVersion, flags, r.outLen, r.outSent, r.inLen, r.inSent, r.held} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, v := range append(r.at[:], r.skip) {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	b = b[:recordSize-4]
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// errState says that a session's file cannot be understood.
var errState = errors.New("the saved state of the session is damaged")

func decodeRecord(b []byte) (record, error) {
	if len(b) < recordSize {
		return record{}, fmt.Errorf("%w: it is too short", errState)
	}
	b = b[:recordSize]
	var word [8]uint32
	for i := range word {
		word[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	if word[0] == recordMagic && word[1] != recordVersion {
		return record{}, fmt.Errorf("the saved state of the session is of version %d, which this lrd does not know", word[1])
	}
	if word[0] != recordMagic || binary.LittleEndian.Uint32(b[recordSize-4:]) != crc32.Checksum(b[:recordSize-4], castagnoli) {
		return record{}, errState
	}
	r := record{
		over: word[2]&flagOver != 0, inputEnded: word[2]&flagInputEnded != 0,
		outLen: word[3], outSent: word[4], inLen: word[5], inSent: word[6], held: word[7],
	}
	for i := range r.at {
		r.at[i] = int64(binary.LittleEndian.Uint64(b[32+8*i:]))
	}
	r.skip = int64(binary.LittleEndian.Uint64(b[32+8*len(r.at):]))
	if r.outLen > maxPiece || r.outSent > r.outLen || r.inLen > maxInput || r.inSent > r.inLen || r.skip < 0 {
		return record{}, errState
	}
	return r, nil
}

// state is a session's file and what is in it. The two pumps of a session share it.
type state struct {
	// mu guards what follows. It is held over writes to the file, which is memory.
	mu   sync.Mutex
	rec  record
	out  []byte // the piece that is being sent
	in   []byte // input that was read
	file *os.File
	path string
	// lost is told once when the file cannot be written: the session goes on, and ends with the process.
	lost func(error)
}

// newState is the state of a session that begins; with a path it is kept there.
func newState(path string, d Description) (*state, error) {
	s := &state{}
	if path == "" {
		return s, nil
	}
	static, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	if len(static) > maxDescription {
		return nil, fmt.Errorf("its description is of %d bytes", len(static))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	s.file, s.path = f, path
	_, err = f.WriteAt(append(binary.LittleEndian.AppendUint32(nil, uint32(len(static))), static...), staticPlace)
	if err == nil {
		_, err = f.WriteAt(s.rec.encode(), 0)
	}
	if err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

// loadState opens the state of a session of an earlier process.
func loadState(path string) (_ *state, d Description, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, d, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	s := &state{file: f, path: path}
	if d, err = s.parse(f); err != nil {
		return nil, d, err
	}
	return s, d, nil
}

// parse reads a whole file.
func (s *state) parse(f io.ReaderAt) (d Description, err error) {
	b := make([]byte, recordSize)
	if err := readAt(f, b, 0); err != nil {
		return d, err
	}
	if s.rec, err = decodeRecord(b); err != nil {
		return d, err
	}
	s.out, s.in = make([]byte, s.rec.outLen), make([]byte, s.rec.inLen)
	size := make([]byte, 4)
	if err := errors.Join(readAt(f, s.out, outputPlace), readAt(f, s.in, inputPlace), readAt(f, size, staticPlace)); err != nil {
		return d, err
	}
	n := binary.LittleEndian.Uint32(size)
	if n > maxDescription {
		return d, errState
	}
	static := make([]byte, n)
	if err := readAt(f, static, staticPlace+4); err != nil {
		return d, err
	}
	if err := json.Unmarshal(static, &d); err != nil {
		return d, fmt.Errorf("%w: %w", errState, err)
	}
	return d, nil
}

func readAt(f io.ReaderAt, b []byte, at int64) error {
	if len(b) == 0 {
		return nil
	}
	if _, err := f.ReadAt(b, at); err != nil {
		return fmt.Errorf("%w: %w", errState, err)
	}
	return nil
}

// put writes to the file. A session whose file cannot be written (the tmpfs is full) must not be resumed from
// what the file says: it is removed at once.
func (s *state) put(b []byte, at int64) {
	if s.file == nil {
		return
	}
	if _, err := s.file.WriteAt(b, at); err != nil {
		err = errors.Join(err, s.remove())
		if s.lost != nil {
			s.lost(err)
		}
	}
}

// update changes the record.
func (s *state) update(change func(*record)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.rec)
	s.put(s.rec.encode(), 0)
}

// setOutput notes the next piece to send, before any of it is sent: where the source stands behind it, and
// whether it is the last. The piece before is sent by then, so that its place is free.
func (s *state) setOutput(piece []byte, at Cursor, skip int64, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = piece
	s.put(piece, outputPlace)
	s.rec.at, s.rec.skip, s.rec.over = at, skip, s.rec.over || over
	s.rec.outLen, s.rec.outSent = uint32(len(piece)), 0
	s.put(s.rec.encode(), 0)
}

// unsent is what is left to send of the piece.
func (s *state) unsent() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out[s.rec.outSent:]
}

// setInput notes input that was read, before it is written.
func (s *state) setInput(in []byte, held int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in = in
	s.put(in, inputPlace)
	s.rec.inLen, s.rec.inSent, s.rec.held = uint32(len(in)), 0, uint32(held)
	s.put(s.rec.encode(), 0)
}

// unwritten is what is left to write of the input that was read.
func (s *state) unwritten() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in[s.rec.inSent:]
}

func (s *state) get() record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec
}

// kept says whether another process could go on with the session.
func (s *state) kept() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file != nil
}

// close leaves the file for the next process.
func (s *state) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
}

// drop removes the file: the session is over.
func (s *state) drop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove()
}

func (s *state) remove() error {
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.file.Close(), os.Remove(s.path))
	s.file = nil
	return err
}
