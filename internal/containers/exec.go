package containers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/renameio/v2"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"lrd/internal/output"
)

const (
	// execKept is how long an exec that is over can be inspected, as with Docker.
	execKept = 5 * time.Minute
	// maxExecs bounds how many execs that do not run are remembered, for clients
	// that make more than they start, or thousands a minute: the oldest go first.
	maxExecs = 4096
)

// execOutput says how what a command writes is kept for its client: all that it has not read, and not much besides.
// A client that is slower than the command is waited for, as it is to miss nothing; once it has left, nothing is kept for
// anybody, and the oldest goes.
var execOutput = output.Options{MaxSize: 16 << 20, MaxFiles: 2, Patient: true}

// execPhase is how far an exec is. Each arrow is taken by one function.
//
//	ExecCreate       ExecStart      execStarted       endExec
//	 ─────────► created ──► starting ──────► running ────────► ended ──► forgotten
//	                         │    │                              ▲
//	              resumeStart└────┘ failExec: it could not start │
//	          in another process  └──────────────────────────────┘
type execPhase string

const (
	execCreated  execPhase = "created"
	execStarting execPhase = "starting"
	execRunning  execPhase = "running"
	execEnded    execPhase = "ended"
)

// execRecord is the saved form of an exec, <exec-root>/execs/<id>/exec.json. It
// does not outlive a boot, as the exec does not.
type execRecord struct {
	ID        string                       `json:"id"`
	Container string                       `json:"container"`
	Request   *container.ExecCreateRequest `json:"request"`
	Created   time.Time                    `json:"created"`
	Phase     execPhase                    `json:"phase"`
	// Detached says that it has no standard streams but a TTY.
	Detached bool `json:"detached,omitempty"`
	// ConsoleSize is that of ExecStartOptions.
	ConsoleSize *[2]uint `json:"consoleSize,omitempty"`
	// Pid is the process's, as the host numbers it.
	Pid         int       `json:"pid,omitempty"`
	StartedAt   time.Time `json:"startedAt,omitzero"`
	EndedAt     time.Time `json:"endedAt,omitzero"`
	ExitCode    int       `json:"exitCode,omitempty"`
	StdinClosed bool      `json:"stdinClosed,omitempty"`
	// Told says that the event of its end was published.
	Told bool `json:"told,omitempty"`
}

// streaming says whether it has standard streams in the store of output.
func (r execRecord) streaming() bool { return !r.Detached || r.Request.Tty }

// Exec is a command that is executed in a container: made by ExecCreate, run
// once by ExecStart. See "A command in a container" in the package comment.
type Exec struct {
	id      string
	c       *Container
	m       *Manager
	request *container.ExecCreateRequest // never changed
	created time.Time

	streams *streams

	// started is closed when it runs or could not be started; done when it is over and all that it wrote is in the store.
	started, done chan struct{}

	// mu guards what follows, as Container.mu does. It is taken after that one, and never over a call to systemd.
	mu     sync.Mutex
	record execRecord
	// reading says that a client has yet to read what was written, or to leave: it is kept until then.
	reading bool
	// launched says that the start of the command is somebody's business, or is not to be any more.
	launched bool
	// looking says that somebody asks systemd for its state, again that there is a reason to ask once more.
	looking, again bool
}

func (m *Manager) newExec(c *Container, r execRecord) *Exec {
	e := &Exec{id: r.ID, c: c, m: m, request: r.Request, created: r.Created, record: r, started: make(chan struct{}), done: make(chan struct{})}
	e.streams = &streams{id: e.id, dir: m.execDir(e.id), m: m, owner: e}
	return e
}

// path is where something in its runtime directory is.
func (e *Exec) path(name string) string { return filepath.Join(e.m.execDir(e.id), name) }

// An Exec is a streamOwner and an inputOwner.

func (e *Exec) consoleStored()         {} // it is found again by its name: there is one run only
func (e *Exec) inputClosed()           { e.note(func(r *execRecord) { r.StdinClosed = true }) }
func (e *Exec) ended() <-chan struct{} { return e.done }

func (e *Exec) logger(operation string) *slog.Logger {
	return e.m.o.Log.With("container", e.c.id, "exec", e.id, "unit", execUnit(e.id), "operation", operation)
}

func (e *Exec) openOutput() (*output.Log, error) {
	o := execOutput
	o.Log = e.logger("output")
	return output.Open(e.outputDir(), o)
}

func (e *Exec) standIn() (dir string, o output.Options, err error) {
	return e.outputDir(), execOutput, nil
}

// closingOutput has nothing to do: what a command writes goes to its client alone.
func (e *Exec) closingOutput() {}

// outputDir is where the output is until it has been read. It is not below
// ExecRoot, which is memory.
func (e *Exec) outputDir() string { return filepath.Join(e.m.dataDir(e.c.id), "execs", e.id) }

func (e *Exec) snapshot() execRecord {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.record
}

// update changes the record, saves, and then publishes it.
func (e *Exec) update(change func(*execRecord) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.record
	if err := change(&r); err != nil {
		return err
	}
	data, err := json.Marshal(&r)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(e.path(execFile), data, 0o600); err != nil {
		return fmt.Errorf("cannot save exec %s: %w", e.id, err)
	}
	e.record = r
	return nil
}

// show changes the record for all to see, and does not save; see Container.show.
func (e *Exec) show(change func(*execRecord)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.record)
}

// note is update for what has happened already: it holds whether or not it can be saved.
func (e *Exec) note(change func(*execRecord)) {
	err := e.update(func(r *execRecord) error {
		change(r)
		return nil
	})
	if err != nil {
		e.logger("save").Error("Cannot save what happened; it will be asked of systemd again at the next start", "error", err)
		e.show(change)
	}
}

const (
	execFile   = "exec.json"
	execPrefix = unitPrefix + "exec-"
)

func (m *Manager) execsDir() string         { return filepath.Join(m.o.ExecRoot, "execs") }
func (m *Manager) execDir(id string) string { return filepath.Join(m.execsDir(), id) }

// execUnit is the name of an exec's unit.
func execUnit(id string) string { return execPrefix + id + unitSuffix }

// execOf is the exec that a unit is for; false for other units.
func execOf(unit string) (id string, ok bool) {
	id, ok = strings.CutPrefix(unit, execPrefix)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(id, unitSuffix)
	return id, ok && isID(id)
}

// ExecCreate prepares a command to be executed in a running container. Errors:
// ErrConflict when the container does not run or is paused, ErrInvalidArgument.
func (m *Manager) ExecCreate(ctx context.Context, ref string, req container.ExecCreateRequest) (id string, err error) {
	c, err := m.find(ref)
	if err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 || req.Cmd[0] == "" {
		return "", refused(errdefs.ErrInvalidArgument, "no exec command specified")
	}
	if err := c.canExecSoon(ctx); err != nil {
		return "", err
	}
	e := m.newExec(c, execRecord{ID: newID(), Container: c.id, Request: &req, Created: time.Now(), Phase: execCreated})
	if err := os.MkdirAll(m.execDir(e.id), 0o700); err != nil {
		return "", fmt.Errorf("cannot make exec %s: %w", e.id, err)
	}
	if err := e.update(func(*execRecord) error { return nil }); err != nil {
		return "", errors.Join(err, os.RemoveAll(m.execDir(e.id)))
	}
	m.mu.Lock()
	m.execs[e.id] = e
	m.mu.Unlock()
	m.publishExec(e, events.ActionExecCreate, time.Time{}, nil)
	return e.id, nil
}

// canExecSoon is canExec, but that it waits for a start that is under way: an
// attached client hears what is started before the start is through.
func (c *Container) canExecSoon(ctx context.Context) error {
	if c.Status().Running() {
		return c.canExec()
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	return c.canExec()
}

// canExec says whether a command can be executed in the container now.
func (c *Container) canExec() error {
	r, s := c.snapshot()
	switch {
	case s.State == container.StatePaused:
		return refused(errdefs.ErrConflict, "container %s is paused, unpause the container before exec", c.id)
	case s.State == container.StateRestarting:
		return refused(errdefs.ErrConflict, "container %s is restarting, wait until the container is running", c.id)
	case !s.Running():
		return notRunning(c.id)
	case c.foreign:
		return refused(errdefs.ErrFailedPrecondition, "cannot execute a command in container %s: %s", r.Name, s.Reason)
	}
	return nil
}

// ExecInspect tells what is known of an exec: also of one that is over, for five minutes.
func (m *Manager) ExecInspect(_ context.Context, id string) (container.ExecInspectResponse, error) {
	e, err := m.findExec(id)
	if err != nil {
		return container.ExecInspectResponse{}, err
	}
	r := e.snapshot()
	q := r.Request
	response := container.ExecInspectResponse{
		ID: e.id, ContainerID: r.Container, Running: r.Phase == execRunning || r.Phase == execStarting,
		ProcessConfig: &container.ExecProcessConfig{Tty: q.Tty, Entrypoint: q.Cmd[0], Arguments: q.Cmd[1:], Privileged: &q.Privileged, User: q.User},
		OpenStdin:     q.AttachStdin, OpenStdout: q.AttachStdout, OpenStderr: q.AttachStderr,
		DetachKeys: []byte(q.DetachKeys),
	}
	switch r.Phase {
	case execRunning:
		response.Pid = r.Pid
	case execEnded:
		response.ExitCode = &r.ExitCode
	case execCreated, execStarting:
	}
	return response, nil
}

// ExecResize sets the size of an exec's terminal, in characters. A client asks
// for it while the command is being started, and is made to wait.
func (m *Manager) ExecResize(ctx context.Context, id string, height, width uint16) error {
	e, err := m.findExec(id)
	if err != nil {
		return err
	}
	select {
	case <-e.started:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(consoleTimeout):
	}
	r := e.snapshot()
	if r.Phase != execRunning {
		return refused(errdefs.ErrConflict, "exec %s is not running", e.id)
	}
	if !r.Request.Tty {
		return nil // Docker takes it and does nothing
	}
	ok, err := e.streams.resize(height, width)
	if !ok {
		return refused(errdefs.ErrFailedPrecondition, "cannot resize the terminal of exec %s: its console is not connected", e.id)
	}
	return err
}

// findExec looks an exec up by its whole ID.
func (m *Manager) findExec(id string) (*Exec, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if e := m.execs[id]; e != nil {
		return e, nil
	}
	return nil, refused(errdefs.ErrNotFound, "No such exec instance: %s", id)
}

// execsIn are the execs of a container, or all of them with nil, oldest first.
func (m *Manager) execsIn(c *Container) []*Exec {
	m.mu.RLock()
	var all []*Exec
	for _, e := range m.execs {
		if c == nil || e.c == c {
			all = append(all, e)
		}
	}
	m.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Exec) int {
		return cmp.Or(a.created.Compare(b.created), strings.Compare(a.id, b.id))
	})
	return all
}

// execIDs are those that `docker inspect` shows of a container: not those that are over.
func (m *Manager) execIDs(c *Container) []string {
	var ids []string
	for _, e := range m.execsIn(c) {
		if e.snapshot().Phase != execEnded {
			ids = append(ids, e.id)
		}
	}
	return ids
}

// forgetExecs forgets execs that have been over for long enough. Run calls it now and then.
func (m *Manager) forgetExecs(now time.Time) {
	all := m.execsIn(nil)
	surplus := len(all) - maxExecs
	for _, e := range all {
		switch r := e.snapshot(); {
		case e.isRead(): // its client has not come to asking how it ended
		case r.Phase == execEnded && (surplus > 0 || now.Sub(r.EndedAt) > execKept), r.Phase == execCreated && surplus > 0:
			m.forgetExec(e)
			surplus--
		}
	}
}

// forgetExec removes all that is left of an exec that does not run.
func (m *Manager) forgetExec(e *Exec) {
	m.mu.Lock()
	delete(m.execs, e.id)
	m.mu.Unlock()
	if err := errors.Join(e.dropOutput(), os.RemoveAll(m.execDir(e.id))); err != nil {
		e.logger("forget").Warn("Cannot remove what is left of an exec", "error", err)
	}
}

// isRead says whether a client follows what it writes, or has still to read it.
func (e *Exec) isRead() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reading
}

// dropOutput removes what the command has written.
func (e *Exec) dropOutput() error {
	var err error
	if out := e.streams.forget(); out != nil {
		err = out.Close()
	}
	return errors.Join(err, os.RemoveAll(e.outputDir()))
}

// publishExec tells an event of an exec: Docker has the command in the action. With a time it is told once, also if an
// earlier daemon has told it.
func (m *Manager) publishExec(e *Exec, action events.Action, at time.Time, attrs map[string]string) {
	all := map[string]string{"execID": e.id}
	for k, v := range attrs {
		all[k] = v
	}
	if action != events.ActionExecDie {
		action = events.Action(string(action) + ": " + strings.Join(e.request.Cmd, " "))
	}
	if at.IsZero() {
		m.publish(e.c, action, at, all)
	} else {
		m.publishOnce(e.c, action, at, all)
	}
}
