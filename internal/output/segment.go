package output

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"sync"
)

// The kinds of files, by slot: of the two streams, as Stream.slot has it, and
// the index behind them.
const (
	indexSlot = 2
	slots     = 3
)

// kinds are the first parts of files' names, by slot.
var kinds = [slots]string{"stdout", "stderr", "index"}

// The ends of files' names: of one that is compressed, and of one that is
// being made, which means nothing to anybody after a crash.
const (
	suffixPacked = ".zst"
	suffixNew    = ".new"
)

// A segment is a stretch of a Log: the records from one number on, and the
// bytes that they cover. It never changes; where it ends, the next one begins.
type segment struct {
	begin [slots]int64 // where it begins: in bytes of each stream, and of the whole index
	parts [slots]*part
}

// first is the number of its first record.
func (s *segment) first() int64 { return s.begin[indexSlot] / recordSize }

// at is where the streams stand at its beginning.
func (s *segment) at() ends { return ends{s.begin[0], s.begin[1]} }

// segments are all that a Log has, the oldest first. There is at least one. It
// is replaced as a whole, so that who has one keeps a consistent view.
type segments []*segment

// find returns the number of the segment in which byte off of a kind of file
// is, or -1 when it is gone. Of several that begin there, it is the last: all
// others have nothing of that kind.
func (s segments) find(slot int, off int64) int {
	return sort.Search(len(s), func(i int) bool { return s[i].begin[slot] > off }) - 1
}

// A part is one file of a segment. Two segments share it when nothing came in
// its stream during the first of them.
//
// While somebody uses it, it stays open and can be read, also when the file has
// been deleted or compressed.
type part struct {
	dir, kind string
	start     int64 // what its name says

	mu     sync.Mutex // guards what follows
	users  int
	file   *os.File // not compressed
	packed *packed  // compressed
}

func newPart(dir string, slot int, start int64) *part {
	if slot == indexSlot {
		start /= recordSize
	}
	return &part{dir: dir, kind: kinds[slot], start: start}
}

// path is where it is while it is not compressed.
func (p *part) path() string { return filepath.Join(p.dir, fmt.Sprintf("%s.%016x", p.kind, p.start)) }

// create makes the file, or takes one that is there, for writing. The part is
// in use from then on. Not O_APPEND: splice refuses it, and every write here
// names its place.
func (p *part) create() error {
	f, err := os.OpenFile(p.path(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	p.file, p.users = f, 1
	return nil
}

// acquire opens the file, unless it is open.
func (p *part) acquire() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users == 0 {
		if err := p.openLocked(); err != nil {
			return err
		}
	}
	p.users++
	return nil
}

func (p *part) openLocked() error {
	// Compressing makes the new name first and then removes the old one, so that
	// one of them is there if the old one is looked for first.
	f, err := os.Open(p.path())
	if err == nil {
		p.file = f
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f, err = os.Open(p.path() + suffixPacked); err != nil {
		return err
	}
	if p.packed, err = openPacked(f); err != nil {
		_ = f.Close()
		return err
	}
	return nil
}

// release is acquire's other half.
func (p *part) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.users--; p.users > 0 {
		return
	}
	if p.file != nil {
		_ = p.file.Close() // written with write(2) alone: there is nothing left that could fail
	}
	if p.packed != nil {
		_ = p.packed.file.Close()
	}
	p.file, p.packed = nil, nil
}

// A view is how one reader has the files of a Log open: of each kind the one
// that it read last. The zero value, with l set, is ready.
type view struct {
	l *Log

	mu     sync.Mutex // guards parts against close, which may come from elsewhere
	parts  [slots]*part
	closed bool

	unpack [2]unpacker
}

// read fills b with the bytes of a kind of file from off on, all of which are
// published. errGone: some of them are not there any more.
func (v *view) read(s segments, slot int, b []byte, off int64) error {
	for len(b) > 0 {
		i := s.find(slot, off)
		if i < 0 {
			return errGone
		}
		n := int64(len(b))
		if i+1 < len(s) {
			n = min(n, s[i+1].begin[slot]-off)
		}
		if err := v.readPart(s[i].parts[slot], slot, b[:n], off-s[i].begin[slot]); err != nil {
			return err
		}
		b, off = b[n:], off+n
	}
	return nil
}

func (v *view) readPart(p *part, slot int, b []byte, off int64) error {
	if v.l.shut.Load() {
		return ErrClosed
	}
	if err := v.use(p, slot); err != nil {
		if errors.Is(err, fs.ErrNotExist) && v.l.gone(p, slot) {
			return errGone
		}
		return err
	}
	if p.packed != nil && slot != indexSlot {
		return v.unpack[slot].readAt(p.packed, b, off)
	}
	if p.file == nil {
		return errPacked // an index is never compressed
	}
	_, err := p.file.ReadAt(b, off)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// use makes p the part that is open for its slot.
func (v *view) use(p *part, slot int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.parts[slot] == p {
		return nil
	}
	if v.closed {
		return ErrClosed
	}
	if err := p.acquire(); err != nil {
		return err
	}
	if old := v.parts[slot]; old != nil {
		old.release()
	}
	v.parts[slot] = p
	return nil
}

// close lets go of the files. It is the reader's own goroutine that calls it,
// or nobody's: see hold.
func (v *view) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	for i, p := range v.parts {
		if p != nil {
			p.release()
			v.parts[i] = nil
		}
	}
}
