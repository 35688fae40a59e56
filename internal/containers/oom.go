package containers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"lrd/internal/units"
)

// oomWatch hears of processes that the kernel kills as a container is out of
// memory, when it happens and though the container goes on: the kernel counts
// them in memory.events of the unit's control group, and lets inotify(7) know
// (cgroup-v2.rst). Where the unit has no such controller there is nothing to hear.
//
// It is one inotify instance for all containers, and one goroutine, which is
// Manager.Run's. A container is watched from the beginning of an invocation that
// somebody has seen to its end: the kernel does not forget a watch by itself
// when the control group goes.
type oomWatch struct {
	f *os.File // nil if there is none to be had; then an exit tells

	// mu guards what follows; it is taken last.
	mu  sync.Mutex
	ids map[int]string // by watch descriptor
	wds map[string]int // the other way round
}

// oomPause is how long nobody listens after something was heard: the kernel
// tells of every container that comes near its limit too, up to a hundred times a second.
const oomPause = 200 * time.Millisecond

func newOOMWatch() (*oomWatch, error) {
	w := &oomWatch{ids: map[int]string{}, wds: map[string]int{}}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return w, fmt.Errorf("cannot watch for containers that are out of memory: inotify_init1: %w", err)
	}
	w.f = os.NewFile(uintptr(fd), "inotify")
	return w, nil
}

func (w *oomWatch) close() error {
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}

// control calls f with the descriptor; nothing happens without one, or when it is closed.
func (w *oomWatch) control(f func(fd int)) {
	if w.f == nil {
		return
	}
	if raw, err := w.f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// add watches a file for a container; a file that was watched for it before is forgotten.
func (w *oomWatch) add(id, file string) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removeLocked(id)
	w.control(func(fd int) {
		var wd int
		if wd, err = unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err == nil {
			w.ids[wd], w.wds[id] = id, wd
		}
	})
	return err
}

// remove forgets a container.
func (w *oomWatch) remove(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removeLocked(id)
}

func (w *oomWatch) removeLocked(id string) {
	wd, ok := w.wds[id]
	if !ok {
		return
	}
	delete(w.wds, id)
	delete(w.ids, wd)
	w.control(func(fd int) { _, _ = unix.InotifyRmWatch(fd, uint32(wd)) }) // EINVAL if the kernel has done it
}

// follow calls changed for each container whose file has changed, until ctx is done.
func (w *oomWatch) follow(ctx context.Context, changed func(id string)) error {
	if w.f == nil {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = w.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, err := w.f.Read(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("cannot watch for containers that are out of memory: %w", err)
		}
		for id := range w.heard(buf[:n]) {
			changed(id)
		}
		select {
		case <-ctx.Done():
		case <-time.After(oomPause):
		}
	}
}

// heard is which containers the events in buf are about: all that are watched, if some events were lost.
func (w *oomWatch) heard(buf []byte) map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := map[string]bool{}
	for len(buf) >= unix.SizeofInotifyEvent {
		wd, mask := int(int32(binary.NativeEndian.Uint32(buf))), binary.NativeEndian.Uint32(buf[4:])
		length := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
		buf = buf[min(length, len(buf)):]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			for id := range w.wds {
				ids[id] = true
			}
		}
		if id, ok := w.ids[wd]; ok && mask&unix.IN_MODIFY != 0 {
			ids[id] = true
		}
	}
	return ids
}

// memoryEvents is the file that is watched, and in the inbox the word for its change.
const memoryEvents = "memory.events"

// oomKills is how many processes of a container's unit the kernel has killed as it was out of memory.
func oomKills(id string) int {
	happened, err := readKeyed(os.DirFS(cgroupRoot), path.Join(Slice, unitName(id), memoryEvents))
	if err != nil {
		return 0
	}
	return int(happened["oom_kill"])
}

// followOOM is the goroutine of the watch.
func (m *Manager) followOOM(ctx context.Context) {
	if err := m.ooms.follow(ctx, m.oomChanged); err != nil {
		m.o.Log.Error("Processes that are killed as memory ran out are told of at their container's end only", "error", err)
	}
}

// oomChanged lets the container's worker look at its count, if that is news.
func (m *Manager) oomChanged(id string) {
	if c := m.get(id); c != nil && oomKills(id) > c.Status().OOMKills {
		c.enqueue(units.Change{State: units.State{Name: memoryEvents}})
	}
}

// watchOOM begins to watch an invocation of a container. What happened before is told too.
func (m *Manager) watchOOM(c *Container) {
	err := m.ooms.add(c.id, filepath.Join(cgroupRoot, Slice, unitName(c.id), memoryEvents))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.logger("follow").Warn("A process of the container that is killed as memory ran out is told of at its end only", "error", err)
	}
	if err == nil {
		m.oomChanged(c.id)
	}
}

// lookOOM tells that the kernel has killed processes of a container that goes
// on. What an end has to do with it is told with the end. The caller holds c.op.
func (m *Manager) lookOOM(ctx context.Context, c *Container) error {
	u, err := m.o.Units.State(ctx, unitName(c.id))
	switch s := c.Status(); {
	case errdefs.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case !s.Running() || u.InvocationID != s.InvocationID || u.ActiveState != "active" || ended(u):
		return nil
	}
	kills, news := oomKills(c.id), false
	c.note(func(_ *Record, s *Status) {
		if news = kills > s.OOMKills; news {
			s.OOMKilled, s.OOMKills = true, kills
		}
	})
	if news {
		m.publish(c, events.ActionOOM, time.Time{}, nil)
	}
	return nil
}
