package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sync/errgroup"

	"lrd/internal/fdstore"
	"lrd/internal/networks"
	"lrd/internal/units"
)

// Stored is what systemd has handed back at the start; *fdstore.Set is one.
type Stored interface {
	Names() []string
	Take(name string) *os.File
}

// restoreParallel is how many containers are taken back at a time. The work is
// opening files; more than a few at once gain nothing.
const restoreParallel = 8

// Restore takes back what an earlier daemon has left, be it after a restart, a
// crash or a boot: every container gets a verdict, and nothing is killed. It is
// called once, before Run and before the API answers.
//
// It returns when all containers are shown as they are and the output of those
// that run is collected again. What is left of runs that are over is put away
// afterwards, in the background. A container that cannot be taken back is no
// error of Restore's: it is shown with its Status.Reason.
//
// known is called when all containers are known and none has been looked at: whoever waits for one, or reads its
// output, may register then, and hears of all that has happened while the daemon was away. It may be nil.
func (m *Manager) Restore(ctx context.Context, stored Stored, known func()) error {
	m.tellRemoved()
	all, err := m.records.list()
	if err != nil {
		return err
	}
	for i := range all {
		why := all[i].err
		mended, err := m.records.mend(&all[i])
		if mended {
			m.logger(all[i].id, "restore").Warn("The container's record was damaged and is restored from the copy that its run has", "damage", why)
		}
		if err != nil {
			m.logger(all[i].id, "restore").Error("Cannot mend the container's record", "error", err)
		}
	}
	loaded, err := m.o.Units.List(ctx, UnitPattern)
	if err != nil {
		return fmt.Errorf("cannot list the containers' units: %w", err)
	}
	descriptors := groupStored(stored)
	network := m.restoreNetwork(ctx, all, loaded)
	cases := m.gather(all, loaded, descriptors, network)

	// All are known before the first is looked at: the rest may refer to each other.
	for _, k := range cases {
		m.index(k.c)
	}
	m.holdVolumes(cases)
	starting := m.restoreExecs(ctx, loaded, descriptors)
	if known != nil {
		known()
	}
	m.followExecs(ctx)
	var group errgroup.Group
	group.SetLimit(restoreParallel)
	for _, k := range cases {
		group.Go(func() error {
			m.apply(ctx, k)
			return nil
		})
	}
	_ = group.Wait() // apply has no error: it says what is wrong at the container
	m.resumeStarts(starting)
	m.dropHolds(m.ctx)
	m.thawCommitted()
	m.releaseVolumes()
	m.dropUnknown(ctx, stored, descriptors)
	return nil
}

// restoring is one container on its way back.
type restoring struct {
	c       *Container
	e       evidence
	verdict Verdict
	ends    ends // from the store
}

// gather joins what is known from the Records, from systemd and from the store, and decides.
func (m *Manager) gather(all []found, loaded map[string]units.State, descriptors map[string]ends, network map[string]error) []*restoring {
	var cases []*restoring
	seen := map[string]bool{}
	add := func(id string, e evidence) {
		seen[id] = true
		e.storageDriver = m.o.Images.Driver()
		if u, ok := loaded[unitName(id)]; ok {
			e.unit = &u
		}
		k := &restoring{e: e, ends: descriptors[id]}
		delete(descriptors, id)
		for what := range k.ends {
			k.e.stored = append(k.e.stored, what)
		}
		k.e.onDisk = m.pipesOnDisk(id)
		k.e.network = network[id]
		k.e.exits, _ = readExits(m.pipePath(id, exitsFile)) // who has to tell of them says what is wrong
		k.verdict = reconcile(k.e)
		k.c = m.restored(id, k.e, k.verdict)
		cases = append(cases, k)
	}
	for _, f := range all {
		if errors.Is(f.err, fs.ErrNotExist) && loaded[unitName(f.id)].Name == "" {
			// Made half-way, or removed but for this.
			if err := errors.Join(m.o.Images.RemoveRootfs(m.ctx, f.id), removeAll(m.dataDir(f.id), m.runDir(f.id))); err != nil {
				m.logger(f.id, "restore").Warn("Cannot remove the rest of a container", "error", err)
			}
			continue
		}
		add(f.id, evidence{record: f.record, err: f.err})
	}
	for name := range loaded {
		if id, ok := unitID(name); ok && !seen[id] {
			add(id, evidence{})
		}
	}
	return cases
}

// pipesOnDisk lists the descriptors of a container that can be opened again by path.
func (m *Manager) pipesOnDisk(id string) []string {
	var there []string
	for _, what := range []string{fdStdin, fdStdout, fdStderr, fdVia} {
		if info, err := os.Lstat(m.pipePath(id, what)); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
			there = append(there, what)
		}
	}
	return there
}

// restored is the live form of what was found.
func (m *Manager) restored(id string, e evidence, v Verdict) *Container {
	if v.Action != Foreign && v.Action != Broken {
		c := m.newContainer(*e.record)
		c.status.Reason = v.Reason
		_, err := os.Lstat(m.pipePath(id, stoppingFile))
		c.run.stopping = err == nil // the daemon before was at it
		return c
	}
	r := Record{ID: id, Name: id[:12], Config: &container.Config{}, HostConfig: &container.HostConfig{}}
	if e.record != nil {
		r.Created = e.record.Created
		if e.record.Name != "" {
			r.Name = e.record.Name
		}
		if v.Action == Foreign {
			r.Run = e.record.Run
		}
	}
	r.Status.State = container.StateDead
	if v.Action == Foreign {
		r.Status.State = container.StateCreated // until its unit has been looked at
	}
	if e.unit != nil {
		// The description is the name and, in brackets, the image.
		if name, image, ok := strings.Cut(e.unit.Description, " ("); ok {
			r.Name, r.Config.Image = name, strings.TrimSuffix(image, ")")
		}
		if r.Created.IsZero() {
			r.Created = e.unit.ExecMainStart
		}
	}
	c := m.newContainer(r)
	c.foreign = true
	c.status.Reason = v.Reason
	return c
}

// index makes a container known. A name that is taken already stays with its owner.
func (m *Manager) index(c *Container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.byID[c.id] = c
	if _, taken := m.names[c.record.Name]; taken {
		c.record.Name = c.id[:12]
	}
	m.names[c.record.Name] = c.id
}

// dropForeign forgets a container that is none of ours, once its unit has ended.
// One with a Record that cannot be read stays to be seen.
func (m *Manager) dropForeign(c *Container) {
	if _, err := os.Lstat(m.records.path(c.id)); err == nil {
		c.note(func(r *Record, s *Status) {
			r.Run, s.State, s.Reason = nil, container.StateDead, strings.TrimSuffix(s.Reason, runsOn)
		})
		return
	}
	r, _ := c.snapshot()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byID, c.id)
	delete(m.names, r.Name)
}

// apply carries a verdict out.
func (m *Manager) apply(ctx context.Context, k *restoring) {
	log := m.logger(k.c.id, "restore")
	switch {
	case k.verdict.Reason != "":
		log.Warn("The container is shown with a reason", "verdict", k.verdict.Action, "reason", k.verdict.Reason)
	default:
		log.Debug("Taking the container back", "verdict", k.verdict.Action)
	}
	switch k.verdict.Action {
	case Keep:
		k.ends.close()
		k.c.forwardBehind()
		if s := k.c.Status(); s.State == container.StateExited && !s.StartedAt.IsZero() {
			m.later(k.c, func(ctx context.Context) { m.autoRemove(ctx, k.c) }) // the daemon before came no further
		}
	case Broken:
		k.ends.close()
	case NeverRan:
		k.ends.close()
		m.later(k.c, func(ctx context.Context) { m.undoStart(ctx, k.c, k.e.unit) })
	case Foreign:
		// Its descriptors stay in the store: to close the console would end it.
		k.ends.close()
		next, _ := follow(k.c.Status(), *k.e.unit) // no event: it has been running
		k.c.note(func(_ *Record, s *Status) { next.Reason, *s = s.Reason, next })
	case Adopt:
		if _, err := os.Lstat(m.records.copyPath(k.c.id)); errors.Is(err, fs.ErrNotExist) {
			k.c.note(func(*Record, *Status) {}) // a copy again
		}
		m.reopen(ctx, k)
		k.c.adoptRun(k.ends)
		m.lookHealth(k.c)
		m.goOnBeginning(ctx, k.c, *k.e.unit)
		m.observe(ctx, k.c, *k.e.unit, false)
		if k.c.Status().Running() {
			m.watchOOM(k.c)
		}
	case Over:
		m.reopen(ctx, k)
		k.c.adoptRun(k.ends)
		m.lookHealth(k.c)
		m.noteOver(ctx, k)
		m.later(k.c, func(ctx context.Context) { m.finish(ctx, k.c) })
	}
}

// noteOver takes note of an end that nobody has seen.
func (m *Manager) noteOver(ctx context.Context, k *restoring) {
	defer k.c.exited() // also of an end that is noted: the daemon before may have died before it had all of the output
	if s := k.c.Status(); !s.Running() && (k.e.unit == nil || !begun(s, *k.e.unit)) && !unseen(s, k.e.exits) {
		return // it is noted already
	}
	u := units.State{Name: unitName(k.c.id)}
	if k.e.unit != nil {
		u = *k.e.unit
	}
	m.note(ctx, k.c, u, k.e.unit == nil || !ended(u))
	if k.e.record.Run.BootID != m.o.BootID {
		k.c.note(func(_ *Record, s *Status) { s.Error = "the machine was restarted while the container ran" })
	}
}

// reopen opens by path what the store has lost, and stores it again.
func (m *Manager) reopen(ctx context.Context, k *restoring) {
	if k.ends == nil {
		k.ends = ends{}
	}
	var items []fdstore.Item
	for _, what := range k.verdict.Reopen {
		path := m.pipePath(k.c.id, what)
		var f *os.File
		var err error
		if what == fdListener {
			_ = os.Remove(path)
			f, err = listenConsole(path)
		} else {
			f, err = openFIFO(path, 0)
		}
		if err != nil {
			m.logger(k.c.id, "restore").Warn("Cannot open again what was lost", "descriptor", what, "error", err)
			continue
		}
		k.ends[what] = f
		items = append(items, fdstore.Item{Name: fdName(k.c.id, what), File: f})
	}
	if len(items) == 0 {
		return
	}
	m.logger(k.c.id, "restore").Info("Opened descriptors again that systemd had not kept", "descriptors", len(items))
	if err := m.o.Descriptors.PutAll(ctx, items); err != nil {
		m.logger(k.c.id, "restore").Error("Cannot keep the container's descriptors over a restart of lrd", "error", err)
	}
}

// later does something for a container in the background, with c.op held, and
// ends with the Manager.
func (m *Manager) later(c *Container, do func(context.Context)) {
	m.workers.Go(func() {
		if c.lock(m.ctx) != nil {
			return
		}
		defer c.unlock()
		do(m.ctx)
	})
}

// undoStart puts the preparations of an interrupted start away.
func (m *Manager) undoStart(ctx context.Context, c *Container, u *units.State) {
	if c.Status().Running() {
		return
	}
	if err := m.endRun(ctx, c); err != nil {
		c.logger("restore").Error("Cannot put an interrupted start away", "error", err)
		return
	}
	if u != nil {
		c.note(func(_ *Record, s *Status) { s.Error = "the start was interrupted, and failed" })
	}
	m.autoRemove(ctx, c)
}

// groupStored takes all descriptors of containers out of what systemd handed
// back, by container.
func groupStored(stored Stored) map[string]ends {
	groups := map[string]ends{}
	for _, name := range stored.Names() {
		id, what, ok := strings.Cut(name, ".")
		if !ok || !isID(id) {
			continue
		}
		f := stored.Take(name)
		if f == nil {
			continue
		}
		if groups[id] == nil {
			groups[id] = ends{}
		}
		groups[id][what] = f
	}
	return groups
}

// dropUnknown removes from the store what belongs to no container any more.
func (m *Manager) dropUnknown(ctx context.Context, stored Stored, left map[string]ends) {
	var names []string
	for id, e := range left {
		for what := range e {
			names = append(names, fdName(id, what))
		}
		e.close()
	}
	for _, name := range stored.Names() {
		// A second one of a name that a container has goes with the first, at the
		// end of the run: the store can remove only both.
		if id, _, _ := strings.Cut(name, "."); isID(id) && m.get(id) == nil {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	m.o.Log.Warn("Removing descriptors from systemd's store that belong to no container", "descriptors", names)
	if err := m.o.Descriptors.Remove(ctx, names...); err != nil {
		m.o.Log.Error("Cannot remove descriptors from systemd's store; it is tried again at the next start", "error", err)
	}
}

// restoreNetwork gives running containers their places in the network back, and
// returns what is not as it was, by container.
func (m *Manager) restoreNetwork(ctx context.Context, all []found, loaded map[string]units.State) map[string]error {
	var sandboxes []networks.Sandbox
	for _, f := range all {
		// Also of a Record that cannot be read but for this.
		if f.record.ID != f.id || f.record.Run == nil || f.record.Run.Sandbox == nil || f.record.Run.BootID != m.o.BootID || f.record.Run.Sandbox.ContainerID != f.id {
			continue
		}
		if _, ok := loaded[unitName(f.id)]; ok {
			sandboxes = append(sandboxes, *f.record.Run.Sandbox)
		}
	}
	err := m.o.Networks.Restore(ctx, sandboxes)
	var some *networks.RestoreError
	if errors.As(err, &some) {
		return some.Containers
	}
	if err == nil {
		return nil
	}
	m.o.Log.Error("Cannot restore the network", "error", err)
	failed := map[string]error{}
	for _, s := range sandboxes {
		failed[s.ContainerID] = err
	}
	return failed
}
