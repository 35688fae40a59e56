package units

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/godbus/dbus/v5"
)

const (
	// A daemon-reexec takes PID 1 a tenth of a second on a small machine; trying is cheap, so it begins well below that. The upper bound is what a person who waits
	// for a call would not notice.
	backoffFirst = 10 * time.Millisecond
	backoffMax   = time.Second
	// dialTimeout bounds one attempt: a PID 1 that accepts nothing (it is reloading, or it has crashed and frozen) must not hold up Close.
	dialTimeout = 30 * time.Second
)

// Manager is the connection to PID 1, kept up until Close. All methods may be called from several goroutines.
type Manager struct {
	log    *slog.Logger
	socket string
	jobs   jobs
	heard  filter // of every connection
	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned

	// requests are carried out by run, which alone may touch the tracker.
	requests chan func(*tracker)

	mu      sync.Mutex    // guards what follows
	link    *link         // nil while there is no connection
	up      chan struct{} // closed when link is set; a new one while it is nil
	closed  bool
	version int
}

// Connect connects to PID 1; the process must be root. ctx is for the first attempt only. The error's kind is errdefs.ErrUnavailable if there is no
// systemd to talk to.
func Connect(ctx context.Context, log *slog.Logger) (*Manager, error) {
	return connect(ctx, log, privateSocket)
}

func connect(ctx context.Context, log *slog.Logger, socket string) (*Manager, error) {
	m := &Manager{
		log: log, socket: socket,
		done:     make(chan struct{}),
		requests: make(chan func(*tracker)),
		up:       make(chan struct{}),
	}
	l, err := m.dial(ctx)
	if err != nil {
		return nil, &kindError{fmt.Sprintf("cannot connect to systemd at %s: %v", socket, err), errdefs.ErrUnavailable}
	}
	runCtx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.setLink(l)
	go m.run(runCtx, l)
	return m, nil
}

// Close ends the connection and all watches, and waits for their goroutines. Calls that are on their way fail; jobs go on in PID 1.
func (m *Manager) Close() error {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		if m.link == nil {
			close(m.up) // those who wait for a connection wait no longer
		}
	}
	m.mu.Unlock()
	m.cancel()
	<-m.done
	return nil
}

// Version returns systemd's version, as "252" in "systemd 252 (252.39-1)". It can change at a daemon-reexec.
func (m *Manager) Version() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.version
}

// dial makes one connection and finds out who is at the other end.
func (m *Manager) dial(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	l, err := dialLink(ctx, m.socket, &m.heard, m.jobs.finished)
	if err != nil {
		return nil, err
	}
	var v dbus.Variant
	if _, err := l.call(ctx, []any{&v}, managerPath, propsIface+".Get", managerIface, "Version"); err != nil {
		l.close()
		return nil, err
	}
	text, _ := v.Value().(string)
	m.mu.Lock()
	m.version = parseVersion(text)
	m.mu.Unlock()
	return l, nil
}

// parseVersion returns the leading number of systemd's version string ("252.39-1~deb12u2", "v255", "257~rc1"); 0 if there is none.
func parseVersion(s string) int {
	s = strings.TrimPrefix(s, "v")
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		s = s[:end]
	}
	n, _ := strconv.Atoi(s)
	return n
}

// run owns the connections and the tracker.
func (m *Manager) run(ctx context.Context, l *link) {
	defer close(m.done)
	t := newTracker()
	defer t.closeAll()
	for first := true; ; first = false {
		m.serve(ctx, l, t, !first)
		m.setLink(nil)
		if ctx.Err() != nil {
			return
		}
		m.log.Warn("Lost the connection to systemd, reconnecting")
		started := time.Now()
		if l = m.redial(ctx, t); l == nil {
			return
		}
		m.log.Info("Connected to systemd again", "after", time.Since(started).Round(time.Millisecond), "version", m.Version())
		m.setLink(l)
	}
}

// redial tries until it has a connection; nil if ctx ends. Requests are served meanwhile.
func (m *Manager) redial(ctx context.Context, t *tracker) *link {
	for pause := backoffFirst; ; pause = min(2*pause, backoffMax) {
		l, err := m.dial(ctx)
		if err == nil {
			return l
		}
		m.log.Debug("Cannot connect to systemd", "error", err)
		timer := time.NewTimer(pause)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case request := <-m.requests:
				request(t)
			case <-timer.C:
				waiting = false
			}
		}
	}
}

// serve handles signals and requests until the connection is lost or ctx ends. The connection is closed when it returns, and nothing that belongs to
// it runs on.
func (m *Manager) serve(ctx context.Context, l *link, t *tracker, resync bool) {
	listings := make(chan listing, 1)
	listing := false // a goroutine is at work that will put its result, or its failure, into listings
	again := resync
	t.connected(resync)
	defer func() {
		l.close()
		if listing {
			<-listings // it ends soon: the connection is gone
		}
	}()
	for {
		if again && !listing {
			again, listing = false, true
			patterns := t.patterns()
			go func() { listings <- m.list(ctx, l, patterns) }()
		}
		select {
		case <-ctx.Done():
			return
		case <-l.lost:
			// What arrived before the end counts.
			for _, sig := range l.inbox.take() {
				t.signal(sig)
			}
			return
		case <-l.inbox.ready:
			for _, sig := range l.inbox.take() {
				again = t.signal(sig) || again
			}
		case result := <-listings:
			listing = false
			switch {
			case result.err == nil:
				t.resync(result)
			case replyLost(result.err) || ctx.Err() != nil: // the other cases end this loop
			default:
				m.log.Error("Cannot list units after a reload of systemd", "error", result.err)
			}
		case request := <-m.requests:
			// Whoever asks knows what was said before, such as the result of a job.
			for _, sig := range l.inbox.take() {
				again = t.signal(sig) || again
			}
			request(t)
		}
	}
}

func (m *Manager) setLink(l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.link = l
	switch {
	case m.closed: // up stays closed
	case l != nil:
		close(m.up)
	default:
		m.up = make(chan struct{})
	}
}

// current returns the connection, waiting for one if need be.
func (m *Manager) current(ctx context.Context) (*link, error) {
	for {
		m.mu.Lock()
		l, up, closed := m.link, m.up, m.closed
		m.mu.Unlock()
		switch {
		case closed:
			return nil, ErrClosed
		case l != nil && l.conn.Connected():
			return l, nil
		case l != nil:
			// Its end is known, but run has not come to it yet.
			up = nil
		}
		if up == nil {
			if err := sleep(ctx, time.Millisecond); err != nil {
				return nil, context.Cause(ctx)
			}
			continue
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// do lets run execute f; it returns without doing so if the Manager is closed.
func (m *Manager) do(f func(*tracker)) bool {
	finished := make(chan struct{})
	select {
	case m.requests <- func(t *tracker) { f(t); close(finished) }:
		<-finished
		return true
	case <-m.done:
		return false
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
