package units

import (
	"context"
	"errors"
	"sync"

	"github.com/godbus/dbus/v5"
)

// jobs brings results of jobs to those who wait for them. A job's path is known only from the reply to the call that made it, and the job may have ended
// by the time that the reply is looked at: while such calls are on their way, results that nobody waits for are kept.
type jobs struct {
	mu      sync.Mutex // guards what follows
	calling int
	early   map[dbus.ObjectPath]string
	// waiting: several, because a second stop of a unit is given the job of the first.
	waiting map[dbus.ObjectPath][]chan<- string
}

// finished takes a result. It is called by the connection's reader.
func (j *jobs) finished(job dbus.ObjectPath, result string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	waiting := j.waiting[job]
	for _, ch := range waiting {
		ch <- result // has room: one result for each channel
	}
	delete(j.waiting, job)
	if j.calling > 0 {
		// Also if somebody was waiting: another call may be about to learn this path.
		if j.early == nil {
			j.early = make(map[dbus.ObjectPath]string)
		}
		j.early[job] = result
	}
}

// begin announces a call that will make a job; end must follow.
func (j *jobs) begin() {
	j.mu.Lock()
	j.calling++
	j.mu.Unlock()
}

// end says that the path of the job is claimed, or that there is none.
func (j *jobs) end() {
	j.mu.Lock()
	if j.calling--; j.calling == 0 {
		j.early = nil
	}
	j.mu.Unlock()
}

// claim returns a channel that gets the job's result, and a function to call when the result is not wanted any more.
func (j *jobs) claim(job dbus.ObjectPath) (<-chan string, func()) {
	ch := make(chan string, 1)
	j.mu.Lock()
	defer j.mu.Unlock()
	if result, ok := j.early[job]; ok {
		ch <- result
		return ch, func() {}
	}
	if j.waiting == nil {
		j.waiting = make(map[dbus.ObjectPath][]chan<- string)
	}
	j.waiting[job] = append(j.waiting[job], ch)
	return ch, func() { j.forget(job, ch) }
}

func (j *jobs) forget(job dbus.ObjectPath, ch chan<- string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	kept := j.waiting[job][:0]
	for _, c := range j.waiting[job] {
		if c != ch {
			kept = append(kept, c)
		}
	}
	if len(kept) == 0 {
		delete(j.waiting, job)
		return
	}
	j.waiting[job] = kept
}

// goal is what a job is for; it decides what a unit's state means when the job's result has been lost.
type goal int

const (
	goalStart goal = iota
	goalStop
)

// runJob calls a method of PID 1 that returns a job, and waits for the job's result.
func (m *Manager) runJob(ctx context.Context, unit string, g goal, method string, args ...any) error {
	l, err := m.current(ctx)
	if err != nil {
		return err
	}
	m.jobs.begin()
	var job dbus.ObjectPath
	_, err = l.call(ctx, []any{&job}, managerPath, method, args...)
	if replyLost(err) {
		m.jobs.end()
		return m.adoptJob(ctx, unit, g)
	}
	if err != nil {
		m.jobs.end()
		return err
	}
	result, forget := m.jobs.claim(job)
	m.jobs.end()
	defer forget()
	return m.awaitJob(ctx, l, job, result, unit, g)
}

// awaitJob waits for the result of a job that was on connection l when last seen.
func (m *Manager) awaitJob(ctx context.Context, l *link, job dbus.ObjectPath, result <-chan string, unit string, g goal) error {
	for {
		select {
		case r := <-result:
			return jobResult(unit, r)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.lost:
		}
		// PID 1 keeps its jobs and their numbers over a daemon-reexec: either the job is still there, and its signal will come to the new connection, or
		// it has ended.
		next, err := m.current(ctx)
		if err != nil {
			return err
		}
		l = next
		gone, err := jobGone(ctx, l, job)
		switch {
		case replyLost(err):
			continue
		case err != nil:
			return err
		case !gone:
			continue
		}
		select {
		case r := <-result: // signalled on either connection, before the reply
			return jobResult(unit, r)
		default:
			return m.outcome(ctx, unit, g)
		}
	}
}

// jobGone asks whether the job does not exist any more.
func jobGone(ctx context.Context, l *link, job dbus.ObjectPath) (bool, error) {
	var id dbus.Variant
	_, err := l.call(ctx, []any{&id}, job, propsIface+".Get", "org.freedesktop.systemd1.Job", "Id")
	if isDBusError(err, "org.freedesktop.DBus.Error.UnknownObject") || isDBusError(err, "org.freedesktop.systemd1.NoSuchJob") {
		return true, nil
	}
	return false, err
}

// adoptJob finds out what became of a call whose reply was lost: the unit's job, if it has one, is taken for the one that was asked for.
func (m *Manager) adoptJob(ctx context.Context, unit string, g goal) error {
	for {
		l, err := m.current(ctx)
		if err != nil {
			return err
		}
		m.jobs.begin()
		job, err := unitJob(ctx, l, unit)
		if err != nil || job == "" {
			m.jobs.end()
			if replyLost(err) {
				continue
			}
			if err != nil && !errors.Is(err, ErrNotLoaded) {
				return err
			}
			return m.outcome(ctx, unit, g)
		}
		result, forget := m.jobs.claim(job)
		m.jobs.end()
		defer forget()
		return m.awaitJob(ctx, l, job, result, unit, g)
	}
}

// unitJob returns the path of the unit's job; empty if it has none.
func unitJob(ctx context.Context, l *link, unit string) (dbus.ObjectPath, error) {
	var path dbus.ObjectPath
	if _, err := l.call(ctx, []any{&path}, managerPath, managerIface+".GetUnit", unit); err != nil {
		return "", err
	}
	var v dbus.Variant
	if _, err := l.call(ctx, []any{&v}, path, propsIface+".Get", unitIface, "Job"); err != nil {
		return "", err
	}
	var job struct {
		ID   uint32
		Path dbus.ObjectPath
	}
	if err := dbus.Store([]any{v.Value()}, &job); err != nil {
		return "", err
	}
	if job.ID == 0 {
		return "", nil
	}
	return job.Path, nil
}

// outcome is the result of a job that has ended unseen, as far as the unit's state tells.
func (m *Manager) outcome(ctx context.Context, unit string, g goal) error {
	s, err := m.State(ctx, unit)
	if err != nil && !errors.Is(err, ErrNotLoaded) {
		return err
	}
	return jobResult(unit, lostResult(s, err == nil, g))
}

// lostResult is the rule behind outcome.
func lostResult(s State, loaded bool, g goal) string {
	running := loaded && s.ActiveState != "inactive" && s.ActiveState != "failed"
	switch {
	case g == goalStop && running:
		return "canceled" // replaced by a start
	case g == goalStop:
		return "done"
	case running:
		return "done"
	case loaded && s.ActiveState == "inactive" && !s.ExecMainExit.IsZero() && s.Result == "success":
		return "done" // and finished since
	case loaded && s.ActiveState == "failed":
		return "failed"
	default:
		return "lost"
	}
}

func jobResult(unit, result string) error {
	if result == "done" {
		return nil
	}
	return &JobError{Unit: unit, Result: result}
}
