package main

import (
	"context"
	"errors"
	"os"
	"time"

	"lrd/internal/handover"
	"lrd/internal/output"
)

// drained is a Log that is drained.
type drained struct {
	l        handover.Log
	out      *output.Log
	consoles *output.Consoles // nil without a TTY
}

// open opens a Log and drains into it. The error is output.ErrBusy while somebody else does.
func (k *keeper) open(l handover.Log) error {
	if _, err := os.Stat(l.Dir); err != nil {
		return err // a container that is gone, or was moved away, is not to have a directory again
	}
	o := l.Options
	o.Log = k.log.With("container", l.ID, "operation", "output")
	o.Compress = false // which takes memory: lrd compresses what was not
	out, err := output.Open(l.Dir, o)
	if err != nil {
		return err
	}
	d := &drained{l: l, out: out}
	k.mu.Lock()
	stdout, stderr := k.fileLocked(handover.Name(l.ID, handover.Stdout)), k.fileLocked(handover.Name(l.ID, handover.Stderr))
	console, via := k.fileLocked(handover.Name(l.ID, handover.Console)), k.fileLocked(handover.Name(l.ID, handover.Via))
	listener := k.fileLocked(handover.Name(l.ID, handover.Listener))
	k.logs[l.ID] = d
	k.mu.Unlock()
	var errs []error
	if stdout != nil {
		errs = append(errs, out.Drain(output.Stdout, stdout, output.FIFO))
	}
	if stderr != nil {
		errs = append(errs, out.Drain(output.Stderr, stderr, output.FIFO))
	}
	if console != nil && via != nil {
		errs = append(errs, out.DrainThrough(output.Stdout, console, via))
	} else {
		closeAll(console, via)
	}
	if listener != nil {
		// After the console that was there before: one in the queue is of a later run.
		consoles, err := output.ServeConsoles(listener, func(master *os.File) { k.takeConsole(d, master) })
		errs = append(errs, err)
		k.mu.Lock()
		d.consoles = consoles
		k.mu.Unlock()
	}
	return errors.Join(errs...)
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// settleTimeout bounds the taking over of the last words of a run whose container runs again.
const settleTimeout = 5 * time.Second

// takeConsole takes in the console of a run that systemd has begun. It is stored before anything else: the
// container's own process has not been started yet.
func (k *keeper) takeConsole(d *drained, master *os.File) {
	defer master.Close()
	log := k.log.With("container", d.l.ID)
	name := handover.Name(d.l.ID, handover.Console)
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	if err := k.newConsole(ctx, name, master); err != nil {
		log.Error("Cannot keep the console of the container's next run", "error", err)
	}
	// The console of the run before has hung up: what it gives now is its last.
	if err := errors.Join(d.out.Settle(ctx), d.out.StopDrains()); err != nil {
		log.Warn("Cannot close the console of the run before", "error", err)
	}
	k.mu.Lock()
	reading, via := k.fileLocked(name), k.fileLocked(handover.Name(d.l.ID, handover.Via))
	k.mu.Unlock()
	if reading == nil || via == nil {
		closeAll(reading, via)
		return
	}
	if err := d.out.DrainThrough(output.Stdout, reading, via); err != nil && !errors.Is(err, output.ErrClosed) {
		log.Error("Cannot read the container's console", "error", err)
	}
}

// newConsole puts a console that lrd does not know of where a crash does not reach it.
func (k *keeper) newConsole(ctx context.Context, name string, master *os.File) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.record == nil {
		return errors.New("it came when all had been given back")
	}
	next := *k.record
	next.New = append(next.New[:len(next.New):len(next.New)], name)
	return errors.Join(
		k.store.Replace(ctx, name, master),
		next.save(k.path),
		func() error { k.record = &next; return k.keepLocked(name, dupFile(master)) }(),
	)
}

// close ends the drains between two writes.
func (d *drained) close() error {
	var errs []error
	if d.consoles != nil {
		errs = append(errs, d.consoles.Close())
	}
	return errors.Join(append(errs, d.out.Close())...)
}
