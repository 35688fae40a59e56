package output

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// recover finds out where the store stands, and brings index and data in line:
// the data files are the truth, the index follows. Called by Open alone.
func (l *Log) recover() error {
	var written [2]time.Time
	for i := range l.streams {
		st := &l.streams[i]
		fi, err := st.file.Stat()
		if err != nil {
			return err
		}
		st.end = fi.Size()
		if st.end > maxOffset {
			return fmt.Errorf("%s is too large", fi.Name())
		}
		written[i] = fi.ModTime()
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
	return nil
}

// adopt records the bytes in st's file that no record covers.
func (l *Log) adopt(st *stream, t time.Time) error {
	missing := st.end - l.ends[st.id.slot()]
	if missing == 0 {
		return nil
	}
	if err := l.commit(st, func() time.Time { return t }, flagRecovered); err != nil {
		return fmt.Errorf("cannot record recovered bytes: %w", err)
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
	records := fi.Size() / recordSize
	c := cursor{l: l}
	n := records
	for ; n > 0; n-- {
		r, err := c.get(n-1, records, true)
		if errors.Is(err, ErrFormat) {
			return record{}, fmt.Errorf("record %d: %w", n-1, ErrFormat)
		}
		var damaged *DamageError
		if err != nil && !errors.As(err, &damaged) {
			return record{}, err
		}
		if after := r.after(); err == nil && after[0] <= l.streams[0].end && after[1] <= l.streams[1].end {
			last = r
			break
		}
	}
	l.count = n
	l.ends = last.after()
	l.running = last.flags&flagRunning != 0
	if fi.Size() == n*recordSize {
		return last, nil
	}
	if err := l.index.Truncate(n * recordSize); err != nil {
		return record{}, err
	}
	if cut := records - n; cut > 0 {
		// A process that dies leaves no more than a part of one record: this was
		// a machine that lost power, or somebody's hand.
		l.log.Warn("cut index records that the data does not bear out",
			slog.Int64("records", cut))
	}
	return last, nil
}
