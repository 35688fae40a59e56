package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lrd/internal/fdstore"
	"lrd/internal/handover"
	"lrd/internal/output"
	"lrd/internal/sessions"
)

// descriptors is systemd's store; *fdstore.Store is one.
type descriptors interface {
	PutAll(ctx context.Context, items []fdstore.Item) error
	Replace(ctx context.Context, name string, file *os.File) error
	Remove(ctx context.Context, names ...string) error
}

// keeper is all that is held, and what is done with it. It is a handover.Keeper.
//
//	empty ── Hold ──▶ held ── Begin, Left, restore ──▶ working
//	  ▲                 ▲                                 │
//	  └──── Taken ──────┴──────────── Give ───────────────┘
//
// Working means: a goroutine that opens the Logs, which may have to wait for the daemon, and then joins the sessions to
// them; for each Log that is open its drains and its listener for consoles; for each session its own. Give and stop end
// all of them.
type keeper struct {
	store descriptors
	path  string // of the record
	log   *slog.Logger

	// mu guards what follows. It is held over calls to systemd and over writing the record, which are short.
	mu     sync.Mutex
	record *record        // nil: nothing is held
	files  map[string]int // what is held by name: numbers, as nobody is to poll them. All of it is in the store
	logs   map[string]*drained
	// opening is the goroutine that opens the Logs; nil while nothing is done.
	opening *opening
	freed   []string          // IDs of Logs that lrd has closed, and that opening has not looked at
	clients *sessions.Manager // nil while no session is served
}

func newKeeper(store descriptors, path string, log *slog.Logger) *keeper {
	return &keeper{store: store, path: path, log: log, files: map[string]int{}, logs: map[string]*drained{}}
}

// restore goes on with what a process before has held.
func (k *keeper) restore(ctx context.Context, set *fdstore.Set) error {
	r, err := loadRecord(k.path)
	switch {
	case errors.Is(err, errRecord):
		k.log.Error("Keeping what is held until lrd starts, and doing nothing with it", "error", err)
		r = &record{}
	case err != nil:
		return err
	case r == nil:
		return errors.Join(k.store.Remove(ctx, set.Names()...), set.Close())
	}
	k.mu.Lock()
	k.record = r
	for _, name := range set.Names() {
		for _, f := range set.TakeAll(name) {
			if err := k.keepLocked(name, f); err != nil {
				k.log.Error("Cannot keep a descriptor", "name", name, "error", err)
			}
		}
	}
	n := len(k.files)
	k.mu.Unlock()
	k.log.Info("Going on with what the process before held", "descriptors", n)
	k.work()
	return nil
}

// keepLocked takes over a file under a name, in place of what has that name. The caller holds mu.
func (k *keeper) keepLocked(name string, f *os.File) error {
	defer f.Close()
	fd, err := duplicate(f)
	if err != nil {
		return err
	}
	if old, ok := k.files[name]; ok {
		_ = unix.Close(old)
	}
	k.files[name] = fd
	return nil
}

// duplicate is another number for what f is.
func duplicate(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var dupErr error
	err = raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, dupErr)
}

// fileLocked is a descriptor of the caller's own of what is held under that name; nil if there is none. The caller holds mu.
func (k *keeper) fileLocked(name string) *os.File {
	fd, ok := k.files[name]
	if !ok {
		return nil
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		k.log.Error("Cannot use a descriptor", "name", name, "error", err)
		return nil
	}
	return os.NewFile(uintptr(own), name)
}

// Hold takes over what lrd passes.
func (k *keeper) Hold(ctx context.Context, h handover.Holding) error {
	k.pause() // lrd is at it again, before it has taken back what it passed at an earlier stop
	k.mu.Lock()
	defer k.mu.Unlock()
	defer handover.CloseFiles(h.Files)
	items := make([]fdstore.Item, 0, len(h.Files))
	var stale []string
	for _, f := range h.Files {
		items = append(items, fdstore.Item{Name: f.Name, File: f.File})
		if _, ok := k.files[f.Name]; ok {
			stale = append(stale, f.Name)
		}
	}
	if len(stale) > 0 {
		if err := k.store.Remove(ctx, stale...); err != nil {
			return err
		}
	}
	if err := k.store.PutAll(ctx, items); err != nil {
		return err
	}
	step("stored")
	next := record{Drain: h.Drain, Sessions: h.Sessions}
	if k.record != nil {
		next.Logs, next.New = k.record.Logs, k.record.New
	}
	for _, l := range h.Logs {
		next.Logs = slices.DeleteFunc(slices.Clone(next.Logs), func(old handover.Log) bool { return old.ID == l.ID })
		next.Logs = append(next.Logs, l)
	}
	next.New = slices.DeleteFunc(slices.Clone(next.New), func(name string) bool { return slices.Contains(stale, name) })
	if err := next.save(k.path); err != nil {
		return err
	}
	step("recorded")
	k.record = &next
	for _, f := range h.Files {
		if err := k.keepLocked(f.Name, dupFile(f.File)); err != nil {
			return err
		}
	}
	return nil
}

// dupFile is a second os.File for keepLocked, which closes it.
func dupFile(f *os.File) *os.File {
	fd, err := duplicate(f)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// Give stops, and returns all that is held.
func (k *keeper) Give(context.Context) ([]handover.File, error) {
	k.pause()
	step("stopped")
	k.mu.Lock()
	defer k.mu.Unlock()
	var files []handover.File
	for name := range k.files {
		f := k.fileLocked(name)
		if f == nil {
			handover.CloseFiles(files)
			return nil, fmt.Errorf("cannot give %s", name)
		}
		files = append(files, handover.File{Name: name, File: f, New: k.record != nil && slices.Contains(k.record.New, name)})
	}
	return files, nil
}

// Taken forgets all.
func (k *keeper) Taken(ctx context.Context) error {
	step("taken")
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := dropRecord(k.path); err != nil {
		return err
	}
	step("forgotten")
	k.record = nil
	if len(k.files) == 0 {
		return nil
	}
	var names []string
	for name, fd := range k.files {
		names = append(names, name)
		_ = unix.Close(fd)
	}
	clear(k.files)
	slices.Sort(names)
	k.log.Info("Gave back what was held", "descriptors", len(names))
	return k.store.Remove(ctx, names...)
}

// Left goes on with what lrd asked for, and did not take.
func (k *keeper) Left() {
	k.log.Warn("lrd went away without taking what it asked for; going on")
	k.work()
}

// status is what an administrator reads in systemctl status.
func (k *keeper) status() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.record == nil {
		return "STATUS=Waiting for lrd to be stopped"
	}
	clients := 0
	for name := range k.files {
		if strings.HasPrefix(name, handover.SessionPrefix) {
			clients++
		}
	}
	what := "Draining"
	if !k.record.Drain {
		what = "Keeping"
	}
	return fmt.Sprintf("STATUS=%s %d outputs, %d clients, for as long as lrd is stopped (%d descriptors)", what, len(k.record.Logs), clients, len(k.files))
}

// stop ends all that is done. What is held stays in systemd's store.
func (k *keeper) stop() { k.pause() }

// freezeTimeout bounds the waiting for sessions, whose freezing takes a write to memory.
const freezeTimeout = 5 * time.Second

// pause ends all that work has begun: sessions between two steps, drains between two writes.
func (k *keeper) pause() {
	k.mu.Lock()
	opening := k.opening
	k.opening, k.freed = nil, nil
	k.mu.Unlock()
	if opening != nil {
		opening.cancel()
		<-opening.done
	}
	k.mu.Lock()
	clients, logs := k.clients, k.logs
	k.clients, k.logs = nil, map[string]*drained{}
	k.mu.Unlock()
	if clients != nil {
		ctx, cancel := context.WithTimeout(context.Background(), freezeTimeout)
		if err := clients.Freeze(ctx); err != nil {
			k.log.Error("Some clients may lose their streams", "error", err)
		}
		cancel()
	}
	for _, d := range logs {
		if err := d.close(); err != nil {
			k.log.Error("Cannot close an output", "container", d.l.ID, "error", err)
		}
	}
}

// step is called where a test kills the process.
var step = func(string) {}

// busyPause is how long a Log that another process drains is waited for before it is tried again.
const busyPause = 20 * time.Millisecond

// opening is the goroutine of work.
type opening struct {
	cancel context.CancelFunc
	kick   chan struct{} // a Log may be free now
	done   chan struct{}
	all    chan struct{} // closed when all Logs are drained that can be, and sessions are served
}

// work begins to drain what is held, and to serve the sessions.
func (k *keeper) work() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.record == nil || !k.record.Drain || k.opening != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &opening{cancel: cancel, kick: make(chan struct{}, 1), done: make(chan struct{}), all: make(chan struct{})}
	k.opening = o
	left := slices.Clone(k.record.Logs)
	go func() { // ends when all is done, or with cancel
		defer close(o.done)
		left = k.openAll(left, nil)
		for len(left) > 0 {
			select {
			case <-ctx.Done():
				return
			case <-o.kick:
				left = k.openAll(left, k.takeFreed())
			case <-time.After(busyPause):
				left = k.openAll(left, nil)
			}
		}
		if ctx.Err() != nil {
			return
		}
		k.serveSessions()
		close(o.all)
	}()
}

// openAll drains those Logs that nobody else drains, and returns the others. With only, it looks at no others.
func (k *keeper) openAll(logs []handover.Log, only []string) (left []handover.Log) {
	for _, l := range logs {
		if only != nil && !slices.Contains(only, l.ID) {
			left = append(left, l)
			continue
		}
		switch err := k.open(l); {
		case errors.Is(err, output.ErrBusy):
			left = append(left, l)
		case err != nil:
			// It is kept, and given back: the container waits when its pipe is full.
			k.log.Error("Cannot drain an output while lrd is stopped", "container", l.ID, "error", err)
		}
	}
	return left
}

// takeFreed are the Logs that lrd has closed since it was asked last.
func (k *keeper) takeFreed() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	freed := k.freed
	k.freed = nil
	return freed
}

// Release is told that lrd has closed a Log.
func (k *keeper) Release(id string) {
	k.work()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.opening == nil {
		return // they are only to be kept
	}
	k.freed = append(k.freed, id)
	select {
	case k.opening.kick <- struct{}{}:
	default:
	}
}

// Begin returns when all Logs are drained that can be.
func (k *keeper) Begin(ctx context.Context) error {
	k.work()
	k.mu.Lock()
	o := k.opening
	k.mu.Unlock()
	if o == nil {
		return nil // they are only to be kept
	}
	select {
	case <-o.all:
		step("working")
		return nil
	case <-o.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
