package containers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"lrd/internal/fdstore"
	"lrd/internal/handover"
	"lrd/internal/output"
)

// Names of a container's descriptors in systemd's store are its ID, a dot, and one of these.
const (
	fdStdin    = handover.Stdin
	fdStdout   = handover.Stdout
	fdStderr   = handover.Stderr
	fdConsole  = handover.Console
	fdListener = handover.Listener
	fdVia      = handover.Via
)

func fdName(id, what string) string { return handover.Name(id, what) }

// fdNames are the descriptors that a run of a container has from its beginning.
// The console comes later: the runtime makes it.
func fdNames(tty, stdin bool) []string {
	if tty {
		return []string{fdListener, fdVia}
	}
	if stdin {
		return []string{fdStdin, fdStdout, fdStderr}
	}
	return []string{fdStdout, fdStderr}
}

// ends are the descriptors of one run, as they are made for a start or come
// back from systemd's store. Whoever has an ends owns what is in it.
type ends map[string]*os.File

func (e ends) close() {
	for what, f := range e {
		_ = f.Close()
		delete(e, what)
	}
}

// take removes a descriptor; the caller owns it. It is nil if there is none.
func (e ends) take(what string) *os.File {
	f := e[what]
	delete(e, what)
	return f
}

// items are all descriptors with the names to store them under.
func (e ends) items(id string) []fdstore.Item {
	var items []fdstore.Item
	for what, f := range e {
		items = append(items, fdstore.Item{Name: fdName(id, what), File: f})
	}
	return items
}

// makeEnds makes the FIFOs, or the console's listener, of a next run at the
// paths that pipe says. What an earlier run may have left is removed.
func makeEnds(pipe func(what string) string, tty, stdin bool, pipeSize int) (_ ends, err error) {
	e := ends{}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	for _, what := range fdNames(tty, stdin) {
		path := pipe(what)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if what == fdListener {
			e[what], err = listenConsole(path)
		} else if err = unix.Mkfifo(path, 0o600); err == nil {
			e[what], err = openFIFO(path, pipeSize)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot make %s: %w", path, err)
		}
	}
	return e, nil
}

// openFIFO opens our own end. O_RDWR: it never shows an end of file or breaks,
// whoever comes and goes at the other end. O_NONBLOCK: opening never waits.
func openFIFO(path string, size int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if size > 0 {
		// A smaller pipe than asked for does its work too, it holds less while nobody reads.
		_, _ = output.SetPipeSize(f, size)
	}
	return f, nil
}

// duplicate is a second descriptor of the same open description, with deadlines of its own.
func duplicate(f *os.File) (*os.File, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dupErr error
	if err := conn.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, fmt.Errorf("cannot duplicate %s: %w", f.Name(), dupErr)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// storedNames are all names that descriptors of a run may have in systemd's store.
func storedNames(id string) []string {
	var names []string
	for _, what := range []string{fdStdin, fdStdout, fdStderr, fdConsole, fdListener, fdVia} {
		names = append(names, fdName(id, what))
	}
	return names
}
