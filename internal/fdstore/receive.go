package fdstore

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// firstFD is SD_LISTEN_FDS_START: passed descriptors begin behind standard error.
const firstFD = 3

// received is set by the first Receive: the numbers in the environment are good for one reader only, a second one would wrap, and close,
// descriptors that are somebody else's by then.
var received atomic.Bool

// Set is what systemd passed to this process and nobody has taken yet. It owns these descriptors until they are taken.
type Set struct {
	mu    sync.Mutex
	files map[string][]*os.File // guarded by mu; no empty slices
}

// Receive takes over everything that systemd passed to this process: sockets of its socket units and what is in its descriptor store (sd_listen_fds(3)). It
// works once per process, later calls return [ErrReceived]; without anything passed the Set is empty. Call it before anything else opens or
// closes descriptors by number, and before a child is started.
//
// LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PIDFDID are removed from the environment in any case: children must not believe in them.
// All descriptors are CLOEXEC afterwards, their O_NONBLOCK is as it was.
func Receive() (*Set, error) {
	if !received.CompareAndSwap(false, true) {
		return nil, fmt.Errorf("cannot receive descriptors: %w", ErrReceived)
	}
	defer func() {
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
			os.Unsetenv(name)
		}
	}()
	return receive(os.Getenv, firstFD)
}

// receive is Receive with the environment and the number of the first descriptor as arguments.
func receive(getenv func(string) string, first int) (*Set, error) {
	s := &Set{files: make(map[string][]*os.File)}
	names, err := passedNames(getenv)
	if err != nil {
		return nil, fmt.Errorf("cannot receive descriptors: %w", err)
	}
	// CLOEXEC for all of them first: should one turn out to be bad, the others still must not leak.
	var errs []error
	for i, name := range names {
		if _, err := unix.FcntlInt(uintptr(first+i), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			errs = append(errs, fmt.Errorf("cannot receive descriptor %d (%s): %w", first+i, name, err))
			continue
		}
		// NewFile looks at O_NONBLOCK and chooses the poller by it. The file's name is its FDNAME, for error messages.
		s.files[name] = append(s.files[name], os.NewFile(uintptr(first+i), name))
	}
	if len(errs) > 0 {
		return nil, errors.Join(append(errs, s.Close())...)
	}
	return s, nil
}

// passedNames returns the name of each passed descriptor in the order of their numbers; nothing if this process is not the one that is meant.
func passedNames(getenv func(string) string) ([]string, error) {
	pid, count := getenv("LISTEN_PID"), getenv("LISTEN_FDS")
	if pid == "" || count == "" {
		return nil, nil
	}
	if p, err := strconv.Atoi(pid); err != nil {
		return nil, fmt.Errorf("LISTEN_PID=%q is not a number", pid)
	} else if p != os.Getpid() {
		return nil, nil // inherited from a parent that did not clean up
	}
	n, err := strconv.Atoi(count)
	// No process can have more descriptors than this; a larger number would make us allocate without bounds.
	if err != nil || n < 0 || n > 1<<20 {
		return nil, fmt.Errorf("LISTEN_FDS=%q is not a number of descriptors", count)
	}
	names := make([]string, n)
	list := getenv("LISTEN_FDNAMES")
	if list == "" {
		for i := range names {
			names[i] = "unknown" // what sd_listen_fds_with_names(3) says
		}
		return names, nil
	}
	names = strings.Split(list, ":")
	if len(names) != n {
		return nil, fmt.Errorf("LISTEN_FDNAMES has %d names for %d descriptors", len(names), n)
	}
	return names, nil
}

// Take removes the first file of that name from the Set and returns it; the caller owns it now. It is nil if there is none.
func (s *Set) Take(name string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.files[name]
	switch len(files) {
	case 0:
		return nil
	case 1:
		delete(s.files, name)
	default:
		s.files[name] = files[1:]
	}
	return files[0]
}

// Has says whether there is a file of that name.
func (s *Set) Has(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.files[name]) > 0
}

// Add puts a file that came another way among what systemd passed. The Set owns it from here on.
func (s *Set) Add(name string, f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = append(s.files[name], f)
}

// TakeAll removes all files of that name from the Set and returns them; the caller owns them now.
func (s *Set) TakeAll(name string) []*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.files[name]
	delete(s.files, name)
	return files
}

// Names returns the names of what is left, sorted, each once.
func (s *Set) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.files))
	for name := range s.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Close closes what nobody took. That does not remove it from the store: see [Store.Remove]. Closing twice is fine.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, files := range s.files {
		for _, f := range files {
			errs = append(errs, f.Close())
		}
	}
	clear(s.files)
	return errors.Join(errs...)
}
