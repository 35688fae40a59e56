package containers

import (
	"context"
	"errors"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/units"
)

// holdingUnits is a systemd that keeps the descriptors of holders, and runs their ExecReload=.
type holdingUnits struct {
	*fakeUnits
	holdMu sync.Mutex
	held   map[string][3]int   // by holder; -1 where there is none
	reload map[string][]string // its ExecReload=
}

func (h *holdingUnits) Start(ctx context.Context, name string, props []units.Property) error {
	if _, ok := holderID(name); !ok {
		return h.fakeUnits.Start(ctx, name, props)
	}
	if err := h.hit("Units.Start"); err != nil {
		return err
	}
	h.holdMu.Lock()
	defer h.holdMu.Unlock()
	fds := [3]int{-1, -1, -1}
	for _, p := range props {
		for slot, property := range slots {
			if p.Name == property {
				fd, err := unix.FcntlInt(uintptr(p.Value.Value().(dbus.UnixFD)), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					return err
				}
				fds[slot] = fd
			}
		}
		if p.Name == "ExecReload" {
			commands := reflect.ValueOf(p.Value.Value()) // a(sasb)
			h.reload[name] = commands.Index(0).FieldByName("Args").Interface().([]string)
		}
	}
	h.held[name] = fds
	return nil
}

func (h *holdingUnits) Stop(ctx context.Context, name string) error {
	if _, ok := holderID(name); !ok {
		return h.fakeUnits.Stop(ctx, name)
	}
	h.holdMu.Lock()
	defer h.holdMu.Unlock()
	if fds, ok := h.held[name]; ok {
		for _, fd := range fds {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}
	}
	delete(h.held, name)
	return nil
}

func (h *holdingUnits) List(ctx context.Context, pattern string) (map[string]units.State, error) {
	list, err := h.fakeUnits.List(ctx, pattern)
	for _, name := range h.holders() {
		list[name] = units.State{Name: name, LoadState: "loaded", ActiveState: "active", SubState: "exited"}
	}
	return list, err
}

func (h *holdingUnits) Reload(_ context.Context, name string) error {
	if err := h.hit("Units.Reload"); err != nil {
		return err
	}
	h.holdMu.Lock()
	fds, argv := h.held[name], h.reload[name]
	h.holdMu.Unlock()
	names := argv[3:]
	return handBack(argv[2], names, fds[:len(names)])
}

func (h *holdingUnits) holders() (names []string) {
	h.holdMu.Lock()
	defer h.holdMu.Unlock()
	for name := range h.held {
		names = append(names, name)
	}
	return names
}

// holding makes the world's systemd one that keeps holders, for the present Manager.
func (w *world) holding(h *holdingUnits) {
	w.m.o.Units = h
	w.m.o.HandBack = []string{"/usr/bin/lrd", "hand-back"}
}

func newHoldingUnits(w *world) *holdingUnits {
	h := &holdingUnits{fakeUnits: w.units, held: map[string][3]int{}, reload: map[string][]string{}}
	w.t.Cleanup(func() {
		for _, name := range h.holders() {
			_ = h.Stop(context.Background(), name)
		}
	})
	return h
}

// stopAndStart is `systemctl stop lrd` and, later, `systemctl start lrd`, with a systemd that empties the store meanwhile.
func (w *world) stopAndStart(h *holdingUnits, meanwhile func()) {
	w.t.Helper()
	assert.NilError(w.t, w.m.Hold(w.t.Context()))
	w.leave()
	assert.NilError(w.t, w.store.Remove(w.t.Context(), w.store.names()...))
	meanwhile()
	for len(w.units.changes) > 0 {
		<-w.units.changes
	}
	w.newManager()
	w.holding(h)
	assert.NilError(w.t, w.m.Restore(w.t.Context(), w.store.handBack(w.t), nil))
	w.run()
}

func TestHold(t *testing.T) {
	w := newWorld(t, 252)
	h := newHoldingUnits(w)
	w.holding(h)
	console, plain, input, stopped := w.started(withTTY), w.started(), w.started(withStdin), w.create()
	kept := w.store.names()
	w.stopAndStart(h, func() {
		assert.Check(t, is.Len(h.holders(), 3))
		assert.NilError(t, w.units.print(console, "seen\n"))
		assert.NilError(t, w.units.print(plain, "heard\n"))
	})
	assert.Check(t, is.DeepEqual(w.store.names(), kept))
	for _, id := range []string{console, plain, input} {
		assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
		assert.Check(t, is.Equal(w.status(id).Reason, ""))
	}
	assert.Check(t, is.Equal(w.status(stopped).State, container.StateCreated))
	eventually(t, "the holders are released", func() bool { return len(h.holders()) == 0 })
	assert.NilError(t, w.units.print(console, "again\n"))
	for id, want := range map[string]string{console: "seen\r\nagain\r\n", plain: "heard\n"} {
		eventually(t, want, func() bool { return w.logs(id) == want })
	}
	for _, id := range []string{console, plain, input} {
		w.units.exit(id, 0)
		eventually(t, "it is put away", func() bool { return w.record(id).Run == nil })
	}
	w.isPutAway(console) // and all others
}

// Who ends while lrd is away is not deprived of its last words.
func TestHoldLastWords(t *testing.T) {
	w := newWorld(t, 252)
	h := newHoldingUnits(w)
	w.holding(h)
	console, plain := w.started(withTTY), w.started()
	w.stopAndStart(h, func() {
		for _, id := range []string{console, plain} {
			assert.NilError(t, w.units.print(id, "bye\n"))
			w.units.exit(id, 3)
		}
	})
	for id, want := range map[string]string{console: "bye\r\n", plain: "bye\n"} {
		eventually(t, "it is put away", func() bool { return w.record(id).Run == nil })
		assert.Check(t, is.Equal(w.logs(id), want))
	}
	eventually(t, "the holders are released", func() bool { return len(h.holders()) == 0 })
}

// A holder that does not give back is kept, and asked again. (The name is short
// because it is part of a socket's path.)
func TestHoldRetry(t *testing.T) {
	w := newWorld(t, 252)
	h := newHoldingUnits(w)
	w.holding(h)
	id := w.started(withTTY)
	w.arm("Units.Reload", errors.New("no memory"))
	w.stopAndStart(h, func() {})
	assert.Check(t, is.Equal(w.status(id).State, container.StateRunning))
	assert.Check(t, is.Contains(w.status(id).Reason, "disconnected"))
	assert.Check(t, is.Len(h.holders(), 1))

	// The next stop has nothing to hold of it, and leaves what there is.
	w.arm("Units.Reload", nil)
	w.stopAndStart(h, func() { assert.Check(t, is.Len(h.holders(), 1)) })
	assert.Check(t, is.Equal(w.status(id).Reason, ""))
	eventually(t, "the holder is released", func() bool { return len(h.holders()) == 0 })
	assert.NilError(t, w.units.print(id, "here\n"))
	eventually(t, "its output", func() bool { return strings.HasSuffix(w.logs(id), "here\r\n") })
}

func TestHoldNotNeeded(t *testing.T) {
	w := newWorld(t, 257)
	h := newHoldingUnits(w)
	w.holding(h)
	w.started(withTTY)
	assert.NilError(t, w.m.Hold(t.Context()))
	assert.Check(t, is.Len(h.holders(), 0))
}

func TestReceiveNamed(t *testing.T) {
	file, err := os.Open(os.DevNull)
	assert.NilError(t, err)
	defer file.Close()
	fd := int(file.Fd())
	for _, c := range []struct {
		name, names string
		fds         []int
		want        []string // nil: an error
	}{
		{"one", "console", []int{fd}, []string{"console"}},
		{"three", "a b c", []int{fd, fd, fd}, []string{"a", "b", "c"}},
		{"none", "a", nil, nil},
		{"more than names", "a", []int{fd, fd}, nil},
		{"less than names", "a b", []int{fd}, nil},
		{"more than slots", "a b c d", []int{fd, fd, fd, fd}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			assert.NilError(t, err)
			var conns [2]*net.UnixConn
			for i, fd := range pair {
				f := os.NewFile(uintptr(fd), "pair")
				conn, err := net.FileConn(f)
				assert.NilError(t, err)
				_ = f.Close()
				defer conn.Close()
				conns[i] = conn.(*net.UnixConn)
			}
			var rights []byte
			if c.fds != nil {
				rights = unix.UnixRights(c.fds...)
			}
			_, _, err = conns[0].WriteMsgUnix([]byte(c.names), rights, nil)
			assert.NilError(t, err)
			e, err := receiveNamed(conns[1])
			if c.want == nil {
				assert.Assert(t, err != nil)
				return
			}
			assert.NilError(t, err)
			defer e.close()
			assert.Check(t, is.Len(e, len(c.want)))
			for _, name := range c.want {
				assert.Check(t, e[name] != nil, name)
			}
		})
	}
}

func TestHolderName(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	got, ok := holderID(holderName(id))
	assert.Check(t, ok && got == id)
	for _, other := range []string{unitName(id), "lrd-hold-.service", "lrd-hold-" + id, "lrd-hold-" + id[1:] + ".service", "lrd.service"} {
		_, ok := holderID(other)
		assert.Check(t, !ok, other)
	}
	// A holder is no container.
	_, ok = unitID(holderName(id))
	assert.Check(t, !ok)
}
