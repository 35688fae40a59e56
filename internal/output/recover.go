package output

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// recover finds out where the store stands, and brings index and data in line:
// the data files are the truth, the index follows. Called by Open alone.
func (l *Log) recover() error {
	if err := l.findSegments(); err != nil {
		return err
	}
	written, err := l.openLast()
	if err != nil {
		return err
	}
	last, err := l.cutIndex()
	if err != nil {
		return err
	}
	if l.count == 0 {
		// The first record is a marker without meaning of its own: with it, no
		// Position but the zero value has Through 0 (see Position).
		if err := l.appendLocked(record{time: l.now().UnixNano()}); err != nil {
			return err
		}
	}
	// What was written to first comes first: all that can be known of the order.
	order := []*stream{&l.streams[0], &l.streams[1]}
	if written[1].Before(written[0]) {
		slices.Reverse(order)
	}
	for _, st := range order {
		// The honest time of these bytes: when the file was last written to. The
		// kernel's clock for that is coarse, so it may seem to lie before the last
		// record, which is known to be older.
		t := written[st.id.slot()]
		if t.UnixNano() < last.time {
			t = time.Unix(0, last.time)
		}
		if err := l.adopt(st, t); err != nil {
			return err
		}
	}
	l.used.Store(l.ends[0] - l.streams[0].base + l.ends[1] - l.streams[1].base + l.count*recordSize - l.indexBase)
	l.afterRecovery()
	return nil
}

// afterRecovery has tidy do what the process before has left undone, and keeps
// for a while what that one's readers may come back for.
func (l *Log) afterRecovery() {
	if l.maxFiles > 0 {
		back := &hold{yields: true, view: &view{l: l}}
		back.record.Store(l.segs[0].first())
		l.holds[back] = struct{}{}
		l.comeback = time.AfterFunc(comebackTime, back.release)
	}
	if len(l.segs) > 1 {
		l.tidy()
	}
}

// findSegments reads the directory into segs. What a process that died had not
// finished making is removed.
func (l *Log) findSegments() error {
	names, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	var starts [slots][]int64 // in ascending order, as ReadDir sorts and names have a fixed width
	for _, e := range names {
		if strings.HasSuffix(e.Name(), suffixNew) {
			if err := os.Remove(filepath.Join(l.dir, e.Name())); err != nil {
				return err
			}
			continue
		}
		slot, start, ok := parseName(e.Name())
		if n := len(starts[max(slot, 0)]); ok && (n == 0 || starts[slot][n-1] != start) {
			starts[slot] = append(starts[slot], start)
		}
	}
	if len(starts[indexSlot]) == 0 {
		starts[indexSlot] = []int64{0}
	}
	for i, first := range starts[indexSlot] {
		s := &segment{}
		s.begin[indexSlot] = first * recordSize
		s.parts[indexSlot] = newPart(l.dir, indexSlot, first*recordSize)
		at, err := l.placeOf(s.parts[indexSlot], i == 0 && first == 0)
		if err != nil {
			return err
		}
		for slot := range l.streams {
			s.begin[slot] = place(starts[slot], at[slot])
			s.parts[slot] = newPart(l.dir, slot, s.begin[slot])
			if i > 0 && l.segs[i-1].begin[slot] >= s.begin[slot] {
				s.begin[slot] = l.segs[i-1].begin[slot]
				s.parts[slot] = l.segs[i-1].parts[slot]
			}
		}
		l.segs = append(l.segs, s)
	}
	return l.settleFiles(starts)
}

// parseName reads the name of a file.
func parseName(name string) (slot int, start int64, ok bool) {
	kind, number, _ := strings.Cut(strings.TrimSuffix(name, suffixPacked), ".")
	slot = slices.Index(kinds[:], kind)
	start, err := strconv.ParseInt(number, 16, 64)
	return slot, start, slot >= 0 && err == nil && len(number) == 16 && start >= 0 && start <= maxOffset/recordSize
}

// placeOf returns where the streams stand at the beginning of an index file, by
// its first sound record; maxOffset when none is.
func (l *Log) placeOf(p *part, zero bool) (ends, error) {
	if zero {
		return ends{}, nil
	}
	f, err := os.Open(p.path())
	if err != nil {
		return ends{}, err
	}
	defer f.Close()
	var b [recordSize]byte
	for off := int64(0); ; off += recordSize {
		if _, err := f.ReadAt(b[:], off); err != nil {
			return ends{maxOffset, maxOffset}, nil // the file ends, or is as good as ended
		}
		r, err := decode(b[:])
		if errors.Is(err, ErrFormat) {
			return ends{}, fmt.Errorf("record %d: %w", p.start+off/recordSize, ErrFormat)
		}
		if err == nil {
			return r.at, nil
		}
	}
}

// place returns the last of starts that is not behind at: the file in which at
// is. Without one it is at itself.
func place(starts []int64, at int64) int64 {
	i, found := slices.BinarySearch(starts, at)
	if found {
		return at
	}
	if i == 0 {
		if at == maxOffset {
			return 0
		}
		return at
	}
	return starts[i-1]
}

// settleFiles removes data files that no segment has, if they are empty, and
// of those that are there twice, compressed and not, one.
func (l *Log) settleFiles(starts [slots][]int64) error {
	for slot := range l.streams {
		for _, start := range starts[slot] {
			p := newPart(l.dir, slot, start)
			fi, err := os.Stat(p.path())
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if k := l.segs.find(slot, start); k >= 0 && l.segs[k].begin[slot] == start {
				if err := p.settlePacked(fi.Size()); err != nil {
					return err
				}
			} else if fi.Size() > 0 {
				l.log.Warn("a file of output belongs to no index; it is left alone", slog.String("file", p.path()))
			} else if err := os.Remove(p.path()); err != nil {
				return err
			}
		}
	}
	return nil
}

// settlePacked decides between a file of that size and its compressed form.
func (p *part) settlePacked(size int64) error {
	f, err := os.Open(p.path() + suffixPacked)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if z, err := openPacked(f); err == nil && z.size == size {
		return os.Remove(p.path())
	}
	return os.Remove(p.path() + suffixPacked)
}

// unpackFile undoes the compressing of a part that is to be written to again:
// somebody has thrown away the index of the segment behind it.
func (p *part) unpackFile() error {
	if _, err := os.Stat(p.path()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.Open(p.path() + suffixPacked)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := openPacked(f)
	if errors.Is(err, errPacked) {
		return nil // there is nothing to go on from: what is missing is cut from the index
	}
	if err != nil {
		return err
	}
	out, err := os.OpenFile(p.path()+suffixNew, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(z.unpackTo(out), out.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(p.path()+suffixNew, p.path()), os.Remove(p.path()+suffixPacked))
}

// openLast opens the segment that is to be written, and says when its data
// files were last written to.
func (l *Log) openLast() (written [2]time.Time, err error) {
	last := l.segs[len(l.segs)-1]
	for slot, p := range last.parts {
		if err := p.unpackFile(); err != nil {
			return written, err
		}
		if err := p.create(); err != nil {
			return written, err
		}
		if slot == indexSlot {
			l.index, l.indexBase = p.file, last.begin[indexSlot]
			continue
		}
		st := &l.streams[slot]
		st.id = kept[slot]
		st.take(p, last.begin[slot])
		fi, err := p.file.Stat()
		if err != nil {
			return written, err
		}
		st.end = st.base + fi.Size()
		if st.end > maxOffset {
			return written, fmt.Errorf("%s is too large", fi.Name())
		}
		written[slot] = fi.ModTime()
	}
	return written, nil
}

// adopt records the bytes in st's file that no record covers.
func (l *Log) adopt(st *stream, t time.Time) error {
	missing := st.end - l.ends[st.id.slot()]
	if missing == 0 {
		return nil
	}
	if err := l.commit(st, func() time.Time { return t }, flagRecovered); err != nil {
		// A disk that is full, most likely. They are recorded as soon as that works.
		l.log.Warn("cannot record recovered output yet", slog.String("stream", st.id.String()), slog.Any("error", err))
		return nil
	}
	l.log.Info("recovered output that had not been recorded",
		slog.String("stream", st.id.String()), slog.Int64("bytes", missing))
	return nil
}

// cutIndex finds the last record that is whole and that the data files bear
// out, cuts what stands behind it and sets the Log's state by it.
func (l *Log) cutIndex() (last record, err error) {
	fi, err := l.index.Stat()
	if err != nil {
		return record{}, err
	}
	seg := l.segs[len(l.segs)-1]
	first := seg.first()
	records := first + fi.Size()/recordSize
	v := view{l: l}
	defer v.close()
	c := cursor{v: &v}
	n := records
	for ; n > first; n-- {
		r, err := c.get(&state{segs: l.segs, count: records}, n-1, true)
		if errors.Is(err, ErrFormat) {
			return record{}, fmt.Errorf("record %d: %w", n-1, ErrFormat)
		}
		var damaged *DamageError
		if err != nil && !errors.As(err, &damaged) {
			return record{}, err
		}
		if after := r.after(); err == nil && l.bearsOut(after) {
			last = r
			break
		}
	}
	l.count = n
	l.ends = last.after()
	l.running = last.flags&flagRunning != 0
	l.lineStarts = [2]bool{true, true}
	if n > first {
		if r, err := c.get(&state{segs: l.segs, count: records}, first, true); err == nil && r.note == noteSegment {
			l.lineStarts = [2]bool{r.value&1 != 0, r.value&2 != 0}
		}
	}
	if n == first {
		l.ends = seg.at() // the segment's own beginning has been lost
	}
	if fi.Size() != (n-first)*recordSize {
		if err := l.index.Truncate((n - first) * recordSize); err != nil {
			return record{}, err
		}
	}
	if cut := records - n; cut > 0 {
		// A process that dies leaves no more than a part of one record: this was
		// a machine that lost power, or somebody's hand.
		l.log.Warn("cut index records that the data does not bear out", slog.Int64("records", cut))
	}
	if n == first && first > 0 {
		return last, l.appendLocked(record{time: l.now().UnixNano(), note: noteSegment})
	}
	return last, nil
}

// bearsOut says whether the data files of the last segment have all that lies
// before at.
func (l *Log) bearsOut(at ends) bool {
	for i := range l.streams {
		if st := &l.streams[i]; at[i] > st.end || at[i] < st.base {
			return false
		}
	}
	return true
}
