package main

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"lrd/internal/fdstore"
	"lrd/internal/handover"
	"lrd/internal/units"
)

// storeSurvives is the first version of systemd that keeps a store over a stop, as FileDescriptorStorePreserve= of
// lrd.service asks for. Before, what nobody else holds is gone when lrd is stopped.
const storeSurvives = 254

// standbyLimit bounds all that lrd-standby is asked at a stop or a start. Hundreds of containers take it less than a
// second; one that hangs is noticed much earlier.
const standbyLimit = time.Minute

// standbyAppears is how long a start of lrd-standby that was ordered together with ours may take to show.
const standbyAppears = time.Second

// frozen are the connections of sessions that a stop has frozen, for lrd-standby.
type frozen struct {
	mu    sync.Mutex
	files []handover.File
}

func (f *frozen) add(name string, conn *os.File) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files = append(f.files, handover.File{Name: name, File: conn})
}

// take gives the connections to the caller.
func (f *frozen) take() []handover.File {
	f.mu.Lock()
	defer f.mu.Unlock()
	files := f.files
	f.files = nil
	return files
}

// takeBack takes back what lrd-standby holds since an earlier stop, before anybody opens an output: it is among what
// systemd has handed over then. A standby that does not answer keeps nobody from starting; what it drained is on disk,
// and FIFOs are opened again by path.
func (d *daemon) takeBack(ctx context.Context) {
	if !handover.Held(handover.Record) {
		return
	}
	begin := time.Now()
	err := d.awaitStandby(ctx)
	if err == nil {
		err = d.askStandby(ctx, func(ctx context.Context) error {
			return handover.TakeBack(ctx, handover.Socket, func(files []handover.File) error { return d.keep(ctx, files) })
		})
	}
	if err == nil {
		d.log.Info("Took over from lrd-standby", "took", time.Since(begin).Round(time.Millisecond))
		return
	}
	d.log.Error("Cannot take over from lrd-standby; going on without what it holds", "error", err)
	// It must not come back to it either: what it drains would be drained twice.
	if err := errors.Join(handover.Revoke(handover.Record), d.killStandby(ctx)); err != nil {
		d.log.Error("Cannot make lrd-standby let go", "error", err)
	}
}

// awaitStandby returns an error if lrd-standby does not run and is not about to.
func (d *daemon) awaitStandby(ctx context.Context) error {
	for deadline := time.Now().Add(standbyAppears); ; {
		s, err := d.units.State(ctx, handover.Unit)
		if err != nil {
			return err
		}
		if s.ActiveState == "active" || s.ActiveState == "activating" {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New(handover.Unit + " is " + s.ActiveState)
		}
		time.Sleep(standbyAppears / 20)
	}
}

// askStandby asks lrd-standby something. One that hangs is killed, starts again with what systemd's store has for it,
// and is asked once more.
func (d *daemon) askStandby(ctx context.Context, ask func(context.Context) error) error {
	once := func() error {
		ctx, cancel := context.WithTimeout(ctx, standbyLimit)
		defer cancel()
		return ask(ctx)
	}
	err := once()
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	d.log.Warn("lrd-standby does not answer; it is killed, and asked again", "error", err)
	if err := d.killStandby(ctx); err != nil {
		return err
	}
	return once()
}

func (d *daemon) killStandby(ctx context.Context) error {
	err := d.units.Kill(ctx, handover.Unit, units.KillAll, syscall.SIGKILL)
	if errors.Is(err, units.ErrNotLoaded) {
		return nil
	}
	return err
}

// keep puts what lrd-standby has given back among what systemd has handed over, and into systemd's store where that
// has it not. It takes the files over.
func (d *daemon) keep(ctx context.Context, files []handover.File) error {
	var items []fdstore.Item
	for _, f := range files {
		switch {
		case f.New:
			// The container's systemd has begun a run of its own meanwhile: what our store has is of the one before.
			for _, old := range d.set.TakeAll(f.Name) {
				_ = old.Close()
			}
			if err := d.store.Replace(ctx, f.Name, f.File); err != nil {
				d.log.Error("Cannot keep a console over a restart of lrd", "descriptor", f.Name, "error", err)
			}
		case d.set.Has(f.Name):
			_ = f.File.Close()
			continue
		default:
			items = append(items, fdstore.Item{Name: f.Name, File: f.File})
		}
		d.set.Add(f.Name, f.File)
	}
	if err := d.store.PutAll(ctx, items); err != nil {
		d.log.Error("Cannot keep all descriptors over a restart of lrd", "error", err)
	}
	return nil
}

// handsOver says whether this stop is one over which somebody else is to keep the containers' streams: not at a restart,
// by a person or by systemd itself, when the store stays; not when the machine goes down; and not when lrd-standby is
// stopped together with lrd, which is how both are stopped.
func (d *daemon) handsOver(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, standbyLimit)
	defer cancel()
	job, err := d.units.JobType(ctx, d.unit)
	if err != nil {
		d.log.Warn("Cannot find out whether lrd is being stopped or restarted; it is taken for a stop", "error", err)
		job = "stop"
	}
	if job != "stop" || d.systemStopping() || !d.reload.Current().Standby && d.units.Version() >= storeSurvives {
		return false
	}
	s, err := d.units.State(ctx, handover.Unit)
	if err == nil && s.ActiveState != "active" && s.ActiveState != "activating" {
		err = errors.New("it is " + s.ActiveState)
	}
	if err == nil {
		job, err = d.units.JobType(ctx, handover.Unit)
		if err == nil && job == "stop" {
			err = errors.New("it is being stopped too")
		}
	}
	if err != nil {
		d.log.Info("Nobody drains while lrd is stopped: containers wait when their pipes are full", "lrd-standby", err)
		return false
	}
	return true
}

// closeContainers leaves the containers: to lrd-standby, if this is a stop of that kind.
func (d *daemon) closeContainers() error {
	defer func() { handover.CloseFiles(d.frozen.take()) }()
	if !d.handing {
		return d.ctrs.Close()
	}
	begin := time.Now()
	err := d.ctrs.HandOver(func(h handover.Holding, leave func(func(string))) error {
		h.Drain, h.Sessions = d.reload.Current().Standby, d.sessionsDir()
		clients := d.frozen.take()
		defer handover.CloseFiles(clients)
		h.Files = append(h.Files[:len(h.Files):len(h.Files)], clients...)
		if len(h.Files) == 0 {
			return nil
		}
		err := d.askStandby(context.Background(), func(ctx context.Context) error {
			return handover.Pass(ctx, handover.Socket, h, leave)
		})
		if err == nil {
			d.log.Info("Passed the containers' streams to lrd-standby", "outputs", len(h.Logs), "streams", len(clients), "descriptors", len(h.Files), "took", time.Since(begin).Round(time.Millisecond))
		}
		return err
	})
	if err != nil {
		d.log.Error("Cannot leave everything to lrd-standby", "error", err)
	}
	return err
}
