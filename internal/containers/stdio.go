package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lrd/internal/fdstore"
	"lrd/internal/output"
)

// Names of a container's descriptors in systemd's store are its ID, a dot, and one of these.
const (
	fdStdin    = "stdin"            // the FIFO that the container reads; we write
	fdStdout   = "stdout"           // the FIFO that the container writes as standard output
	fdStderr   = "stderr"           // likewise standard error
	fdConsole  = "console"          // the master of the container's pseudo terminal
	fdListener = "console-listener" // where the runtime delivers a console
	fdVia      = "console-pipe"     // between console and file; see output.Log.DrainThrough
)

func fdName(id, what string) string { return id + "." + what }

// fdNames are the descriptors that a run of a container has from its beginning.
// The console comes later: the runtime makes it.
func fdNames(tty, stdin bool) []string {
	if tty {
		return []string{fdListener, fdVia}
	}
	if stdin {
		return []string{fdStdin, fdStdout, fdStderr}
	}
	return []string{fdStdout, fdStderr}
}

// stdio is what the daemon has open of a container's standard streams. The
// drains own their descriptors; what is here is for input, for the size of the
// window, and for the next console.
type stdio struct {
	stdin    *os.File         // write end, O_RDWR so that it never breaks; nil if there is none or the client has ended it
	console  *os.File         // master; nil without a TTY and while there is none
	consoles *consoleListener // nil without a TTY
}

// streamer is who has standard streams: a container, or a command executed in one.
type streamer interface {
	// streamID is what the names of the descriptors in systemd's store begin with, 64 hexadecimal digits.
	streamID() string
	// pipe is the path of a FIFO or of the console's socket.
	pipe(what string) string
	// output is the store of what is written, opened when it is needed for the first time.
	output() (*output.Log, error)
	// streams calls change with the lock held that guards the stdio.
	streams(change func(*stdio))
	// consoleStored takes note on disk that systemd's store has a console.
	consoleStored()
	logger(operation string) *slog.Logger
}

func (s *stdio) close() error {
	var errs []error
	if s.consoles != nil {
		errs = append(errs, s.consoles.close())
	}
	for _, f := range []*os.File{s.stdin, s.console} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// ends are the descriptors of one run, as they are made for a start or come
// back from systemd's store. Whoever has an ends owns what is in it.
type ends map[string]*os.File

func (e ends) close() {
	for what, f := range e {
		_ = f.Close()
		delete(e, what)
	}
}

// take removes a descriptor; the caller owns it. It is nil if there is none.
func (e ends) take(what string) *os.File {
	f := e[what]
	delete(e, what)
	return f
}

// items are all descriptors with the names to store them under.
func (e ends) items(id string) []fdstore.Item {
	var items []fdstore.Item
	for what, f := range e {
		items = append(items, fdstore.Item{Name: fdName(id, what), File: f})
	}
	return items
}

// makeEnds makes the FIFOs, or the console's listener, of a next run at the
// paths that pipe says. What an earlier run may have left is removed.
func makeEnds(pipe func(what string) string, tty, stdin bool, pipeSize int) (_ ends, err error) {
	e := ends{}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	for _, what := range fdNames(tty, stdin) {
		path := pipe(what)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if what == fdListener {
			e[what], err = listenConsole(path)
		} else if err = unix.Mkfifo(path, 0o600); err == nil {
			e[what], err = openFIFO(path, pipeSize)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot make %s: %w", path, err)
		}
	}
	return e, nil
}

// openFIFO opens our own end. O_RDWR: it never shows an end of file or breaks,
// whoever comes and goes at the other end. O_NONBLOCK: opening never waits.
func openFIFO(path string, size int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if size > 0 {
		// A smaller pipe than asked for does its work too, it holds less while nobody reads.
		_, _ = output.SetPipeSize(f, size)
	}
	return f, nil
}

// listenConsole makes the socket to which the runtime sends the console's
// master. Its listening end is kept in systemd's store: a container that systemd
// restarts while the daemon is away leaves its console in the socket's queue.
//
// It is made by way of its directory's descriptor, as a socket's path is at most
// 107 bytes long (unix(7)), and exec-root may be anywhere.
func listenConsole(path string) (*os.File, error) {
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	return l.File()
}

// consoleListener takes consoles in as the runtime delivers them, in a
// goroutine that ends with close.
type consoleListener struct {
	l    *net.UnixListener
	done chan struct{}
	// first is closed when a console has been taken in.
	first chan struct{}
}

// serveConsoles listens on f, which it takes over, and hands every console to take.
func serveConsoles(f *os.File, take func(*os.File)) (*consoleListener, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for the console: %w", err)
	}
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("cannot listen for the console: its socket is a %T", l), l.Close())
	}
	cl := &consoleListener{l: unixListener, done: make(chan struct{}), first: make(chan struct{})}
	cl.l.SetUnlinkOnClose(false)
	go func() {
		defer close(cl.done)
		for n := 0; ; {
			conn, err := cl.l.AcceptUnix()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(consoleTimeout))
			master, err := receiveConsole(conn)
			_ = conn.Close()
			if err != nil {
				continue // a peer that is no runtime; the socket is root's alone
			}
			take(master)
			if n++; n == 1 {
				close(cl.first)
			}
		}
	}()
	return cl, nil
}

func (cl *consoleListener) close() error {
	err := cl.l.Close()
	<-cl.done
	return err
}

// receiveConsole reads the one descriptor that the runtime sends (OCI runtime
// command line interface, "--console-socket").
func receiveConsole(conn *net.UnixConn) (*os.File, error) {
	data := make([]byte, 4096) // the runtime sends the terminal's name along
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(data, rights)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("cannot find a descriptor in the runtime's message: %w", errors.Join(err, syscall.EBADMSG))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return nil, fmt.Errorf("cannot find a descriptor in the runtime's message: %w", errors.Join(err, syscall.EBADMSG))
	}
	unix.CloseOnExec(fds[0])
	// The master's description is ours alone; the container has the slave.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_ = unix.Close(fds[0])
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "console"), nil
}

// duplicate is a second descriptor of the same open description, with deadlines of its own.
func duplicate(f *os.File) (*os.File, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dupErr error
	if err := conn.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, fmt.Errorf("cannot duplicate %s: %w", f.Name(), dupErr)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// connect makes a run's descriptors work: drains carry its output into the
// store, input and console are at hand. It takes over what is in e.
func (m *Manager) connect(c streamer, e ends) (err error) {
	defer e.close()
	out, err := c.output()
	if err != nil {
		return err
	}
	for _, s := range []output.Stream{output.Stdout, output.Stderr} {
		if f := e.take(s.String()); f != nil {
			if err := out.Drain(s, f, output.FIFO); err != nil {
				return err
			}
		}
	}
	c.streams(func(std *stdio) { std.stdin = e.take(fdStdin) })
	// A console that was there before comes first; one in the listener's queue is of a later run.
	if f := e.take(fdConsole); f != nil {
		if err := m.drainConsole(c, f, e.take(fdVia)); err != nil {
			return err
		}
	}
	if f := e.take(fdListener); f != nil {
		consoles, err := serveConsoles(f, func(master *os.File) { m.takeConsole(c, master) })
		if err != nil {
			return err
		}
		c.streams(func(std *stdio) { std.consoles = consoles })
	}
	return nil
}

// takeConsole takes in the console of a new run. It is stored before anything
// else: the container's user process has not been started yet.
func (m *Manager) takeConsole(c streamer, master *os.File) {
	log := c.logger("console")
	if err := m.o.Descriptors.Replace(m.ctx, fdName(c.streamID(), fdConsole), master); err != nil {
		log.Error("Cannot keep the console over a restart of lrd", "error", err)
	}
	c.consoleStored()
	if err := m.drainConsole(c, master, nil); err != nil {
		log.Error("Cannot read the container's console", "error", err)
	}
}

// drainConsole makes master the container's console and begins to read it, by
// way of the pipe via, which is opened if it is nil. It takes both over.
func (m *Manager) drainConsole(c streamer, master, via *os.File) (err error) {
	defer func() {
		if err != nil && via != nil {
			_ = via.Close()
		}
	}()
	if via == nil {
		if via, err = openFIFO(c.pipe(fdVia), 0); err != nil {
			return errors.Join(err, master.Close())
		}
	}
	reading, err := duplicate(master)
	if err != nil {
		return errors.Join(err, master.Close())
	}
	var old *os.File
	c.streams(func(std *stdio) { old, std.console = std.console, master })
	out, err := c.output()
	if err != nil {
		return errors.Join(err, reading.Close())
	}
	if old != nil {
		// The console of the run before has hung up and gives no more.
		if err := errors.Join(old.Close(), out.StopDrains()); err != nil {
			c.logger("console").Warn("Cannot close the console of the run before", "error", err)
		}
	}
	pipe := via
	via = nil
	return out.DrainThrough(output.Stdout, reading, pipe)
}

// awaitConsole waits until the runtime's console has arrived, which it sends
// before it reports success.
func awaitConsole(ctx context.Context, c streamer) error {
	var consoles *consoleListener
	c.streams(func(std *stdio) { consoles = std.consoles })
	if consoles == nil {
		return nil
	}
	select {
	case <-consoles.first:
		return nil
	case <-consoles.done:
		return errors.New("cannot get the console: its listener was closed")
	case <-ctx.Done():
		return fmt.Errorf("cannot get the console: %w", context.Cause(ctx))
	}
}

// disconnect closes everything that the daemon has open of a run that is over,
// and takes it out of systemd's store.
func (m *Manager) disconnect(ctx context.Context, c *Container) error {
	c.mu.Lock()
	std, out := c.std, c.out
	c.std = stdio{}
	c.mu.Unlock()
	errs := []error{std.close()}
	if out != nil {
		errs = append(errs, out.StopDrains())
	}
	return errors.Join(append(errs, m.o.Descriptors.Remove(ctx, storedNames(c.id)...))...)
}

// storedNames are all names that descriptors of a run may have in systemd's store.
func storedNames(id string) []string {
	var names []string
	for _, what := range []string{fdStdin, fdStdout, fdStderr, fdConsole, fdListener, fdVia} {
		names = append(names, fdName(id, what))
	}
	return names
}
