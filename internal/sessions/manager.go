package sessions

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
)

// Descriptors is systemd's store; *fdstore.Store is one.
type Descriptors interface {
	Put(ctx context.Context, name string, files ...*os.File) error
	Remove(ctx context.Context, names ...string) error
}

// Stored is what systemd has handed back at the start; *fdstore.Set is one.
type Stored interface {
	Names() []string
	Take(name string) *os.File
}

// storePrefix begins the names of connections in systemd's store; the session's ID follows.
const storePrefix = "session."

// Options of a [Manager]. The zero value has sessions that end with the process.
type Options struct {
	// Dir is where sessions are kept, on a file system that is gone after a boot; empty for nowhere.
	Dir string
	// Descriptors keep the connections; nil for nobody.
	Descriptors Descriptors
	// Frozen is given the connection of each session that is frozen, for it to keep; nil for nobody, where systemd's
	// store is enough. It is called from several goroutines.
	Frozen func(name string, conn *os.File)
	// Max returns how many sessions there may be at once; nil for no limit.
	Max func() int
	Log *slog.Logger
}

// Manager has all sessions. It is safe for concurrent use.
type Manager struct {
	o Options
	// ctx is done when sessions stop.
	ctx  context.Context
	stop context.CancelFunc
	// mu guards what follows.
	mu       sync.Mutex
	count    int // sessions of this process, each in a goroutine of its own or of its caller's
	freezing bool
	idle     []chan struct{} // closed when count is 0
}

// New returns a Manager without sessions. Freeze or End must be called in the end.
func New(o Options) *Manager {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{o: o}
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m
}

// Count is how many sessions there are.
func (m *Manager) Count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// Admit reserves the place of one session, before the connection is taken over; leave gives it back. The
// error's kind is errdefs.ErrUnavailable.
func (m *Manager) Admit() (leave func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.o.Max != nil {
		if limit := m.o.Max(); m.count >= limit {
			m.o.Log.Warn("Refusing a client's stream, as there are as many as max-sessions allows", "operation", "stream", "streams", m.count)
			return nil, errdefs.ErrUnavailable.WithMessage(fmt.Sprintf("%d streams (attach, exec, logs, wait, events, stats) are open, which is as many as max-sessions of lrd's configuration allows: close some, or raise it", m.count))
		}
	}
	return m.admitted(), nil
}

// admitted counts a session. The caller holds mu.
func (m *Manager) admitted() (leave func()) {
	m.count++
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.count--
		if m.count == 0 {
			for _, c := range m.idle {
				close(c)
			}
			m.idle = nil
		}
	})
}

// Serve is a session from its beginning: head, the response's, is sent first. It returns when the session has
// ended, or with EndFrozen when the next process is to go on with it. It owns conn and closes it. The caller has
// been admitted, and leaves when Serve has returned.
//
// When ctx is done without Freeze, the session ends.
func (m *Manager) Serve(ctx context.Context, conn *Conn, d Description, head []byte, s Streams) (End, error) {
	id := newID()
	st, err := m.begin(id, d)
	if err != nil {
		m.o.Log.Warn("A client's stream will end with this process of lrd", "operation", d.Kind, "container", d.Container, "error", err)
		st, id = &state{}, ""
	}
	r := newRun(conn, s, d.Framing, st)
	r.early = r.takeEarly()
	st.setOutput(head, cursorOf(s.Output), 0, false)
	// Only now: what the store has can be gone on with.
	if id != "" {
		if err := m.store(ctx, conn, id); err != nil {
			m.o.Log.Warn("A client's stream will end with this process of lrd", "operation", d.Kind, "container", d.Container, "error", err)
			_ = st.drop()
		}
	}
	if s.Begin != nil {
		s.Begin()
	}
	return m.serve(ctx, r, id, d)
}

// newID need not be hard to guess: connections are root's alone to see, and a file of that name is never replaced.
func newID() string { return fmt.Sprintf("%016x", rand.Uint64()) }

// begin makes the state of a new session.
func (m *Manager) begin(id string, d Description) (*state, error) {
	if m.o.Dir == "" || m.o.Descriptors == nil {
		return &state{}, nil
	}
	if err := os.MkdirAll(m.o.Dir, 0o700); err != nil {
		return nil, err
	}
	st, err := newState(filepath.Join(m.o.Dir, id), d)
	if err != nil {
		return nil, fmt.Errorf("cannot keep the session: %w", err)
	}
	return st, nil
}

// store puts the connection into systemd's store.
func (m *Manager) store(ctx context.Context, conn *Conn, id string) error {
	if m.o.Descriptors == nil || m.o.Dir == "" {
		return nil
	}
	f, err := conn.file()
	if err != nil {
		return err
	}
	defer f.Close()
	return m.o.Descriptors.Put(context.WithoutCancel(ctx), storePrefix+id, f)
}

// serve runs a session and puts it away at its end.
func (m *Manager) serve(ctx context.Context, r *run, id string, d Description) (End, error) {
	log := m.o.Log.With("operation", d.Kind, "container", d.Container)
	r.state.lost = func(err error) {
		log.Error("Cannot keep a client's stream over a restart of lrd: its state cannot be written", "error", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	if m.o.Frozen != nil && id != "" {
		r.frozen = func() {
			if f, err := r.conn.file(); err != nil {
				log.Error("Cannot pass a client's stream on", "session", id, "error", err)
			} else {
				m.o.Frozen(storePrefix+id, f)
			}
		}
	}
	why, err := r.serve(ctx, m.isFreezing)
	switch {
	case why == EndFrozen:
		r.state.close()
	case id != "" && m.o.Descriptors != nil && m.o.Dir != "":
		err = errors.Join(err, m.forget(id), r.state.drop())
	}
	log.Debug("Session ended", "session", id, "end", why.String(), "error", err)
	return why, err
}

// forget takes a connection out of systemd's store. The file goes after it: one without a connection is put
// away in silence at the next start.
func (m *Manager) forget(id string) error {
	if m.o.Descriptors == nil {
		return nil
	}
	return m.o.Descriptors.Remove(context.Background(), storePrefix+id)
}

func (m *Manager) isFreezing() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.freezing
}

// Freeze stops all sessions where they are, for the next process to go on. A session that begins now is frozen
// too, when it has been put on record. ctx bounds the waiting, which takes no longer than a write to memory.
func (m *Manager) Freeze(ctx context.Context) error {
	m.mu.Lock()
	m.freezing = true
	m.mu.Unlock()
	return m.halt(ctx)
}

// End ends all sessions: clients see the end of their streams.
func (m *Manager) End(ctx context.Context) error { return m.halt(ctx) }

func (m *Manager) halt(ctx context.Context) error {
	m.stop()
	done := make(chan struct{})
	m.mu.Lock()
	if m.count == 0 {
		close(done)
	} else {
		m.idle = append(m.idle, done)
	}
	m.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot stop %d streams in time: %w", m.Count(), context.Cause(ctx))
	}
}

// ErrNotNow is what a Resume returns for a session that is to be left as it is, for another process.
var ErrNotNow = errors.New("the session is another process's to go on with")

// errOverElsewhere is of a session that has ended in a process that stood in for this one, and could not take the
// connection out of this one's store.
var errOverElsewhere = errors.New("the session is over")

// Resume joins a session of an earlier process to its container again: from at on, where that is the cursor of
// a [Placed] Output. ctx is done when the session is over, or stops again; done is called when it is over.
type Resume func(ctx context.Context, d Description, at Cursor) (s Streams, done func(), err error)

// Restore goes on with the sessions of an earlier process, whose connections are in stored. Each is resumed
// before Restore returns, and then runs until it ends, or until Freeze or End. A session that cannot be resumed
// is closed, and said so in the log.
func (m *Manager) Restore(stored Stored, resume Resume) {
	seen := map[string]bool{}
	for _, name := range stored.Names() {
		id, ok := strings.CutPrefix(name, storePrefix)
		if !ok {
			continue
		}
		f := stored.Take(name)
		if f == nil {
			continue
		}
		seen[id] = true
		err := m.restore(f, id, resume)
		_ = f.Close()
		if errors.Is(err, errOverElsewhere) {
			if err := m.forget(id); err != nil {
				m.o.Log.Error("Cannot put a session away", "session", id, "error", err)
			}
		} else if err != nil && !errors.Is(err, ErrNotNow) {
			m.o.Log.Warn("Cannot go on with a client's stream; its connection is closed", "session", id, "error", err)
			if err := errors.Join(m.forget(id), os.RemoveAll(m.path(id))); err != nil {
				m.o.Log.Error("Cannot put a session away", "session", id, "error", err)
			}
		}
	}
	m.clean(seen)
}

func (m *Manager) path(id string) string { return filepath.Join(m.o.Dir, filepath.Base(id)) }

// clean removes the files of sessions whose connections are gone: systemd before 254 drops them when lrd is
// stopped, and not restarted, unless another process has them.
func (m *Manager) clean(seen map[string]bool) {
	entries, err := os.ReadDir(m.o.Dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) && m.o.Dir != "" {
			m.o.Log.Error("Cannot look for sessions of an earlier process", "error", err)
		}
		return
	}
	for _, e := range entries {
		if !seen[e.Name()] {
			if err := os.RemoveAll(m.path(e.Name())); err != nil {
				m.o.Log.Error("Cannot put a session away", "session", e.Name(), "error", err)
			}
		}
	}
}

// restore goes on with one session.
func (m *Manager) restore(f *os.File, id string, resume Resume) (err error) {
	nc, err := net.FileConn(f)
	if err != nil {
		return err
	}
	conn, err := newConn(nc)
	if err != nil {
		return errors.Join(err, nc.Close())
	}
	defer func() {
		if errors.Is(err, ErrNotNow) {
			_ = conn.Close()
		} else if err != nil {
			conn.hangUp()
		}
	}()
	st, d, err := loadState(m.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return errOverElsewhere
	}
	if err != nil {
		return err
	}
	// Not of m.ctx: a write to the container's input may be interrupted only when the session knows that it stops.
	ctx, cancel := context.WithCancel(context.Background())
	s, done := Streams{}, func() {}
	if rec := st.get(); !rec.over {
		if s, done, err = resume(ctx, d, rec.at); err != nil {
			cancel()
			st.close()
			return err
		}
	}
	// What waits for the container is released like this: ctx is what resume has joined it with.
	s.Release = cancel
	m.mu.Lock()
	leave := m.admitted()
	m.mu.Unlock()
	go func() { // ends with the session; Freeze and End wait for it
		defer leave()
		defer cancel()
		why, err := m.serve(m.ctx, newRun(conn, s, d.Framing, st), id, d)
		if err != nil {
			m.o.Log.Error("A client's stream ended", "session", id, "operation", d.Kind, "container", d.Container, "error", err)
		}
		if why != EndFrozen {
			done()
		}
	}()
	return nil
}
