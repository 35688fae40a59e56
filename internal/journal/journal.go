package journal

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// New is a logger that writes to w what is of the level least or above. The level may be changed at any time.
func New(w io.Writer, least slog.Level) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	level.Set(least)
	return slog.New(newHandler(w, level, !isTerminal(w))), level
}

// handler writes the lines of the package's comment.
type handler struct {
	attrs      slog.Handler // writes "key=value …\n" into out.line
	level      slog.Leveler
	priorities bool // "<6>" at the head, instead of "INFO "
	out        *lineWriter
}

// lineWriter collects a line and writes it whole: lines of concurrent calls must not mix.
type lineWriter struct {
	mu   sync.Mutex // guards line and the order on w
	line bytes.Buffer
	w    io.Writer
}

func newHandler(w io.Writer, level slog.Leveler, priorities bool) *handler {
	out := &lineWriter{w: w}
	h := slog.NewTextHandler(&out.line, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutHead})
	return &handler{attrs: h, level: level, priorities: priorities, out: out}
}

// withoutHead drops what handler writes itself. Attributes of these names can only be the handler's own at the
// top; a caller's "msg" would be dropped with it, so nobody may name one so.
func withoutHead(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == slog.MessageKey) {
		return slog.Attr{}
	}
	return a
}

// Enabled implements [slog.Handler].
func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// Handle implements [slog.Handler].
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.line.Reset()
	if err := h.attrs.Handle(ctx, r); err != nil {
		return err
	}
	text := r.Message
	if attrs := strings.TrimSpace(h.out.line.String()); attrs != "" {
		text += " " + attrs
	}
	head := r.Level.String() + " "
	if h.priorities {
		head = priority(r.Level)
	}
	// Each line of the journal has a priority of its own.
	text = strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+head+"  ")
	_, err := io.WriteString(h.out.w, head+text+"\n")
	return err
}

// WithAttrs implements [slog.Handler].
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = h.attrs.WithAttrs(attrs)
	return &c
}

// WithGroup implements [slog.Handler].
func (h *handler) WithGroup(name string) slog.Handler {
	c := *h
	c.attrs = h.attrs.WithGroup(name)
	return &c
}

// priority is the head of a line: SD_ERR, SD_WARNING, SD_INFO and SD_DEBUG of sd-daemon(3).
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "<3>"
	case l >= slog.LevelWarn:
		return "<4>"
	case l >= slog.LevelInfo:
		return "<6>"
	default:
		return "<7>"
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	conn, err := f.SyscallConn() // f.Fd() would make the description blocking for everybody who shares it
	if err != nil {
		return false
	}
	terminal := false
	err = conn.Control(func(fd uintptr) {
		_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		terminal = err == nil
	})
	return err == nil && terminal
}
