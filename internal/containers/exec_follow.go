package containers

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/events"

	"lrd/internal/fdstore"
	"lrd/internal/units"
)

// execChanged is told that systemd has said something of an exec's unit. It
// never waits; there is at most one worker for each exec.
func (m *Manager) execChanged(e *Exec) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.again = true; e.looking {
		return
	}
	e.looking = true
	m.workers.Go(func() {
		for e.more() {
			m.lookExec(e)
		}
	})
}

// more says whether there is a reason to look; if not, the worker is gone.
func (e *Exec) more() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.looking, e.again = e.again, false
	return e.looking
}

// lookExec asks systemd how an exec is, and puts it away if it is over. Several
// may do so at a time.
func (m *Manager) lookExec(e *Exec) {
	for m.ctx.Err() == nil && e.snapshot().Phase == execRunning {
		u, err := m.execState(m.ctx, e)
		switch {
		case err == nil && !settled(u), err == nil && u.ActiveState == "active" && !ended(u):
			return
		case err == nil || errdefs.IsNotFound(err):
			code, at := e.howItEnded(u)
			m.endExec(e, code, at)
			return
		}
		e.logger("follow").Warn("Cannot ask for the state of an exec's unit; trying again", "error", err)
		select {
		case <-m.ctx.Done():
		case <-time.After(askPause):
		}
	}
}

// execState is the state of an exec's unit. There is one run of it, so that the last announcement is all there is to know.
func (m *Manager) execState(ctx context.Context, e *Exec) (units.State, error) {
	if u, ok := m.o.Units.Known(execUnit(e.id)); ok {
		return u, nil
	}
	return m.o.Units.State(ctx, execUnit(e.id))
}

// howItEnded is the exit code and the time of the end: as systemd has it, or, of
// a unit that is gone, its list of exits.
func (e *Exec) howItEnded(u units.State) (code int, at time.Time) {
	if ended(u) {
		return exitCode(u), u.ExecMainExit
	}
	notes, err := readExits(e.path(exitsFile))
	if err != nil {
		e.logger("exit").Warn("Cannot read how the command ended", "error", err)
	}
	if len(notes) > 0 {
		last := notes[len(notes)-1]
		return last.code, last.at
	}
	return lostExitCode, time.Now()
}

// endExec takes note of the end of a command, for one caller only.
func (m *Manager) endExec(e *Exec, code int, at time.Time) {
	first := false
	e.note(func(r *execRecord) {
		if first = r.Phase == execRunning; first {
			r.Phase, r.ExitCode, r.EndedAt = execEnded, code, at
		}
	})
	if first {
		m.finishExec(e)
	}
}

// finishExec completes what the client of a command that has ended gets to see,
// tells of the end, and puts away what the command stood on. Wherever it is
// interrupted, the next daemon begins again. The end is on record before, as a
// client asks for the exit code when it has read all.
func (m *Manager) finishExec(e *Exec) {
	if out := e.streams.opened(); out != nil && out.Running() {
		e.streams.drainRest()
	}
	if m.ctx.Err() != nil {
		return // the next daemon goes on here
	}
	if r := e.snapshot(); !r.Told {
		m.publishExec(e, events.ActionExecDie, r.EndedAt, map[string]string{"exitCode": strconv.Itoa(r.ExitCode)})
		e.note(func(r *execRecord) { r.Told = true })
	}
	close(e.done)
	if err := m.putExecAway(m.ctx, e); err != nil && m.ctx.Err() == nil {
		e.logger("exit").Error("Cannot put everything of an exec away", "error", err)
	}
}

// putExecAway releases what a command stood on. That it ran is known for some time yet.
func (m *Manager) putExecAway(ctx context.Context, e *Exec) error {
	var errs []error
	if e.snapshot().streaming() {
		errs = append(errs, e.streams.disconnect(ctx))
	}
	errs = append(errs, m.putExecUnitAway(ctx, e))
	if !e.isRead() { // else the client's going does it
		errs = append(errs, e.dropOutput())
	}
	return errors.Join(errs...)
}

// execEndTimeout is how long commands have to end by themselves after their
// container has: the kernel has killed them, and the runtimes tell of it.
const execEndTimeout = 2 * time.Second

// endExecs waits until the commands in a container whose run is over have
// ended, and ends those that have not: they shared the host's processes. Those
// that were never started are forgotten. The caller holds the container's op.
func (m *Manager) endExecs(ctx context.Context, c *Container) error {
	var errs []error
	deadline := time.After(execEndTimeout)
	for _, e := range m.execsIn(c) {
		switch e.snapshot().Phase {
		case execCreated:
			m.forgetExec(e)
			continue
		case execEnded, execStarting: // the runtime finds no container to start it in
			continue
		case execRunning:
		}
		m.execChanged(e)
		select {
		case <-e.done:
			continue
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			deadline = time.After(0)
		}
		errs = append(errs, m.o.Units.Stop(ctx, execUnit(e.id)))
		m.execChanged(e)
	}
	return errors.Join(errs...)
}

// restoreExecs takes back the commands that an earlier daemon has left in
// containers, which are known already; their descriptors it takes out of
// descriptors. What belongs to nobody is removed. Nothing here is an error of
// the restoration: containers come first. It returns those whose start was interrupted.
func (m *Manager) restoreExecs(ctx context.Context, loaded map[string]units.State, descriptors map[string]ends) (starting []interrupted) {
	entries, err := os.ReadDir(m.execsDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.o.Log.Error("Cannot read the directory of execs", "error", err)
	}
	for _, entry := range entries {
		id := entry.Name()
		e, err := m.readExec(id)
		if err != nil {
			m.o.Log.Warn("Removing an exec that cannot be taken back", "exec", id, "error", err)
			if err := os.RemoveAll(m.execDir(id)); err != nil {
				m.o.Log.Error("Cannot remove it", "exec", id, "error", err)
			}
			continue
		}
		m.mu.Lock()
		m.execs[id] = e
		m.mu.Unlock()
		stored := descriptors[id]
		delete(descriptors, id)
		if e.snapshot().Phase == execStarting {
			_, begun := loaded[execUnit(id)]
			if begun = begun || exists(e.path(runtimeLog)) || e.pid() != 0; begun {
				e.launches()
			}
			starting = append(starting, interrupted{e, stored, begun})
			continue
		}
		m.restoreExec(ctx, e, stored)
	}
	for name := range loaded {
		if id, ok := execOf(name); ok {
			if _, err := m.findExec(id); err != nil {
				m.o.Log.Warn("Stopping an exec that nobody knows", "unit", name)
				m.workers.Go(func() {
					if err := errors.Join(m.o.Units.Stop(m.ctx, name), m.o.Units.ResetFailed(m.ctx, name)); err != nil && m.ctx.Err() == nil {
						m.o.Log.Warn("Cannot stop it", "unit", name, "error", err)
					}
				})
			}
		}
	}
	left, _ := filepath.Glob(filepath.Join(m.o.DataRoot, "containers", "*", "execs", "*"))
	for _, dir := range left { // of execs before a boot
		if _, err := m.findExec(filepath.Base(dir)); err != nil {
			_ = os.RemoveAll(dir)
		}
	}
	return starting
}

// interrupted is a command that was being started when the daemon before left, with what systemd's store has of it. begun
// says that systemd has had its unit: it is not launched again, whatever has become of it.
type interrupted struct {
	e      *Exec
	stored ends
	begun  bool
}

// resumeStarts goes on with them in the background.
func (m *Manager) resumeStarts(all []interrupted) {
	for _, i := range all {
		m.workers.Go(func() {
			ctx := context.WithoutCancel(m.ctx)
			if i.begun {
				_ = m.noteStart(i.e, m.resumeBegun(ctx, i)) // its client is told, here and below
				return
			}
			i.stored.close()
			err := i.e.streams.disconnect(ctx)
			if !i.e.launches() {
				return // its client has left since
			}
			if err == nil {
				err = m.resumeStart(ctx, i.e)
			}
			_ = m.noteStart(i.e, err)
		})
	}
}

// resumeBegun goes on with a command whose unit was started.
func (m *Manager) resumeBegun(ctx context.Context, i interrupted) error {
	stored := m.regain(ctx, i.e, i.stored)
	if i.e.snapshot().streaming() {
		if err := i.e.connectConsole(stored); err != nil {
			i.e.logger("restore").Error("Cannot collect the output of an exec", "error", err)
		}
	}
	return m.completeStart(ctx, i.e, stored)
}

// resumeStart starts a command that the daemon before has not come to start, if its client is there: otherwise nobody would know
// of it.
func (m *Manager) resumeStart(ctx context.Context, e *Exec) error {
	if !e.isRead() {
		return refused(errdefs.ErrUnavailable, "lrd was stopped before it had started the command")
	}
	if err := e.c.canExec(); err != nil {
		return err
	}
	return m.launchExec(ctx, e)
}

// readExec reads an exec's record.
func (m *Manager) readExec(id string) (*Exec, error) {
	data, err := os.ReadFile(filepath.Join(m.execDir(id), execFile))
	if err != nil {
		return nil, err
	}
	var r execRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	if r.ID != id || r.Request == nil || len(r.Request.Cmd) == 0 {
		return nil, errors.New("its record lacks what it is about")
	}
	c := m.get(r.Container)
	if c == nil {
		return nil, errors.New("its container is gone")
	}
	return m.newExec(c, r), nil
}

// restoreExec makes the streams of an exec work again where the daemon before
// left it. What became of it is for followExecs, as its client is not there yet.
func (m *Manager) restoreExec(ctx context.Context, e *Exec, stored ends) {
	switch e.snapshot().Phase {
	case execCreated:
		stored.close()
		return
	case execEnded:
		if !e.unfinished() {
			stored.close()
			close(e.started)
			return
		}
	case execRunning, execStarting:
	}
	stored = m.regain(ctx, e, stored)
	if e.snapshot().streaming() {
		if err := e.streams.connect(stored); err != nil {
			e.logger("restore").Error("Cannot collect the output of an exec", "error", err)
		}
	}
	close(e.started)
}

// unfinished says whether a command that has ended may have left something in
// its streams: the daemon before died while it took that over.
func (e *Exec) unfinished() bool {
	if _, err := os.Stat(e.outputDir()); err != nil {
		return false
	}
	out, err := e.streams.output()
	if err != nil {
		e.logger("restore").Error("Cannot read the output of an exec", "error", err)
		return false
	}
	return out.Running()
}

// followExecs looks what became of the commands that restoreExecs has taken
// back. The clients that go on are there by now: the input of a command whose
// client did not come back has ended.
func (m *Manager) followExecs(ctx context.Context) {
	for _, e := range m.execsIn(nil) {
		switch e.snapshot().Phase {
		case execRunning:
			e.note(func(r *execRecord) { r.Pid = e.pid() })
			if !e.isRead() {
				if err := e.streams.closeInput(ctx); err != nil {
					e.logger("restore").Error("Cannot end the input of an exec whose client is gone", "error", err)
				}
			}
			m.bringRuntimeHome(ctx, e)
			m.execChanged(e)
		case execEnded:
			m.workers.Go(func() { m.finishExec(e) })
		case execCreated, execStarting:
		}
	}
}

// regain is what a command has of streams: what systemd's store has kept, and what can be opened again by path.
func (m *Manager) regain(ctx context.Context, e *Exec, stored ends) ends {
	if stored == nil {
		stored = ends{}
	}
	r := e.snapshot()
	if !r.streaming() {
		stored.close()
		return stored
	}
	var items []fdstore.Item
	for _, what := range fdNames(e.request.Tty, e.stdin() && !r.StdinClosed) {
		if stored[what] != nil || what == fdListener {
			continue
		}
		f, err := openFIFO(e.path(what), 0)
		if err != nil {
			e.logger("restore").Warn("Cannot open again what was lost", "descriptor", what, "error", err)
			continue
		}
		stored[what] = f
		items = append(items, fdstore.Item{Name: fdName(e.id, what), File: f})
	}
	if len(items) > 0 {
		if err := m.o.Descriptors.PutAll(ctx, items); err != nil {
			e.logger("restore").Error("Cannot keep the descriptors of an exec over a restart of lrd", "error", err)
		}
	}
	return stored
}
