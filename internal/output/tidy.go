package output

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// compressing lets one goroutine of the process compress at a time: it costs a
// processor and some memory, and nobody waits for it.
var compressing = make(chan struct{}, 1)

// tidy removes segments that rotation has done with, and compresses closed
// ones, in a goroutine that ends when there is nothing left to do, at the
// latest with the Log: see end.
func (l *Log) tidy() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.tidying {
		l.tidyAgain = l.tidying
		return
	}
	l.tidying = true
	l.work.Go(l.tidyAll)
}

func (l *Log) tidyAll() {
	// The thread is this goroutine's alone, and ends with it: that is how it can
	// step behind everything else on the machine.
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
	for {
		err := l.tidyOnce()
		if err != nil && !errors.Is(err, ErrClosed) {
			l.log.Warn("cannot tidy up the output store; it is tried again at the next rotation", slog.Any("error", err))
		}
		l.mu.Lock()
		again := l.tidyAgain && !l.closed
		l.tidyAgain = false
		l.tidying = again
		l.mu.Unlock()
		if !again {
			return
		}
	}
}

func (l *Log) tidyOnce() error {
	l.mu.Lock()
	trash, segs := l.trash, l.segs
	l.trash = nil
	l.mu.Unlock()
	var errs []error
	for _, s := range trash {
		for slot, p := range s.parts {
			if p != segs[0].parts[slot] { // shared with one that stays
				errs = append(errs, p.remove())
			}
		}
	}
	if !l.compress {
		return errors.Join(errs...)
	}
	for i, s := range segs[:len(segs)-1] {
		for slot := range l.streams {
			if p := s.parts[slot]; p != segs[i+1].parts[slot] && p != segs[len(segs)-1].parts[slot] {
				errs = append(errs, l.pack(p))
			}
		}
	}
	return errors.Join(errs...)
}

// remove deletes the file, as it is or compressed. Who has it open reads on.
func (p *part) remove() error {
	for _, suffix := range []string{"", suffixPacked, suffixPacked + suffixNew} {
		if err := os.Remove(p.path() + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// pack compresses a part, unless it is compressed. A SIGKILL before the rename
// leaves a file that Open removes; after it, both, of which Open removes the
// one that is not compressed.
func (l *Log) pack(p *part) error {
	in, err := os.Open(p.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // done, or gone
	}
	if err != nil {
		return err
	}
	defer in.Close()
	select {
	case compressing <- struct{}{}:
		defer func() { <-compressing }()
	case <-l.leaving:
		return ErrClosed
	}
	made := p.path() + suffixPacked + suffixNew
	out, err := os.OpenFile(made, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = pack(out, in, func() bool {
		select {
		case <-l.leaving:
			return true
		default:
			return false
		}
	})
	if err == nil {
		err = out.Sync() // as the only copy, it must be there after a power cut as well
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(made, p.path()+suffixPacked)
	}
	if err != nil {
		_ = os.Remove(made) // else Open does
		return err
	}
	return os.Remove(p.path())
}
