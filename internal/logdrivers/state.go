package logdrivers

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"lrd/internal/output"
)

// A state is how far a forwarder has come. On disk, two slots of slotSize
// bytes; the valid one with the higher number counts. Each, little endian:
//
//	 0  uint64  number of the writing
//	 8  uint32  length of the JSON
//	12  uint32  CRC-32C of everything else
//	16  JSON of state, then the bytes held of standard output and of standard error
type state struct {
	Version  int             `json:"version"`
	Driver   string          `json:"driver"`
	Position output.Position `json:"position"`
	Ordinal  int64           `json:"ordinal"`         // of the last entry delivered
	Sending  bool            `json:"sending"`         // more may have been delivered
	Done     bool            `json:"done"`            // the run is over and everything is delivered
	Held     [2]int          `json:"held"`            // how many bytes are held of each stream
	Streams  [2]splitter     `json:"streams"`         //
	Target   json.RawMessage `json:"target,omitzero"` // the target's own
}

const (
	stateVersion = 1
	slotHeader   = 16
	// slotSize has room for two streams' beginnings of lines, and for the rest.
	slotSize = 64 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A stateFile is where a state is kept.
type stateFile struct {
	f      *os.File
	number uint64 // of the last writing
	buf    []byte
}

// openState opens the file at path, making it if it is not there, and reads the last state; a new one has
// Version 0.
func openState(path string) (*stateFile, state, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, state{}, fmt.Errorf("cannot open the forwarder's state: %w", err)
	}
	sf := &stateFile{f: f}
	st, err := sf.load()
	if err != nil {
		_ = f.Close()
		return nil, state{}, fmt.Errorf("cannot read the forwarder's state %s: %w", path, err)
	}
	return sf, st, nil
}

// readState reads the state at path without opening it for writing. Without a file it is the zero state.
func readState(path string) (state, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, err
	}
	defer f.Close() // it was only read
	return (&stateFile{f: f}).load()
}

func (s *stateFile) load() (last state, err error) {
	buf := make([]byte, slotSize)
	for slot := range int64(2) {
		n, err := s.f.ReadAt(buf, slot*slotSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return state{}, err
		}
		number, st, ok := parseSlot(buf[:n])
		if !ok || number <= s.number {
			continue
		}
		if st.Version > stateVersion {
			return state{}, fmt.Errorf("it is of version %d and this lrd reads up to %d", st.Version, stateVersion)
		}
		s.number, last = number, st
	}
	return last, nil
}

// parseSlot reads a slot; ok is false for one that was never written, or not to its end.
func parseSlot(b []byte) (number uint64, st state, ok bool) {
	if len(b) < slotHeader {
		return 0, state{}, false
	}
	number = binary.LittleEndian.Uint64(b)
	length := binary.LittleEndian.Uint32(b[8:])
	if number == 0 || int64(length) > int64(len(b)-slotHeader) {
		return 0, state{}, false
	}
	rest := b[slotHeader+length:]
	if json.Unmarshal(b[slotHeader:][:length], &st) != nil {
		return 0, state{}, false
	}
	for _, n := range st.Held {
		if n < 0 || n >= pieceSize {
			return 0, state{}, false
		}
	}
	held := st.Held[0] + st.Held[1]
	if held > len(rest) || checksum(b[:slotHeader+int(length)+held]) != binary.LittleEndian.Uint32(b[12:]) {
		return 0, state{}, false
	}
	for i, n := range st.Held {
		st.Streams[i].held = append([]byte(nil), rest[:n]...)
		rest = rest[n:]
	}
	return number, st, true
}

// checksum is that of a slot, without the place where it stands.
func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:12], castagnoli), castagnoli, b[slotHeader:])
}

// save writes the state over the older of the two.
func (s *stateFile) save(st *state) error {
	for i := range st.Streams {
		st.Held[i] = len(st.Streams[i].held)
	}
	text, err := json.Marshal(st)
	if err != nil {
		return err
	}
	b := append(s.buf[:0], make([]byte, slotHeader)...)
	b = append(b, text...)
	for i := range st.Streams {
		b = append(b, st.Streams[i].held...)
	}
	if len(b) > slotSize {
		return fmt.Errorf("the forwarder's state is too large: %d bytes", len(b))
	}
	binary.LittleEndian.PutUint64(b, s.number+1)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(text)))
	binary.LittleEndian.PutUint32(b[12:], checksum(b))
	s.buf = b
	if _, err := s.f.WriteAt(b, int64((s.number+1)%2)*slotSize); err != nil {
		return fmt.Errorf("cannot save the forwarder's state: %w", err)
	}
	s.number++
	return nil
}

func (s *stateFile) close() error { return s.f.Close() }
