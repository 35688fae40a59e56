package output

import (
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dropPause is how often a source is looked at while the store cannot be
	// written and the container must go on: the longest that it is held back.
	dropPause = 2 * time.Millisecond

	// noteMost bounds how long what was dropped is counted in memory only.
	noteMost = time.Minute

	// probeRoom is how much room the disk must have before a drain that drops
	// goes back to writing.
	probeRoom = 64 << 10
)

// lost is what has been dropped of a stream and not been noted in the index.
type lost struct {
	bytes    int64
	from, to time.Time
	due      time.Time // when it is to be noted even though the disk is full
	wait     time.Duration
}

// failed deals with a store that cannot be written: it says so once, waits for
// RetryPause, and lets the container go on meanwhile if that is its choice.
func (s *source) failed(err error) {
	if !s.bad {
		s.bad = true
		what := "cannot write output, the container is held back until it can be"
		if s.l.drops {
			what = "cannot write output, what the container's pipe cannot hold is dropped until it can be"
		}
		s.l.log.Error(what, slog.String("stream", s.stream.id.String()), slog.Any("error", err))
		s.l.tell(Incident{Kind: IncidentFull, Stream: s.stream.id, Err: err})
	}
	retry := time.NewTimer(s.l.pause)
	defer retry.Stop()
	for {
		var look <-chan time.Time
		if s.l.drops {
			_ = s.conn.Control(func(fd uintptr) { s.relieve(int(fd), false) }) // an error is a source that is closed
			look = time.After(dropPause)
		}
		select {
		case <-s.quit:
			return
		case <-retry.C:
			return
		case <-look:
		}
	}
}

// works says that the store is written again.
func (s *source) works() {
	s.bad = false
	s.l.log.Info("output is written again", slog.String("stream", s.stream.id.String()))
	s.stream.mu.Lock()
	dropped := s.stream.dropped
	s.stream.dropped = Incident{}
	s.stream.mu.Unlock()
	if dropped.Bytes > 0 {
		s.l.log.Warn("output of the container was dropped", slog.String("stream", s.stream.id.String()),
			slog.Int64("bytes", dropped.Bytes), slog.Time("from", dropped.From), slog.Time("to", dropped.To))
		s.l.tell(dropped)
	}
	s.l.tell(Incident{Kind: IncidentResumed, Stream: s.stream.id})
}

func (l *Log) tell(i Incident) {
	if l.onIncident != nil {
		l.onIncident(i)
	}
}

// relieve drops what lies in the source, so that the container can go on: the
// oldest bytes of a pipe that is more than half full, or all that there is.
func (s *source) relieve(fd int, all bool) {
	s.stream.mu.Lock()
	defer s.stream.mu.Unlock()
	if s.gone {
		return
	}
	if s.buf != nil { // a console without a pipe: what was read waits in memory
		if len(s.held) == 0 {
			n, err := readSome(fd, s.buf)
			if err != nil {
				return
			}
			s.held = s.buf[:n]
		}
		s.stream.drop(len(s.held), s.l.now())
		s.held = nil
		return
	}
	if s.via != nil {
		for { // the console's own buffer is small
			if n, err := unix.Splice(fd, nil, s.viaFD, nil, consoleMax, spliceFlags); n <= 0 && err != unix.EINTR { // an errno
				break
			}
		}
		fd = s.viaFD
	}
	n := s.excess(fd)
	if all {
		n, _ = unix.IoctlGetInt(fd, unix.TIOCINQ)
	}
	for n > 0 {
		got, err := unix.Splice(fd, nil, s.l.null, nil, n, spliceFlags)
		if err == unix.EINTR {
			continue
		}
		if got <= 0 {
			return
		}
		s.stream.drop(int(got), s.l.now())
		n -= int(got)
	}
}

// excess is how much of a pipe has to go for its writer not to be held back.
func (s *source) excess(fd int) int {
	have, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return 0
	}
	size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return 0
	}
	// A pipe is full when its pages are used up, however little is in each.
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		if _, err = unix.Poll(p, 0); err != unix.EINTR { // an errno
			break
		}
	}
	if stuffed := err == nil && p[0].Revents&unix.POLLOUT == 0; have <= size/2 && !stuffed {
		return 0
	}
	return max(have-size/4, have/2)
}

// drop counts n bytes that are not kept. The caller holds st.mu.
func (st *stream) drop(n int, now time.Time) {
	if st.lost.bytes == 0 {
		st.lost.from = now
		st.lost.due = now.Add(st.lost.wait)
	}
	st.lost.bytes += int64(n)
	st.lost.to = now
	st.droppedBytes.Add(int64(n))
}

// noteLost writes down what was dropped before anything that comes after it
// is: when there is room again, and now and then also while there is none, as
// the index has room for that. The caller holds st.mu.
func (l *Log) noteLost(st *stream) error {
	room := unix.Fallocate(st.fd, unix.FALLOC_FL_KEEP_SIZE, st.end-st.base, probeRoom)
	full := room == unix.ENOSPC || room == unix.EDQUOT || room == unix.EFBIG
	if full && st.lost.to.Before(st.lost.due) {
		return os.NewSyscallError("fallocate", room)
	}
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	r := record{time: st.lost.from.UnixNano(), note: noteLostHigh, about: st.id, value: st.lost.bytes >> 24}
	if l.running {
		r.flags = flagRunning
	}
	// Both or none, for readers: the second record's place is free for sure when the first's is.
	if err := l.appendLocked(r); err != nil {
		return err
	}
	r.time, r.note, r.value = st.lost.to.UnixNano(), noteLostLow, st.lost.bytes&maxRecordLength
	if err := l.appendLocked(r); err != nil {
		return err
	}
	if st.dropped.Bytes == 0 {
		st.dropped = Incident{Kind: IncidentDropped, Stream: st.id, From: st.lost.from}
	}
	st.dropped.Bytes += st.lost.bytes
	st.dropped.To = st.lost.to
	wait := time.Duration(0)
	if full {
		wait = min(max(time.Second, 2*st.lost.wait), noteMost)
	}
	st.lost = lost{wait: wait}
	if full {
		return os.NewSyscallError("fallocate", room)
	}
	return nil
}
