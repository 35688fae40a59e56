package output

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// minRecord is the least that a record may have, however little is left of its
// segment: a page.
const minRecord = 4096

// spliceFlags: never wait for the pipe, whatever its own flags say.
const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK

// step carries over one lot of bytes: it returns how many, errEmpty, or an
// error of the store. Everything that is known of bytes taken from the source
// is written down when it gives stream.mu back, and that is where Close stops.
// With patience, errLag says that a reader has to be waited for; without, the
// segment grows past its size.
func (s *source) step(fd int, patience bool) (int, error) {
	if s.l.full() {
		if err := s.l.rotate(); err != nil && (err != errLag || patience) { //nolint:errorlint // never wrapped
			return 0, err
		}
	}
	s.stream.mu.Lock()
	defer s.stream.mu.Unlock()
	if s.gone {
		return 0, errEmpty
	}
	n, err := s.take(fd)
	if err == errEmpty { //nolint:errorlint // never wrapped
		s.away = 0
	}
	return n, err
}

// spliceToFile moves bytes from a pipe to the data file and records them: a
// FIFO's way. The caller holds stream.mu.
func (s *source) spliceToFile(fd int) (int, error) {
	st := s.stream
	if err := s.l.ready(st); err != nil {
		return 0, err
	}
	most, flags := s.l.room(), uint8(0)
	if s.away > 0 {
		most, flags = min(most, s.away), flagAway
	}
	for {
		st.off = st.end - st.base
		n, err := unix.Splice(fd, nil, st.fd, &st.off, int(most), spliceFlags)
		switch {
		case n > 0:
			st.end += int64(n) //nolint:unconvert // an int where words have 32 bits
			if s.away > 0 {
				s.away -= int64(n) //nolint:unconvert // as above
			}
			return int(n), s.l.commit(st, s.l.now, flags)
		case err == nil || err == unix.EAGAIN:
			return 0, errEmpty
		case err == unix.EINTR:
		default:
			return 0, s.writeFailed("splice", err)
		}
	}
}

// ready writes down what there is still to be said of the stream before more
// comes; nearly always nothing. The caller holds st.mu.
func (l *Log) ready(st *stream) error {
	if err := l.commit(st, l.now, 0); err != nil || st.lost.bytes == 0 {
		return err
	}
	return l.noteLost(st)
}

// room is how many bytes the next record may have.
func (l *Log) room() int64 {
	if l.maxSize <= 0 {
		return spliceMax
	}
	return min(spliceMax, max(l.maxSize-l.used.Load(), minRecord))
}

// writeFailed makes sure that the data file ends where the bytes that were
// taken from the source end, since after a crash its size is the truth.
func (s *source) writeFailed(call string, err error) error {
	size := s.stream.end - s.stream.base
	fi, statErr := s.stream.file.Stat()
	if statErr == nil && fi.Size() > size {
		statErr = s.stream.file.Truncate(size)
	}
	return errors.Join(os.NewSyscallError(call, err), statErr)
}

// copyToFile reads once from a console and writes it out at once: in between,
// a SIGKILL loses it. The caller holds stream.mu.
func (s *source) copyToFile(fd int) (int, error) {
	if len(s.held) > 0 {
		if err := s.putHeld(); err != nil {
			return 0, err
		}
	}
	if err := s.l.ready(s.stream); err != nil {
		return 0, err
	}
	s.reserve()
	n, err := readSome(fd, s.buf)
	if err != nil {
		return 0, err
	}
	s.held = s.buf[:n]
	return n, s.putHeld()
}

// readSome reads from a console. EIO is what it gives while no slave is open.
func readSome(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case n > 0:
			return n, nil
		case err == unix.EINTR:
		case err == nil || err == unix.EAGAIN || err == unix.EIO:
			return 0, errEmpty
		default:
			return 0, os.NewSyscallError("read", err)
		}
	}
}

// putHeld writes what was read and records it. The caller holds stream.mu.
func (s *source) putHeld() error {
	st := s.stream
	for len(s.held) > 0 {
		n, err := unix.Pwrite(st.fd, s.held, st.end-st.base)
		switch {
		case n > 0:
			st.end += int64(n)
			s.held = s.held[n:]
		case err == unix.EINTR:
		case err == nil:
			return s.writeFailed("pwrite", unix.EIO)
		default:
			return s.writeFailed("pwrite", err)
		}
	}
	return s.l.commit(st, s.l.now, 0)
}

// reserve has the file system promise room for the next read before it is
// made, so that a disk that is full stops the console and not a write whose
// bytes are in memory only. Where it cannot promise, finish tries its best.
// The caller holds stream.mu.
func (s *source) reserve() {
	st := s.stream
	if st.reserved >= st.end+consoleMax {
		return
	}
	if unix.Fallocate(st.fd, unix.FALLOC_FL_KEEP_SIZE, st.end-st.base, consoleReserve) == nil {
		st.reserved = st.end + consoleReserve
	}
}

// spliceThrough empties the pipe into the file, or else fills it from the
// console first. The pipe is empty before it is filled, so that what the
// console gives always finds room. The caller holds stream.mu.
func (s *source) spliceThrough(fd int) (int, error) {
	n, err := s.spliceToFile(s.viaFD)
	if err != errEmpty { //nolint:errorlint // never wrapped
		return n, err
	}
	for {
		got, err := unix.Splice(fd, nil, s.viaFD, nil, consoleMax, spliceFlags)
		switch {
		case got > 0:
			return s.spliceToFile(s.viaFD)
		case err == unix.EINTR:
		case err == nil || err == unix.EAGAIN || err == unix.EIO:
			return 0, errEmpty
		default:
			return 0, os.NewSyscallError("splice", err)
		}
	}
}
