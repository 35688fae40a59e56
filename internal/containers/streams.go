package containers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"lrd/internal/output"
)

// streams are the standard streams of a container, or of a command executed in
// one: the store of what it writes and, while it runs, what the daemon has open.
//
//	makeEnds, or systemd's store ─► ends ─ connect ─► streams ─ disconnect ─► nothing is left
//	                                                         └─ leave ──────► systemd's store has them
//
// The drains, which carry the output into its store, own their descriptors;
// what is here is for input, for the size of the window, and for the next console.
type streams struct {
	id    string // what the names of the descriptors in systemd's store begin with, 64 hexadecimal digits
	dir   string // where its FIFOs and the console's socket are
	m     *Manager
	owner streamOwner

	// mu guards what follows. It is taken last; none of the owner's methods but openOutput is called with it held.
	mu       sync.Mutex
	log      *output.Log      // nil until it is needed for the first time
	stdin    *os.File         // write end, O_RDWR so that it never breaks; nil if there is none or the client has ended it
	console  *os.File         // master; nil without a TTY and while there is none
	consoles *output.Consoles // nil without a TTY
}

// streamOwner is whose streams they are: a Container or an Exec.
type streamOwner interface {
	// openOutput opens the store of what is written.
	openOutput() (*output.Log, error)
	// closingOutput is called before it is closed.
	closingOutput()
	// standIn is where what is written is kept, and how, by a process that stands in for the daemon.
	standIn() (dir string, o output.Options, err error)
	// consoleStored takes note on disk that systemd's store has a console.
	consoleStored()
	// inputClosed takes note on disk that the input has ended.
	inputClosed()
	logger(operation string) *slog.Logger
}

// path is where a FIFO or the console's socket is.
func (s *streams) path(what string) string { return filepath.Join(s.dir, what) }

// output is the store of what is written.
func (s *streams) output() (*output.Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		log, err := s.owner.openOutput()
		if err != nil {
			return nil, err
		}
		s.log = log
	}
	return s.log, nil
}

// opened is output if that has been needed yet, else nil.
func (s *streams) opened() *output.Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log
}

// forget gives the store of what is written to the caller, who removes it; nil if it is not open.
func (s *streams) forget() *output.Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	return log
}

// connect makes a run's descriptors work: drains carry its output into the
// store, input and console are at hand. It takes over what is in e.
func (s *streams) connect(e ends) (err error) {
	defer e.close()
	out, err := s.output()
	if err != nil {
		return err
	}
	for _, stream := range []output.Stream{output.Stdout, output.Stderr} {
		if f := e.take(stream.String()); f != nil {
			if err := out.Drain(stream, f, output.FIFO); err != nil {
				return err
			}
		}
	}
	if f := e.take(fdStdin); f != nil {
		s.mu.Lock()
		s.stdin = f
		s.mu.Unlock()
	}
	// A console that was there before comes first; one in the listener's queue is of a later run.
	if f := e.take(fdConsole); f != nil {
		if err := s.drainConsole(f, e.take(fdVia)); err != nil {
			return err
		}
	}
	if f := e.take(fdListener); f != nil {
		consoles, err := output.ServeConsoles(f, s.takeConsole)
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.consoles = consoles
		s.mu.Unlock()
	}
	return nil
}

// takeConsole takes in the console of a new run. It is stored before anything
// else: the container's user process has not been started yet.
func (s *streams) takeConsole(master *os.File) {
	log := s.owner.logger("console")
	if err := s.m.o.Descriptors.Replace(s.m.ctx, fdName(s.id, fdConsole), master); err != nil {
		log.Error("Cannot keep the console over a restart of lrd", "error", err)
	}
	s.owner.consoleStored()
	if err := s.drainConsole(master, nil); err != nil {
		log.Error("Cannot read the container's console", "error", err)
	}
}

// drainConsole makes master the console and begins to read it, by way of the
// pipe via, which is opened if it is nil. It takes both over.
func (s *streams) drainConsole(master, via *os.File) (err error) {
	defer func() {
		if err != nil && via != nil {
			_ = via.Close()
		}
	}()
	if via == nil {
		if via, err = openFIFO(s.path(fdVia), 0); err != nil {
			return errors.Join(err, master.Close())
		}
	}
	reading, err := duplicate(master)
	if err != nil {
		return errors.Join(err, master.Close())
	}
	s.mu.Lock()
	old := s.console
	s.console = master
	s.mu.Unlock()
	out, err := s.output()
	if err != nil {
		return errors.Join(err, reading.Close())
	}
	if old != nil {
		// The console of the run before has hung up and gives no more.
		if err := errors.Join(old.Close(), out.StopDrains()); err != nil {
			s.owner.logger("console").Warn("Cannot close the console of the run before", "error", err)
		}
	}
	pipe := via
	via = nil
	return out.DrainThrough(output.Stdout, reading, pipe)
}

// awaitConsole waits until the runtime's console has arrived, which it sends
// before it reports success. Without a TTY there is nothing to wait for.
func (s *streams) awaitConsole(ctx context.Context) error {
	s.mu.Lock()
	consoles := s.consoles
	s.mu.Unlock()
	if consoles == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	select {
	case <-consoles.First():
		return nil
	case <-consoles.Done():
		return errors.New("cannot get the console: its listener was closed")
	case <-ctx.Done():
		return fmt.Errorf("cannot get the console: %w", context.Cause(ctx))
	}
}

// hasConsole says whether the console is at hand.
func (s *streams) hasConsole() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.console != nil
}

// resize sets the size of the terminal, in characters; false if there is none.
func (s *streams) resize(height, width uint16) (ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.console == nil {
		return false, nil
	}
	conn, err := s.console.SyscallConn()
	if err != nil {
		return true, err
	}
	var setErr error
	err = conn.Control(func(fd uintptr) {
		setErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	})
	return true, errors.Join(err, setErr)
}

// openInput is a descriptor of the caller's own for the input: of the console,
// or of the FIFO. It is nil, without an error, while there is none.
func (s *streams) openInput() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.console != nil:
		return duplicate(s.console)
	case s.stdin != nil:
		return os.OpenFile(s.path(fdStdin), os.O_WRONLY|unix.O_NONBLOCK, 0)
	}
	return nil, nil
}

// closeInput ends the input: the process reads end of file. A console has no end.
func (s *streams) closeInput(ctx context.Context) error {
	s.mu.Lock()
	stdin := s.stdin
	s.stdin = nil
	s.mu.Unlock()
	if stdin == nil {
		return nil
	}
	// On disk first: a crash after the removal must not look like a lost descriptor.
	s.owner.inputClosed()
	return errors.Join(stdin.Close(), s.m.o.Descriptors.Remove(context.WithoutCancel(ctx), fdName(s.id, fdStdin)))
}

// drainRest takes over what a run has left in its pipes, and lets readers know that it is over.
func (s *streams) drainRest() {
	out := s.opened()
	if out == nil {
		return
	}
	if err := out.EndRun(s.m.ctx); err != nil && !errors.Is(err, output.ErrClosed) && s.m.ctx.Err() == nil {
		s.owner.logger("exit").Error("Cannot take over the last of the output", "error", err)
	}
}

// disconnect closes everything that the daemon has open of a run that is over,
// and takes it out of systemd's store. What was written can still be read.
func (s *streams) disconnect(ctx context.Context) error {
	err := s.closeEnds()
	if out := s.opened(); out != nil {
		err = errors.Join(err, out.StopDrains())
	}
	return errors.Join(err, s.m.o.Descriptors.Remove(ctx, storedNames(s.id)...))
}

// leave closes what the daemon has open of streams that go on without it.
func (s *streams) leave() error {
	var err error
	if out := s.opened(); out != nil {
		s.owner.closingOutput()
		err = out.Close()
	}
	return errors.Join(err, s.closeEnds())
}

// closeEnds closes the input, the console, and the console's listener.
func (s *streams) closeEnds() error {
	s.mu.Lock()
	stdin, console, consoles := s.stdin, s.console, s.consoles
	s.stdin, s.console, s.consoles = nil, nil, nil
	s.mu.Unlock()
	var errs []error
	if consoles != nil {
		errs = append(errs, consoles.Close()) // waits for one that is being taken in
	}
	for _, f := range []*os.File{stdin, console} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
