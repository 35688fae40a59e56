package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"

	"lrd/internal/journal"
	"lrd/internal/names"
)

func main() {
	dir := flag.String("dir", "/run/lrd/dns", "the directory of containers' names")
	flag.Parse()
	log, _ := journal.New(os.Stderr, slog.LevelInfo)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *dir, log); err != nil {
		log.Error("Cannot serve names", "error", err)
		os.Exit(1)
	}
}

// run serves the directory until ctx ends. Questions at the control socket come from systemd's socket unit, if there is one.
func run(ctx context.Context, dir string, log *slog.Logger) error {
	control, err := activation.Listeners()
	if err != nil {
		return fmt.Errorf("cannot take the control socket: %w", err)
	}
	r := newResolver(dir, log)
	defer r.close()
	changes, err := watch(dir)
	if err != nil {
		return err
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer changes.Close()
	// What cannot be served is told, and no reason not to serve the others.
	if err := r.scan(); err != nil {
		log.Warn("Some containers cannot ask for names", "error", err)
	}
	if _, err := systemd.SdNotify(false, systemd.SdNotifyReady); err != nil {
		return fmt.Errorf("cannot tell systemd: %w", err)
	}
	for _, l := range control {
		defer l.Close()
		work.Go(func() { r.answer(l) })
	}
	work.Go(func() { r.follow(changes) })
	<-ctx.Done()
	for _, l := range control {
		_ = l.Close()
	}
	return nil
}

// answerAgain is the pause after a connection that could not be taken, for want of descriptors or memory: who asks waits.
const answerAgain = 100 * time.Millisecond

// answer answers at the control socket until it is closed.
func (r *resolver) answer(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			r.log.Error("Cannot take a connection at the control socket", "error", err)
			time.Sleep(answerAgain)
			continue
		}
		if err := names.Answer(c, r.scan()); err != nil {
			r.log.Debug("Whoever asked did not wait", "error", err)
		}
	}
}

// follow reads the directory again whenever something in it changes, until the watch is closed.
func (r *resolver) follow(changes *watcher) {
	for changes.next() {
		if err := r.scan(); err != nil {
			r.log.Warn("Some containers cannot ask for names", "error", err)
		}
	}
}
