package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lrd/internal/sessions"
)

// headerTimeout is how long a client may take to send the head of a request. A local client needs
// microseconds; this is for one that was stopped half-way, and keeps its descriptor from being held for ever.
// There is no timeout for bodies and answers: streams last for days.
const headerTimeout = time.Minute

// Server serves the API. It is safe for concurrent use.
type Server struct {
	Options
	http *http.Server
	host host

	// leaving is done when Shutdown begins: streams end. over is done when Shutdown gives up: everything ends.
	leaving, over context.Context
	leave, giveUp context.CancelCauseFunc

	// mu guards what follows.
	mu       sync.Mutex
	inFlight int
	idle     chan struct{} // made by Shutdown; closed when inFlight is 0
}

// New returns a Server that is not serving yet.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Sessions == nil {
		o.Sessions = sessions.New(sessions.Options{Log: o.Log})
	}
	s := &Server{Options: o, host: findHost()}
	s.leaving, s.leave = context.WithCancelCause(context.Background())
	s.over, s.giveUp = context.WithCancelCause(context.Background())
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers the connections of l until Shutdown, and closes l. It may be called for several listeners. It
// returns nil after Shutdown.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve the API: %w", err)
	}
	return nil
}

// Shutdown stops taking requests, ends streams at once, waits until the others are answered, and returns.
// When ctx is done first, it cancels what is left, closes every connection and returns an error that says how
// many requests that were. The sockets of socket activation stay open in systemd: clients that connect from
// now on wait for the next daemon.
func (s *Server) Shutdown(ctx context.Context) error {
	s.leave(errLeaving)
	err := s.http.Shutdown(ctx)
	if idle := s.awaitIdle(); err == nil {
		// Connections that were taken over are not net/http's any more.
		select {
		case <-idle:
			return nil
		case <-ctx.Done():
		}
	}
	left := s.InFlight()
	s.giveUp(errLeaving)
	s.http.Close()
	if left == 0 {
		return nil // there were but connections that nothing came on
	}
	return fmt.Errorf("cannot answer %d requests in time: %w", left, context.Cause(ctx))
}

// InFlight returns the number of requests being answered, streams and attached clients included.
func (s *Server) InFlight() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inFlight
}

func (s *Server) awaitIdle() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := make(chan struct{})
	if s.inFlight == 0 {
		close(idle)
	} else {
		s.idle = idle
	}
	return idle
}

func (s *Server) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight++
}

func (s *Server) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
	if s.inFlight == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.begin()
	defer s.done()
	began := time.Now()
	seen := &statusRecorder{ResponseWriter: w}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // a panic value, compared as net/http does
				panic(p)
			}
			s.Log.Error("a request made the API panic", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
			if seen.status == 0 {
				answerError(r.Context(), seen, fmt.Errorf("internal error: %v", p))
			}
		}
		s.logRequest(r, seen.status, time.Since(began))
	}()
	s.serve(seen, r)
}

// serve finds the row of the table, calls its handler and sends the error that it returns.
func (s *Server) serve(w *statusRecorder, hr *http.Request) {
	h := w.Header()
	h.Set("Server", "lrd/"+s.Build.Version+" (linux)")
	h.Set("Api-Version", MaxVersion)
	h.Set("Ostype", "linux")
	h.Set("Docker-Experimental", "false")

	v, path := stripVersion(hr.URL.Path)
	found, vars, allowed := find(hr.Method, path)
	if found == nil && allowed == nil {
		_ = answerJSON(w, http.StatusNotFound, message{"page not found"})
		return
	}
	if err := v.supported(); err != nil {
		answerError(hr.Context(), w, err)
		return
	}
	if found == nil {
		h.Set("Allow", strings.Join(allowed, ", "))
		_ = answerJSON(w, http.StatusMethodNotAllowed, message{fmt.Sprintf("%s is not a method of %s: use %s", hr.Method, path, strings.Join(allowed, " or "))})
		return
	}
	ctx, cancel := s.lifetime(hr.Context(), found.kind)
	defer cancel()
	if found.kind == transfer {
		defer endTransfer(ctx, w)()
	}
	err := found.handle(s, w, &request{Request: hr.WithContext(ctx), version: v, vars: vars, config: s.Config()})
	switch {
	case err == nil:
	case w.status == 0:
		answerError(ctx, w, err)
	default:
		// The head is sent: the client sees a stream that breaks off or a connection that closes.
		s.Log.Debug("an answer was cut short", "method", hr.Method, "path", hr.URL.Path, "error", err)
		if _, cut := errors.AsType[cutError](err); cut {
			panic(http.ErrAbortHandler)
		}
	}
}

// message is the body of the two errors that come before any handler.
type message struct {
	Message string `json:"message"`
}

// lifetime returns the context of a request of that kind; see the package's comment.
func (s *Server) lifetime(client context.Context, k kind) (context.Context, context.CancelFunc) {
	parent, end := client, s.over
	switch k {
	case change:
		parent = context.WithoutCancel(client)
	case stream, transfer:
		end = s.leaving
	case query:
	}
	ctx, cancel := context.WithCancelCause(parent)
	stop := context.AfterFunc(end, func() { cancel(context.Cause(end)) })
	return ctx, func() { stop(); cancel(nil) }
}

// lastWord is how long a transfer may take, when its time is over, to tell its client so. A client that reads at all
// needs microseconds; one that does not delays the daemon's restart by this much.
const lastWord = 250 * time.Millisecond

// endTransfer makes what waits for the client, for the rest of the body or for room for the answer, return when ctx is done,
// until stop is called.
func endTransfer(ctx context.Context, w http.ResponseWriter) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		c := http.NewResponseController(w) // of a connection that has no deadlines, nothing waits for long
		_ = c.SetReadDeadline(time.Unix(1, 0))
		_ = c.SetWriteDeadline(time.Now().Add(lastWord))
	})
}

func (s *Server) logRequest(r *http.Request, status int, took time.Duration) {
	if !s.Log.Enabled(r.Context(), slog.LevelDebug) {
		return
	}
	attrs := []any{"method", r.Method, "path", r.URL.Path, "status", status, "took", took}
	if p, ok := r.Context().Value(peerKey{}).(*unix.Ucred); ok {
		attrs = append(attrs, "uid", p.Uid, "gid", p.Gid, "pid", p.Pid)
	}
	s.Log.Debug("request", attrs...)
}

type peerKey struct{}

// withPeer keeps the credentials of the process that connected (SO_PEERCRED, unix(7)).
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	rc, err := uc.SyscallConn()
	if err != nil {
		return ctx
	}
	_ = rc.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			ctx = context.WithValue(ctx, peerKey{}, cred)
		}
	})
	return ctx
}

// statusRecorder remembers the status code, 0 as long as nothing was sent.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (w *statusRecorder) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusRecorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush and take over.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
