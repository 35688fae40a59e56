package fdstore

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/errdefs"
)

// Store is this process's way to the descriptor store of its own service. The unit needs FileDescriptorStoreMax=, and NotifyAccess= must include
// this process (with the former set, main is the default).
type Store struct {
	notify *notifier
	count  func(context.Context) (uint32, error) // nil: nothing is verified

	// mu makes changes of the store one after the other, so that a difference between two counts is the work of one change.
	mu sync.Mutex
	// unsettled is set while there may be messages on their way that no barrier has confirmed: a change was cut short by its context. The
	// next one then begins with a barrier, or it would count what comes late as its own. Guarded by mu.
	unsettled bool
}

// Item is a descriptor and the name to store it under.
type Item struct {
	Name string
	File *os.File
}

// Open returns the Store of the service that this process is the main process of. It makes a socket and sends nothing. Without systemd around
// ($NOTIFY_SOCKET unset) the error's kind is errdefs.ErrUnavailable. Call Close when done.
//
// count reads the unit's property NFileDescriptorStore, which only PID 1 knows (over D-Bus). With a nil count, a Put proves that systemd has
// processed the descriptors, not that it kept them.
func Open(count func(context.Context) (uint32, error)) (*Store, error) {
	n, err := openNotifier(os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return nil, err
	}
	return &Store{notify: n, count: count}, nil
}

// Close releases the socket; what is stored stays stored.
func (s *Store) Close() error { return s.notify.Close() }

// Put stores files under name, next to what is already there under it. The files stay the caller's. It returns when systemd has processed them, and
// an error that wraps [ErrRefused] if it did not keep all of them: some may be stored then, Remove clears that up. Other errors: [ErrName], the
// context's, and those of the notification socket and of count.
func (s *Store) Put(ctx context.Context, name string, files ...*os.File) error {
	items := make([]Item, len(files))
	for i, f := range files {
		items[i] = Item{name, f}
	}
	return s.PutAll(ctx, items)
}

// PutAll is Put for descriptors of several names, with one count, and at most one barrier, for all of them.
func (s *Store) PutAll(ctx context.Context, items []Item) error {
	if err := checkItems(items); err != nil {
		return fmt.Errorf("cannot store descriptors: %w", err)
	}
	if len(items) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.putLocked(ctx, items); err != nil {
		return fmt.Errorf("cannot store %s: %w", describe(items), err)
	}
	return nil
}

// Remove removes everything that is stored under the names, in one go; a name that is not there is fine. It returns when systemd has processed it.
func (s *Store) Remove(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	for _, name := range names {
		if err := ValidName(name); err != nil {
			return fmt.Errorf("cannot remove a stored descriptor: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.removeLocked(ctx, names); err != nil {
		return fmt.Errorf("cannot remove stored descriptors (%s): %w", short(names), err)
	}
	return nil
}

// Replace stores file as the only one of that name. It is a removal followed by a Put: systemd would skip a descriptor silently whose open file
// description it already has, be it under another name. Between the two the name is not in the store; a process killed just then comes back without it.
func (s *Store) Replace(ctx context.Context, name string, file *os.File) error {
	items := []Item{{name, file}}
	if err := checkItems(items); err != nil {
		return fmt.Errorf("cannot replace a stored descriptor: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.removeLocked(ctx, []string{name})
	if err == nil {
		err = s.putLocked(ctx, items)
	}
	if err != nil {
		return fmt.Errorf("cannot replace the stored descriptor %s: %w", name, err)
	}
	return nil
}

// Barrier returns nil when systemd has processed everything that this Store sent before. If ctx has no deadline, half a minute is one; a deadline that
// passes is an error.
func (s *Store) Barrier(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.settleLocked(ctx); err != nil {
		return fmt.Errorf("cannot wait for systemd to process notifications: %w", err)
	}
	return nil
}

// Count returns how many descriptors systemd holds for this service now: everything, not only what this process has put there.
func (s *Store) Count(ctx context.Context) (stored uint32, err error) {
	if s.count == nil {
		return 0, fmt.Errorf("cannot count stored descriptors: %w",
			&kindError{"there is no connection to systemd to ask", errdefs.ErrNotImplemented})
	}
	stored, err = s.count(ctx)
	if err != nil {
		return 0, fmt.Errorf("cannot count stored descriptors: %w", err)
	}
	return stored, nil
}

func (s *Store) putLocked(ctx context.Context, items []Item) error {
	if s.unsettled {
		if err := s.settleLocked(ctx); err != nil {
			return err
		}
	}
	var before uint32
	var err error
	if s.count != nil {
		if before, err = s.Count(ctx); err != nil {
			return err
		}
	}
	s.unsettled = true
	for batch := range batches(items) {
		files := make([]*os.File, len(batch))
		for i, item := range batch {
			files[i] = item.File
		}
		if err := s.notify.send(ctx, "FDSTORE=1\nFDPOLL=0\nFDNAME="+batch[0].Name, files...); err != nil {
			return err
		}
	}
	if s.count == nil {
		return s.settleLocked(ctx)
	}
	// PID 1 looks at notifications first: when it answers, it has mostly come to all of them, and a count that says so needs no barrier. For
	// each barrier, systemd 257 makes a process that closes its pipe.
	after, err := s.Count(ctx)
	if err != nil {
		return err
	}
	if int64(after)-int64(before) == int64(len(items)) {
		s.unsettled = false
		return nil
	}
	if err := s.settleLocked(ctx); err != nil {
		return err
	}
	if after, err = s.Count(ctx); err != nil {
		return err
	}
	if kept := int64(after) - int64(before); kept < int64(len(items)) {
		return fmt.Errorf("%w: it took %d of %d and has %d now (FileDescriptorStoreMax= is reached, or one of them is stored already)",
			ErrRefused, max(kept, 0), len(items), after)
	}
	return nil
}

func (s *Store) removeLocked(ctx context.Context, names []string) error {
	s.unsettled = true
	for _, name := range names {
		if err := s.notify.send(ctx, "FDSTOREREMOVE=1\nFDNAME="+name); err != nil {
			return err
		}
	}
	return s.settleLocked(ctx)
}

func (s *Store) settleLocked(ctx context.Context) error {
	if err := s.notify.barrier(ctx); err != nil {
		return err
	}
	s.unsettled = false
	return nil
}
