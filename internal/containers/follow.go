package containers

import (
	"context"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"lrd/internal/units"
)

// lostExitCode is the exit code of a run of which nobody can tell how it ended,
// as Docker's.
const lostExitCode = 255

// inbox is what systemd, or the kernel (oom.go), has said of a container's unit and nobody has looked at.
type inbox struct {
	// mu guards what follows; it is taken last.
	mu      sync.Mutex
	changes []units.Change
	worker  bool // somebody looks at them
}

// put adds a change; true says that the caller has to see to a worker.
func (b *inbox) put(change units.Change) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes = append(b.changes, change)
	hire := !b.worker
	b.worker = true
	return hire
}

// first is the oldest change, which stays; false says that there is none and that the worker is gone.
func (b *inbox) first() (change units.Change, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.changes) == 0 {
		b.worker = false
		return change, false
	}
	return b.changes[0], true
}

// drop removes the oldest change.
func (b *inbox) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.changes) > 0 {
		b.changes = b.changes[1:]
	}
}

// clear drops all changes. The worker finds out by itself.
func (b *inbox) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes = nil
}

// enqueue hands on what systemd said of the container's unit. It never waits:
// each container has its own worker, so one that is stuck delays no other.
func (c *Container) enqueue(change units.Change) {
	if c.inbox.put(change) {
		c.m.workers.Go(c.work)
	}
}

// work looks at what is in the inbox until it is empty. It is over with the Manager.
func (c *Container) work() {
	for {
		// op first: what is said while a start is under way belongs to that start or to nobody.
		if err := c.lock(c.m.ctx); err != nil {
			return
		}
		change, ok := c.inbox.first()
		if !ok {
			c.unlock()
			return
		}
		err := c.m.look(c.m.ctx, c, change)
		if err == nil {
			c.inbox.drop()
		}
		c.unlock()
		if err != nil && c.m.ctx.Err() == nil {
			c.logger("follow").Warn("Cannot ask for the state of the container's unit; trying again", "error", err)
			select {
			case <-c.m.ctx.Done():
			case <-time.After(askPause):
			}
		}
	}
}

// askPause is how long systemd is left alone after a question that it did not answer.
const askPause = time.Second

// look follows what systemd has announced, by asking how things are now. An
// announcement may be late: of a run before the present one, or of a moment
// before an operation that asked for itself. And systemd 252 announces a unit
// that it will start again as failed or dead first, in the same breath as
// waiting for its restart. Only of a unit that is gone, the announcement is all
// that there is. The caller holds c.op.
func (m *Manager) look(ctx context.Context, c *Container, change units.Change) error {
	switch change.State.Name {
	case unitName(c.id):
	case memoryEvents:
		return m.lookOOM(ctx, c)
	default:
		if settled(change.State) {
			m.lookHealth(c)
		}
		return nil
	}
	if !change.Removed && !settled(change.State) {
		m.unfreezeToEnd(ctx, c, change.State)
		return nil // nothing follows from it
	}
	if !change.Removed {
		m.goOnBeginning(ctx, c, change.State)
		if oldNews(c.Status(), change.State) {
			return nil
		}
	}
	u, err := m.unitState(ctx, c)
	gone := errdefs.IsNotFound(err)
	switch {
	case err != nil && !gone:
		return err
	case gone && !change.Removed:
		return nil // its removal is announced too, and says more
	case gone:
		u = change.State
	}
	over := m.note(ctx, c, u, gone)
	r, s := c.snapshot()
	// A start that an earlier daemon began may have come to nothing.
	nothing := r.Run != nil && !s.Running() && (gone || !unitAlive(u) && !awaitingRestart(u))
	if over || nothing {
		m.finish(ctx, c)
	}
	return nil
}

// oldNews says whether an announcement tells no more than that what runs is running.
func oldNews(cur Status, u units.State) bool {
	return cur.State == container.StateRunning && u.ActiveState == "active" && u.FreezerState == "running" &&
		u.MainPID != 0 && int(u.MainPID) == cur.Pid && u.InvocationID == cur.InvocationID && int(u.NRestarts) <= cur.RestartCount
}

// unitState is how things are with the container's unit. Without a restart policy the last announcement is all that
// there is to know: nothing follows an end. It saves two round trips, and PID 1 some twenty questions.
func (m *Manager) unitState(ctx context.Context, c *Container) (units.State, error) {
	c.mu.Lock()
	policy := c.record.HostConfig
	c.mu.Unlock()
	if policy != nil && !restarts(policy.RestartPolicy) {
		if u, ok := m.o.Units.Known(unitName(c.id)); ok && settled(u) && ended(u) {
			return u, nil
		}
	}
	return m.o.Units.State(ctx, unitName(c.id))
}

// observe brings the container up to what systemd says of its unit; gone says
// that the unit is not there any more. The caller holds c.op.
func (m *Manager) observe(ctx context.Context, c *Container, u units.State, gone bool) {
	if m.note(ctx, c, u, gone) {
		m.finish(ctx, c)
	}
}

// note is observe up to the point where everybody has been told; over says that
// what the run stood on is to be put away.
func (m *Manager) note(ctx context.Context, c *Container, u units.State, gone bool) (over bool) {
	cur := c.Status()
	c.mu.Lock()
	stopping, policy := c.run.stopping, c.record.HostConfig.RestartPolicy
	rebooted := c.record.Run != nil && c.record.Run.BootID != m.o.BootID
	c.mu.Unlock()
	if stopping && awaitingRestart(u) {
		// The restart policy does not hold for a stop that somebody asked for.
		if err := m.o.Units.Stop(ctx, unitName(c.id)); err != nil {
			m.logger(c.id, "stop").Warn("Cannot stop the unit from being started again", "error", err)
		}
		u.ActiveState, u.SubState = "inactive", "dead"
	}
	notes, err := readExits(filepath.Join(m.runDir(c.id), exitsFile))
	if err != nil {
		m.logger(c.id, "exit").Warn("Cannot read the container's list of exits", "error", err)
	}
	if gone {
		u = vanished(u, cur, notes)
	}
	u = withPause(c.id, u)
	next, told := follow(cur, u)
	told = addMissed(cur, next, told, notes)
	if n := policy.MaximumRetryCount; n > 0 {
		next.RestartCount = min(next.RestartCount, n) // systemd counts the restart that it refuses too
	}
	if n := len(told); n > 0 && told[n-1].exited {
		next.OOMKilled = told[n-1].oom
	}
	for _, i := range told {
		if i.exited && i.at.After(next.FinishedAt) {
			next.FinishedAt = i.at // also of a run that nobody saw, and after which systemd started it again
		}
	}
	if next == cur && len(told) == 0 {
		return false
	}
	// A policy that restarts after such an end, and a unit that has ended: somebody
	// has stopped it with systemctl, or the machine is going down.
	behindOurBack := !stopping && !rebooted && next.State == container.StateExited && policyRestarts(policy, next) && !m.o.SystemStopping()
	c.show(func(_ *Record, s *Status) {
		next.Reason, next.ManuallyStopped = s.Reason, s.ManuallyStopped || behindOurBack
		*s = next
	})
	for _, i := range told {
		m.tell(c, i)
	}
	c.note(func(*Record, *Status) {}) // on disk it has happened once it has been told
	m.tellPause(c, cur.State, next.State)
	return next.State == container.StateExited
}

// policyRestarts says whether systemd, as it was told, starts the container
// again after the end that s shows.
func policyRestarts(p container.RestartPolicy, s Status) bool {
	if p.IsOnFailure() {
		return s.ExitCode != 0 && (p.MaximumRetryCount == 0 || s.RestartCount < p.MaximumRetryCount)
	}
	return p.IsAlways() || p.IsUnlessStopped()
}

// vanished is the state of a unit that is not loaded any more: what systemd said
// last, what the list of exits says, or, if neither knows, an end at an unknown
// time with an unknown status.
func vanished(u units.State, cur Status, notes []exitNote) units.State {
	u = lastExit(u, cur, notes)
	if !cur.Running() {
		return u
	}
	u.ActiveState, u.SubState = "inactive", "dead"
	if !ended(u) || u.ExecMainExit.Before(cur.StartedAt) {
		u.ExecMainPID, u.ExecMainStart = uint32(cur.Pid), cur.StartedAt
		u.ExecMainExit = time.Now()
		u.ExecMainCode, u.ExecMainStatus = cldExited, lostExitCode
	}
	return u
}

// addMissed completes what is told by the runs that came and went unseen, as
// far as the list of exits has them: only their ends are known. It also adds the
// OOM killer's part, which systemd does not tell.
func addMissed(cur, next Status, told []incident, notes []exitNote) []incident {
	var missed []incident
	for _, n := range notes {
		switch {
		case n.invocation == next.InvocationID:
			for i := range told {
				told[i].oom = told[i].oom || told[i].exited && n.oomKills > 0
				told[i].oomTold = told[i].exited && cur.hasTold(n)
			}
		case n.invocation == cur.InvocationID && cur.State == container.StateRestarting:
			// told when it was seen
		case n.invocation == cur.InvocationID && cur.Running(), n.at.After(cur.StartedAt) && cur.InvocationID != "":
			missed = append(missed, incident{exited: true, at: n.at, code: n.code, oom: n.oomKills > 0, oomTold: cur.hasTold(n)})
		}
	}
	return append(missed, told...)
}

// hasTold says whether all that the OOM killer did to the run that n is about was told when it happened.
func (s Status) hasTold(n exitNote) bool {
	return n.invocation == s.InvocationID && n.oomKills > 0 && n.oomKills <= s.OOMKills
}

// tell publishes what happened, and draws the run's boundary in its output.
func (m *Manager) tell(c *Container, i incident) {
	if !i.exited {
		c.invoked()
		m.watchOOM(c)
		m.publishOnce(c, events.ActionStart, i.at, nil)
		return
	}
	c.exited()
	_, s := c.snapshot()
	if i.oom && !i.oomTold {
		m.publishOnce(c, events.ActionOOM, i.at, nil)
	}
	m.publishOnce(c, events.ActionDie, i.at, map[string]string{
		"exitCode":     strconv.Itoa(i.code),
		"execDuration": strconv.Itoa(int(max(i.at.Sub(s.StartedAt), 0).Seconds())),
	})
	c.wake(container.WaitConditionNextExit, i.code, nil)
}

func (m *Manager) tellPause(c *Container, from, to container.ContainerState) {
	switch {
	case from == to:
	case to == container.StatePaused:
		m.publish(c, events.ActionPause, time.Time{}, nil)
	case from == container.StatePaused && to == container.StateRunning:
		m.publish(c, events.ActionUnPause, time.Time{}, nil)
	}
}

// finish ends the run, once nothing follows the exit, and removes the container
// if it was made to be removed then. The caller holds c.op.
func (m *Manager) finish(ctx context.Context, c *Container) {
	if m.ctx.Err() != nil {
		return // the daemon is leaving; the next one finds Record.Run and goes on here
	}
	if c.Status().Running() {
		return // started again meanwhile
	}
	if err := m.endRun(ctx, c); err != nil && m.ctx.Err() == nil { // else as above
		c.logger("exit").Error("Cannot put everything of the container's run away", "error", err)
	}
	c.wake(container.WaitConditionNotRunning, c.Status().ExitCode, nil)
	if c.foreign {
		m.dropForeign(c)
		return
	}
	m.autoRemove(ctx, c)
}
