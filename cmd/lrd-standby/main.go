// Command lrd-standby drains the output of containers while lrd is stopped (lrd-standby.service). It is given the
// descriptors when lrd is stopped, and gives them back when it starts: package handover has the protocol. Meanwhile it
// writes into the same stores of output as lrd does, with the same code, and serves the clients that read them.
//
//	lrd, stopping ── hold ──▶ keeper ──┬── store    systemd's store of lrd-standby.service: what a crash does not reach
//	lrd, starting ◀─ give ──           ├── record   the file that says what is held
//	                                   ├── logs     drains, and the consoles of next runs
//	                                   └── sessions clients that read, and type
//
// It is a process of its own, and not lrd without most of it, for its size: it stays where lrd does not. So it has no
// configuration, speaks to systemd by sd_notify(3) alone, and follows no units: that a container has ended is for lrd to
// find out, and clients that wait for that are kept until then.
//
// # A crash
//
// What is held is in systemd's store before the record says so, and the record says so before lrd is told. A process
// that starts with a record goes on where the one before was killed; descriptors that no record speaks of are closed.
//
// # Concurrency
//
// The main goroutine accepts connections and serves one after the other; a later one ends an earlier one. The keeper
// starts and ends all else: see there.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	systemd "github.com/coreos/go-systemd/v22/daemon"

	"lrd/internal/fdstore"
	"lrd/internal/handover"
	"lrd/internal/journal"
)

// version is set by the linker.
var version = "dev"

// gcPercent keeps the heap close to what is used: a process that mostly waits can spend the time.
const gcPercent = 25

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "version":
		fmt.Println(version)
		return
	case len(os.Args) > 1:
		fmt.Fprintln(os.Stderr, "lrd-standby: it is run by lrd-standby.service, without arguments; lrd-standby version tells its version")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	log, _ := journal.New(os.Stderr, slog.LevelInfo)
	err := run(ctx, places{handover.Socket, handover.Record}, log)
	stop()
	if err != nil {
		log.Error(err.Error())
		os.Exit(1)
	}
}

// places are where the standby is found.
type places struct{ socket, record string }

// listenerName is the name of our own listening socket in our store.
const listenerName = "socket"

// run is the standby until ctx is done. All that it holds stays in systemd's store then.
func run(ctx context.Context, at places, log *slog.Logger) error {
	debug.SetGCPercent(gcPercent)
	set, err := fdstore.Receive()
	if err != nil {
		return err
	}
	// Without a count, which is to be had over D-Bus alone: lrd's store, of the same size, has held as much.
	store, err := fdstore.Open(nil)
	if err != nil {
		return fmt.Errorf("cannot use systemd's descriptor store; lrd-standby runs as a service of it: %w", err)
	}
	defer store.Close()
	l, err := listen(ctx, set, store, at.socket)
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	k := newKeeper(store, at.record, log)
	defer k.stop()
	if err := k.restore(ctx, set); err != nil {
		return err
	}
	notify(log, systemd.SdNotifyReady+"\n"+k.status())
	accept(ctx, l, k, log)
	notify(log, systemd.SdNotifyStopping)
	return nil
}

func notify(log *slog.Logger, state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		log.Warn("Cannot notify systemd", "error", err)
	}
}

// listen is the socket that lrd connects to. It is in our store: a connection that is made after a crash waits for
// the next process.
func listen(ctx context.Context, set *fdstore.Set, store *fdstore.Store, path string) (*net.UnixListener, error) {
	if f := set.Take(listenerName); f != nil {
		l, err := net.FileListener(f)
		_ = f.Close()
		if ul, ok := l.(*net.UnixListener); ok && sameSocket(ul, path) {
			ul.SetUnlinkOnClose(false)
			return ul, nil
		}
		if err == nil {
			_ = l.Close()
		}
	}
	if err := store.Remove(ctx, listenerName); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen for lrd: %w", err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(path, 0o600)
	f, fileErr := l.File()
	if err = errors.Join(err, fileErr); err == nil {
		err = store.Put(ctx, listenerName, f)
		_ = f.Close()
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("cannot listen for lrd: %w", err)
	}
	return l, nil
}

// sameSocket says whether the socket can still be reached by its path.
func sameSocket(l *net.UnixListener, path string) bool {
	_, err := os.Lstat(path)
	return err == nil && l.Addr().String() == path
}

// accept serves lrd, until ctx is done. There is one lrd: a connection that is made while there is another one is that
// of a later process, and the earlier one is dead or hangs.
func accept(ctx context.Context, l *net.UnixListener, k *keeper, log *slog.Logger) {
	end := func() {}
	defer func() { end() }()
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return
		}
		if err != nil {
			log.Error("Cannot accept a connection", "error", err)
			return // and be started again
		}
		end()
		serving, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		end = func() { cancel(); <-done }
		go func() { // ends with the connection, or with end
			defer close(done)
			defer cancel()
			if err := handover.Serve(serving, c, k); err != nil {
				log.Error("The conversation with lrd was cut off", "error", err)
			}
			notify(log, k.status())
			debug.FreeOSMemory() // what JSON and buffers took
		}()
	}
}
