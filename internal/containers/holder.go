package containers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"lrd/internal/units"
)

// A systemd before 254 empties a service's descriptor store when the service is
// stopped. A container whose console or input nobody holds any more is then hung
// up, or reads the end of its input; and of one that ends before lrd is back,
// the last words go with the pipe. So, before a stop, each running container gets
// a second unit, its holder, whose descriptors these are:
//
//	lrd-hold-<id>.service   Type=oneshot, RemainAfterExit=yes, without a process
//	                        without TTY        with TTY
//	    standard input      stdin, if any      console-pipe
//	    standard output     stdout             console
//	    standard error      stderr             console-listener
//
// PID 1 keeps them for as long as the holder is active. At its next start the
// daemon opens FIFOs again by path, before it stops the holder. A console cannot
// be opened so and is handed back: ExecReload= of the holder runs "lrd
// hand-back", which inherits the descriptors and sends them through a socket. It
// is a reload rather than a stop because one that fails leaves the holder as it
// is, for another try.
//
// The console must not be standard input: systemd resets a terminal that it
// finds there, under the hands of the program that runs in it.
const (
	holderPrefix = unitPrefix + "hold-"
	// storeSurvives is the first version of systemd that keeps a store over a stop, as FileDescriptorStorePreserve= of lrd.service asks for.
	storeSurvives = 254
	// handBackSocket in the container's runtime directory is there while descriptors are being taken back.
	handBackSocket = "hand-back"
	// handBackTimeout bounds the taking back from one holder, which takes some 50 ms on a machine that has nothing else to do.
	handBackTimeout = 30 * time.Second
)

// slots are a holder's standard streams, in the order of their numbers.
var slots = [...]string{"StandardInputFileDescriptor", "StandardOutputFileDescriptor", "StandardErrorFileDescriptor"}

func holderName(id string) string { return holderPrefix + id + unitSuffix }

// holderID is the container that a holder is for; false for other units.
func holderID(unit string) (id string, ok bool) {
	id, ok = strings.CutPrefix(unit, holderPrefix)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(id, unitSuffix)
	return id, ok && isID(id)
}

// Hold sees to it that consoles and inputs of running containers outlive a stop
// of the daemon. It is called when lrd.service is being stopped, and not
// restarted; with a systemd that keeps the store there is nothing to do. Close
// comes after it.
func (m *Manager) Hold(ctx context.Context) error {
	if m.o.Units.Version() >= storeSurvives {
		return nil
	}
	m.releasing.Wait() // a start just before: what it stops must not be the new holders
	var group errgroup.Group
	group.SetLimit(restoreParallel)
	for _, c := range m.all() {
		group.Go(func() error {
			if err := m.hold(ctx, c); err != nil {
				m.logger(c.id, "hold").Error("The container may lose its console, its input or its last words while lrd is stopped", "error", err)
			}
			return nil
		})
	}
	return group.Wait()
}

// hold starts the holder of one container, if there is something to hold.
func (m *Manager) hold(ctx context.Context, c *Container) error {
	held, err := m.holdings(c)
	defer closeAll(held[:])
	if err != nil || held == ([len(slots)]*os.File{}) {
		return err
	}
	props, err := m.holderProperties(c, held)
	if err != nil {
		return err
	}
	name := holderName(c.id)
	// One that is there already is of an earlier stop, and holds what has come back since.
	if err := m.o.Units.Stop(ctx, name); err != nil {
		return err
	}
	return m.o.Units.Start(ctx, name, props)
}

// holdings are descriptors, for the caller to close, of what a container would
// miss, by slot; nil where there is nothing.
func (m *Manager) holdings(c *Container) (held [len(slots)]*os.File, err error) {
	if !c.Status().Running() || c.foreign {
		return held, nil
	}
	r, _ := c.snapshot()
	tty, std := r.Config.Tty, c.streams
	std.mu.Lock()
	defer std.mu.Unlock()
	var errs [len(slots)]error
	switch {
	case tty && std.console == nil: // it is held already, or lost
	case tty:
		held[0], errs[0] = openFIFO(m.pipePath(c.id, fdVia), 0)
		held[1], errs[1] = duplicate(std.console)
		if std.consoles != nil {
			held[2], errs[2] = std.consoles.l.File()
		} else {
			// What is not given is the same as standard output, and nothing is to write to a console.
			held[2], errs[2] = os.OpenFile(os.DevNull, os.O_RDWR, 0)
		}
	default:
		if std.stdin != nil {
			held[0], errs[0] = duplicate(std.stdin)
		}
		held[1], errs[1] = openFIFO(m.pipePath(c.id, fdStdout), 0)
		held[2], errs[2] = openFIFO(m.pipePath(c.id, fdStderr), 0)
	}
	return held, errors.Join(errs[:]...)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

func (m *Manager) holderProperties(c *Container, held [len(slots)]*os.File) ([]units.Property, error) {
	r, _ := c.snapshot()
	what := "pipes"
	if r.Config.Tty {
		what = "console"
	}
	props := []units.Property{
		units.String("Description", fmt.Sprintf("The %s of container %s, kept while lrd is stopped", what, r.Name)),
		units.String("Slice", Slice),
		units.String("Type", "oneshot"),
		units.Bool("RemainAfterExit", true),
		units.Exec("ExecStart", false, "/bin/true"),
		// At a shutdown the container ends first.
		units.Strings("Before", unitName(c.id)),
	}
	if r.Config.Tty {
		handBack := append(append([]string{}, m.o.HandBack...), m.pipePath(c.id, handBackSocket), fdVia, fdConsole, fdListener)
		props = append(props, units.Exec("ExecReload", false, handBack...))
	}
	for slot, f := range held {
		if f == nil {
			continue
		}
		p, err := units.FD(slots[slot], f)
		if err != nil {
			return nil, err
		}
		props = append(props, p)
	}
	return props, nil
}

// takeBack collects the consoles that holders have kept over a stop of the
// daemon, puts them into systemd's store, and adds them to descriptors. It
// returns the holders that are to be released when pipes have been opened again:
// one that does not give its console back stays, so that its container is not hung up.
func (m *Manager) takeBack(ctx context.Context, loaded map[string]units.State, descriptors map[string]ends) (holders []string) {
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(restoreParallel)
	for name := range loaded {
		id, ok := holderID(name)
		if !ok {
			continue
		}
		mu.Lock()
		have := descriptors[id][fdConsole] != nil
		mu.Unlock()
		// Also of a container that has ended: its console may hold its last words.
		if _, err := os.Lstat(m.pipePath(id, fdListener)); err != nil || have {
			mu.Lock()
			holders = append(holders, name)
			mu.Unlock()
			continue
		}
		group.Go(func() error {
			e, err := m.takeBackOne(ctx, id)
			if err != nil {
				m.logger(id, "restore").Error("Cannot take back the console that was kept for the container while lrd was stopped; it is tried again at the next start", "holder", name, "error", err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			holders = append(holders, name)
			if descriptors[id] == nil {
				descriptors[id] = ends{}
			}
			for what, f := range e {
				if old := descriptors[id].take(what); old != nil {
					_ = old.Close() // opened since; what was held is what the container knows
				}
				descriptors[id][what] = f
			}
			return nil
		})
	}
	_ = group.Wait() // says what is wrong in the log: the container gets a reason for what is missing
	return holders
}

// release ends holders in the background.
func (m *Manager) release(holders []string) {
	if len(holders) == 0 {
		return
	}
	m.releasing.Go(func() {
		for _, name := range holders {
			if err := m.o.Units.Stop(m.ctx, name); err != nil && m.ctx.Err() == nil {
				m.o.Log.Warn("Cannot stop a unit that kept descriptors while lrd was stopped", "unit", name, "error", err)
			}
		}
	})
}

// takeBackOne takes back what one holder has. It is in systemd's store when it returns.
func (m *Manager) takeBackOne(ctx context.Context, id string) (_ ends, err error) {
	ctx, cancel := context.WithTimeout(ctx, handBackTimeout)
	defer cancel()
	path := m.pipePath(id, handBackSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	f, err := listenConsole(path)
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	listener, err := net.FileListener(f)
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	l, ok := listener.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("cannot listen for what was kept: the socket is a %T", listener)
	}
	context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })

	reloaded := make(chan error, 1)
	go func() { // ends with the holder's job, or with ctx
		err := m.o.Units.Reload(ctx, holderName(id))
		if err != nil {
			cancel()
		}
		reloaded <- err
	}()
	e, receiveErr := m.receiveHeld(ctx, l, id)
	if receiveErr != nil {
		cancel()
	}
	if err := errors.Join(<-reloaded, receiveErr); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// receiveHeld waits for "lrd hand-back", stores what it sends, and lets it go.
func (m *Manager) receiveHeld(ctx context.Context, l *net.UnixListener, id string) (_ ends, err error) {
	conn, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	e, err := receiveNamed(conn)
	if err != nil {
		return nil, err
	}
	items := e.items(id)
	for _, item := range items {
		// Not one more of a name that the store has already.
		err = errors.Join(err, m.o.Descriptors.Remove(ctx, item.Name))
	}
	if err = errors.Join(err, m.o.Descriptors.PutAll(ctx, items)); err == nil {
		_, err = conn.Write([]byte{'\n'})
	}
	if err != nil {
		e.close()
		return nil, fmt.Errorf("cannot keep what was handed back: %w", err)
	}
	return e, nil
}

// receiveNamed reads one message of descriptors and their names, which are separated by spaces.
func receiveNamed(conn *net.UnixConn) (ends, error) {
	data, rights := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*len(slots)))
	n, rn, flags, _, err := conn.ReadMsgUnix(data, rights)
	if err != nil {
		return nil, err
	}
	var fds []int
	if messages, err := unix.ParseSocketControlMessage(rights[:rn]); err == nil && len(messages) == 1 {
		fds, _ = unix.ParseUnixRights(&messages[0])
	}
	e := ends{}
	for i, fd := range fds {
		unix.CloseOnExec(fd)
		name := fmt.Sprint("unnamed", i)
		if names := strings.Fields(string(data[:n])); i < len(names) {
			name = names[i]
		}
		e[name] = os.NewFile(uintptr(fd), name)
	}
	if len(fds) == 0 || len(fds) > len(slots) || len(fds) != len(strings.Fields(string(data[:n]))) || flags&unix.MSG_CTRUNC != 0 {
		e.close()
		return nil, errors.New("cannot understand what was handed back")
	}
	return e, nil
}

// HandBack is the other end of takeBack: a process that systemd starts with a
// holder's descriptors as its standard streams sends them to the daemon that
// listens at socket, under names in the order of their numbers. It returns when
// the daemon has them in systemd's store. It must not write anything: standard
// output is a container's console.
func HandBack(socket string, names []string) error {
	if len(names) == 0 || len(names) > len(slots) {
		return fmt.Errorf("cannot hand %d descriptors back: a holder has 1 to %d", len(names), len(slots))
	}
	fds := []int{0, 1, 2}
	return handBack(socket, names, fds[:len(names)])
}

func handBack(socket string, names []string, fds []int) error {
	// By way of its directory's descriptor, as in listenConsole.
	dir, err := os.OpenFile(filepath.Dir(socket), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket)), Net: "unix"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(handBackTimeout)); err != nil {
		return err
	}
	if _, _, err := conn.WriteMsgUnix([]byte(strings.Join(names, " ")), unix.UnixRights(fds...), nil); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// dropHolder ends a container's holder, if it could not give back what it has.
func (m *Manager) dropHolder(ctx context.Context, r *Record) error {
	if m.o.Units.Version() >= storeSurvives {
		return nil
	}
	return m.o.Units.Stop(ctx, holderName(r.ID))
}
