package events

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/events"
)

const (
	currentName  = "current.jsonl"
	previousName = "previous.jsonl"
)

// history is the two generations on disk. Its methods are called with Hub.mu held, except those of a snapshot.
type history struct {
	dir       string
	maxBytes  int64 // of one generation
	maxEvents int   // of one generation
	log       *slog.Logger

	current *os.File
	size    int64 // of current; everything before it is whole lines
	count   int   // lines of current
	failing bool  // the last append failed: said once, not for every event
}

func openHistory(dir string, o Options) (*history, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the directory of the event history: %w", err)
	}
	h := &history{dir: dir, maxBytes: max(o.MaxBytes/2, 1), maxEvents: max(o.MaxEvents/2, 1), log: o.Log}
	if err := h.open(); err != nil {
		return nil, err
	}
	return h, nil
}

// open opens the current generation and cuts a torn tail off.
func (h *history) open() error {
	f, err := os.OpenFile(filepath.Join(h.dir, currentName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the event history: %w", err)
	}
	whole, lines, err := wholeLines(f)
	if err == nil {
		err = f.Truncate(whole)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("cannot recover the event history %s: %w", f.Name(), err)
	}
	h.current, h.size, h.count = f, whole, lines
	return nil
}

// wholeLines returns where the last newline of f ends and how many there are.
func wholeLines(f *os.File) (end int64, lines int, err error) {
	var at int64
	buf := make([]byte, 64<<10)
	for {
		n, err := f.ReadAt(buf, at)
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			end = at + int64(i) + 1
			lines += bytes.Count(buf[:n], []byte{'\n'})
		}
		at += int64(n)
		if errors.Is(err, io.EOF) {
			return end, lines, nil
		}
		if err != nil {
			return 0, 0, err
		}
	}
}

// append adds one event. A failure costs the history this event, and is logged when it begins.
func (h *history) append(m events.Message) {
	err := h.write(m)
	if err != nil && !h.failing {
		h.log.Error("cannot keep an event in the history; subscribers are told all the same", "operation", "events", "error", err)
	}
	h.failing = err != nil
}

func (h *history) write(m events.Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if int64(len(line)) > h.maxBytes {
		return fmt.Errorf("an event of %d bytes is larger than half of the history's bound", len(line))
	}
	if h.size+int64(len(line)) > h.maxBytes || h.count >= h.maxEvents {
		if err := h.rotate(); err != nil {
			return err
		}
	}
	// WriteAt at the known size, not O_APPEND: what a short write left behind is overwritten by the next event.
	if _, err := h.current.WriteAt(line, h.size); err != nil {
		return errors.Join(err, h.current.Truncate(h.size))
	}
	h.size += int64(len(line))
	h.count++
	return nil
}

// rotate makes current the previous generation. Subscribers that still read the old ones hold them open.
func (h *history) rotate() error {
	path := filepath.Join(h.dir, currentName)
	// The new file is opened before the old one is let go, so that a failure leaves a working current generation.
	next, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("cannot begin a new generation of the event history: %w", err)
	}
	if err := os.Rename(path, filepath.Join(h.dir, previousName)); err != nil {
		next.Close()
		return fmt.Errorf("cannot rotate the event history: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		next.Close()
		return errors.Join(fmt.Errorf("cannot rotate the event history: %w", err), os.Rename(filepath.Join(h.dir, previousName), path))
	}
	h.current.Close()
	h.current, h.size, h.count = next, 0, 0
	return nil
}

func (h *history) close() error {
	if err := h.current.Close(); err != nil {
		return fmt.Errorf("cannot close the event history: %w", err)
	}
	return nil
}

// last is the event that was told last; zero if there is none that can be read.
func (h *history) last() events.Message {
	s := h.snapshot()
	defer s.close()
	if m, ok := s.lastOf(s.current, s.size); ok {
		return m
	}
	if s.previous == nil {
		return events.Message{}
	}
	info, err := s.previous.Stat()
	if err != nil {
		h.log.Error("cannot read the event history", "operation", "events", "error", err)
		return events.Message{}
	}
	m, _ := s.lastOf(s.previous, info.Size())
	return m
}

// twins are all events that there are.
func (h *history) twins() map[twin]struct{} {
	all := map[twin]struct{}{}
	h.snapshot().read(func(m events.Message) bool {
		all[twinOf(m)] = struct{}{}
		return false
	})
	return all
}

// lastOf is the last line of the first size bytes of f.
func (s *snapshot) lastOf(f *os.File, size int64) (m events.Message, ok bool) {
	if f == nil || size == 0 {
		return m, false
	}
	tail := make([]byte, min(size, 64<<10))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		s.log.Error("cannot read the event history", "operation", "events", "error", err)
		return m, false
	}
	tail = bytes.TrimSuffix(tail, []byte{'\n'})
	err := json.Unmarshal(tail[bytes.LastIndexByte(tail, '\n')+1:], &m)
	return m, err == nil
}

// snapshot is the history as it was at one moment: both files held open, and how much of the current one counts.
type snapshot struct {
	log               *slog.Logger
	previous, current *os.File // either may be nil
	size              int64
}

// snapshot opens the files anew, so that a reader has descriptors of its own and outlives a rotation.
func (h *history) snapshot() *snapshot {
	s := &snapshot{log: h.log, size: h.size}
	s.previous = h.reopen(previousName)
	s.current = h.reopen(currentName)
	return s
}

func (h *history) reopen(name string) *os.File {
	f, err := os.Open(filepath.Join(h.dir, name))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			h.log.Error("cannot read the event history", "operation", "events", "error", err)
		}
		return nil
	}
	return f
}

// read returns the wanted events in the order of telling. It closes the snapshot.
func (s *snapshot) read(wants func(events.Message) bool) []events.Message {
	var found []events.Message
	if s.previous != nil {
		found = s.scan(s.previous, s.previous, wants, found)
	}
	if s.current != nil {
		found = s.scan(s.current, io.LimitReader(s.current, s.size), wants, found)
	}
	s.close()
	return found
}

func (s *snapshot) scan(f *os.File, r io.Reader, wants func(events.Message) bool, found []events.Message) []events.Message {
	br := bufio.NewReaderSize(r, 64<<10)
	unreadable := 0
	for {
		line, err := br.ReadBytes('\n')
		if err == nil {
			var m events.Message
			if json.Unmarshal(line, &m) != nil {
				unreadable++
			} else if wants(m) {
				found = append(found, m)
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			s.log.Error("cannot read the event history", "operation", "events", "file", f.Name(), "error", err)
		}
		if unreadable > 0 {
			s.log.Warn("skipped unreadable lines of the event history", "operation", "events", "file", f.Name(), "lines", unreadable)
		}
		return found
	}
}

func (s *snapshot) close() {
	for _, f := range []*os.File{s.previous, s.current} {
		if f != nil {
			f.Close()
		}
	}
}
