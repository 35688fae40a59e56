package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"lrd/internal/handover"
	"lrd/internal/sessions"
)

// serveSessions goes on with the sessions that can do without lrd.
func (k *keeper) serveSessions() {
	k.mu.Lock()
	dir := k.record.Sessions
	held := &connections{k: k}
	for name := range k.files {
		if strings.HasPrefix(name, handover.SessionPrefix) {
			held.names = append(held.names, name)
		}
	}
	k.mu.Unlock()
	if dir == "" || len(held.names) == 0 {
		return
	}
	clients := sessions.New(sessions.Options{Dir: dir, Descriptors: held, Log: k.log})
	k.mu.Lock()
	k.clients = clients
	k.mu.Unlock()
	clients.Restore(held, k.join)
}

// connections are the clients' connections, as what systemd has handed back and as systemd's store.
type connections struct {
	k     *keeper
	names []string
}

func (c *connections) Names() []string { return c.names }

func (c *connections) Take(name string) *os.File {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	return c.k.fileLocked(name)
}

// Put is for sessions that begin, of which there are none here.
func (c *connections) Put(context.Context, string, ...*os.File) error {
	return errors.New("lrd-standby begins no sessions")
}

// Remove is called for sessions that are over.
func (c *connections) Remove(ctx context.Context, names ...string) error {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	for _, name := range names {
		if fd, ok := c.k.files[name]; ok {
			_ = unix.Close(fd)
			delete(c.k.files, name)
		}
	}
	return c.k.store.Remove(ctx, names...)
}

// join joins a session to the Log that it follows; it is a sessions.Resume.
func (k *keeper) join(ctx context.Context, d sessions.Description, at sessions.Cursor) (s sessions.Streams, done func(), err error) {
	f := d.Follows
	if f == nil {
		return s, nil, sessions.ErrNotNow
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	of := k.logs[f.Log]
	if of == nil {
		return s, nil, sessions.ErrNotNow // it could not be opened
	}
	s = f.Streams()
	s.StandIn = true
	switch {
	case f.Raw:
		s.Output = sessions.FromReader(of.out.Reader(at.ReaderPosition()))
	case f.Lines != nil:
		o := *f.Lines
		o.From = at.LinesPosition()
		lines, err := of.out.Lines(o)
		if err != nil {
			return s, nil, err
		}
		s.Output = sessions.FromLines(lines)
	}
	if f.Stdin {
		s.Stdin = &input{k: k, id: f.Log, tty: f.TTY, ctx: ctx}
	}
	return s, func() {}, nil
}

// input is what a client types into. Its descriptor is opened at the first write, and is the session's own.
type input struct {
	k   *keeper
	id  string
	tty bool
	ctx context.Context // done when the session is to let go

	once sync.Once
	f    *os.File
}

// open is the console, or the FIFO; nil if there is none.
func (in *input) open() *os.File {
	in.once.Do(func() {
		what := handover.Stdin
		if in.tty {
			what = handover.Console
		}
		in.k.mu.Lock()
		in.f = in.k.fileLocked(handover.Name(in.id, what))
		in.k.mu.Unlock()
		if in.f != nil {
			context.AfterFunc(in.ctx, func() { _ = in.f.Close() }) // a Write that waits returns
		}
	})
	return in.f
}

// Write waits while the container does not read.
func (in *input) Write(p []byte) (int, error) {
	f := in.open()
	if f == nil {
		return 0, io.ErrClosedPipe
	}
	return f.Write(p)
}

// Pipe is for splicing into it.
func (in *input) Pipe() (syscall.RawConn, error) {
	f := in.open()
	if f == nil {
		return nil, io.ErrClosedPipe
	}
	return f.SyscallConn()
}

// Close is the client's end of input, which is left for lrd to pass on.
func (in *input) Close() error { return nil }
