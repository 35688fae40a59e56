package logdrivers

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"lrd/internal/output"
)

// This file is how a forwarder delivers: what it does with its target and its state.

// begin prepares for the first entry. It says whether to go on: not if ctx is done.
func (f *Forwarder) begin(ctx context.Context) bool {
	if f.resumed {
		return true
	}
	sending := f.st.Sending
	if !f.insist(ctx, func() error { return f.target.resume(ctx, f.st.Ordinal, f.st.Target, sending) }) {
		return false
	}
	// On record before the first is sent: after a SIGKILL the next one has to find out how far this one came.
	f.st.Sending, f.st.Done = true, false
	f.resumed = f.insist(ctx, func() error { return f.file.save(&f.st) })
	return f.resumed
}

// add gives the target an entry, and counts it. It says whether to go on.
func (f *Forwarder) add(ctx context.Context, e *entry) bool {
	if f.target.add(ctx, e) != nil && !f.insist(ctx, func() error { return f.target.add(ctx, e) }) {
		f.torn = true // the splitter is past the entry, and the position before it
		return false
	}
	f.st.Ordinal = e.ordinal
	return true
}

// commit delivers the batch and saves how far the forwarder is. It says whether to go on.
func (f *Forwarder) commit(ctx context.Context) bool {
	if !f.dirty {
		return ctx.Err() == nil
	}
	f.yield.pass()
	return f.insist(ctx, func() error { return f.deliver(ctx) })
}

func (f *Forwarder) deliver(ctx context.Context) error {
	if f.resumed {
		if err := f.target.flush(ctx); err != nil {
			return err
		}
		saved, err := json.Marshal(f.target.save())
		if err != nil {
			return err
		}
		f.st.Target = saved
	}
	if err := f.file.save(&f.st); err != nil {
		return err
	}
	f.counter.Add(f.pending)
	f.pending, f.dirty = 0, false
	f.record.Store(f.st.Position.Record)
	return nil
}

// caughtUp takes note, on disk, that there is nothing left to do until the next run. p is the reader's position, at the end.
func (f *Forwarder) caughtUp(p output.Position) {
	// Behind markers that have no bytes.
	f.st.Position = output.Position{Record: p.Record, Offset: p.Offset}
	f.record.Store(p.Record)
	done := !f.log.Running() && f.st.Position.Record >= f.log.End().Record
	if done == f.st.Done {
		return
	}
	f.st.Done = done
	if err := f.file.save(&f.st); err != nil {
		f.o.Log.Warn("Cannot save that the log is forwarded; it is looked at again at the next start", "driver", f.o.Driver, "error", err)
	}
}

// insist tries do until it works, with pauses. It says whether it did: not if ctx is done.
func (f *Forwarder) insist(ctx context.Context, do func() error) bool {
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		err := do()
		if err == nil {
			if f.failing {
				f.failing = false
				f.o.Log.Info("The log driver takes output again", "driver", f.o.Driver)
			}
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		f.yield.pass()
		if !f.failing {
			f.failing = true
			f.o.Log.Warn("The log driver does not take output; the container is not held up, and the log is forwarded later", "driver", f.o.Driver, "error", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// end is the forwarder's end: one more try, and a state that says that there is nothing to ask for.
func (f *Forwarder) end() {
	ctx, cancel := context.WithTimeout(context.Background(), lastTry)
	defer cancel()
	var err error
	if f.dirty && !f.torn {
		err = f.deliver(ctx)
	}
	// Of a forwarder that has not come to asking, what an earlier one has sent is still to be asked for.
	if err == nil && f.resumed && f.st.Sending && !f.torn {
		f.st.Sending = false
		err = f.file.save(&f.st)
	}
	if err != nil {
		f.o.Log.Info("The log driver has not taken all output; it is forwarded at the next start", "driver", f.o.Driver, "error", err)
	}
	if err := errors.Join(f.target.close(), f.file.close()); err != nil {
		f.o.Log.Warn("Cannot close the log driver", "driver", f.o.Driver, "error", err)
	}
}
