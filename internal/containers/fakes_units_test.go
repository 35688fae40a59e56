package containers

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"lrd/internal/units"
)

// fakeUnits is a systemd as far as a Manager sees it. A unit is a state and the
// container's process in it: its standard streams are really opened.
type fakeUnits struct {
	Units // whatever else is called panics
	*faults
	version int
	execDir string // where containers' runtime directories are
	changes chan units.Change

	mu     sync.Mutex
	loaded map[string]*fakeUnit
	lost   []string                 // units that were wanted and not there
	stuck  map[string]chan struct{} // jobs of these units wait
	ignore map[string]bool          // units whose process ignores everything but SIGKILL
	dumb   bool                     // the runtime does not start what is to be executed in a container
	early  map[string]int           // units whose process has ended, with this status, before the start job is through
	next   uint32                   // process ID
}

type fakeUnit struct {
	state   units.State
	restart string
	remain  bool
	stdout  *os.File
	pending syscall.Signal // sent while it was frozen
	props   map[string]any
}

func newFakeUnits(t *testing.T, f *faults, execDir string, version int) *fakeUnits {
	u := &fakeUnits{
		faults: f, version: version, execDir: execDir, changes: make(chan units.Change, 1<<16),
		loaded: map[string]*fakeUnit{}, stuck: map[string]chan struct{}{}, ignore: map[string]bool{}, early: map[string]int{}, next: 100,
	}
	t.Cleanup(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, one := range u.loaded {
			one.hangUp()
		}
	})
	return u
}

func (f *fakeUnits) Version() int { return f.version }

func (f *fakeUnits) Start(ctx context.Context, name string, props []units.Property) error {
	if err := f.hit("Units.Start"); err != nil {
		return err
	}
	f.mu.Lock()
	stuck := f.stuck[name]
	f.mu.Unlock()
	if stuck != nil {
		select {
		case <-stuck:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.loaded[name] != nil {
		return fmt.Errorf("unit %s: %w", name, errdefs.ErrAlreadyExists)
	}
	one := &fakeUnit{restart: "no", props: map[string]any{}}
	one.set(props)
	for _, p := range props {
		switch p.Name {
		case "Restart":
			one.restart = p.Value.Value().(string)
		case "RemainAfterExit":
			one.remain = p.Value.Value().(bool)
		}
	}
	f.loaded[name] = one
	one.state = units.State{Name: name, LoadState: "loaded", ActiveState: "activating", SubState: "start", FreezerState: "running"}
	f.tell(one)
	f.beginLocked(one)
	if code, ok := f.early[name]; ok {
		f.endLocked(one, cldExited, int32(code))
	}
	return nil
}

// beginLocked starts the unit's process.
func (f *fakeUnits) beginLocked(one *fakeUnit) {
	f.next++
	s := &one.state
	s.ActiveState, s.SubState, s.Result = "active", "running", "success"
	s.InvocationID = fmt.Sprintf("%032x", f.next)
	s.MainPID, s.ExecMainPID = f.next, f.next
	s.ExecMainStart, s.ExecMainExit = time.Now(), time.Time{}
	s.ExecMainCode, s.ExecMainStatus = 0, 0
	s.ControlGroup = "/" + Slice + "/" + s.Name
	// What the script in ExecStart= does.
	one.hangUp()
	if dir := f.dirOf(s.Name); dir != "" {
		one.stdout, _ = os.OpenFile(filepath.Join(dir, fdStdout), os.O_RDWR|unix.O_NONBLOCK, 0)
		if slave, err := deliverConsole(filepath.Join(dir, fdListener)); err == nil {
			one.stdout = slave
		}
		if _, ok := execOf(s.Name); ok && !f.dumb {
			_ = os.WriteFile(filepath.Join(dir, "pid"), []byte(fmt.Sprint(f.next+1000)), 0o600)
		}
	}
	f.tell(one)
}

// dirOf is where the scripts of a unit are.
func (f *fakeUnits) dirOf(unit string) string {
	if id, ok := unitID(unit); ok {
		return filepath.Join(f.execDir, id)
	}
	if id, ok := execOf(unit); ok {
		return filepath.Join(filepath.Dir(f.execDir), "execs", id)
	}
	return ""
}

// deliverConsole does what a runtime does with --console-socket, and returns the container's end.
func deliverConsole(socket string) (slave *os.File, err error) {
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket)), Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer master.Close()
	_, _, err = conn.WriteMsgUnix([]byte("/dev/ptmx"), unix.UnixRights(int(master.Fd())), nil)
	return slave, err
}

func (one *fakeUnit) hangUp() {
	if one.stdout != nil {
		_ = one.stdout.Close()
		one.stdout = nil
	}
}

// endLocked ends the unit's process, and does what systemd does then.
func (f *fakeUnits) endLocked(one *fakeUnit, code, status int32) {
	s := &one.state
	s.MainPID, s.ExecMainExit, s.ExecMainCode, s.ExecMainStatus = 0, time.Now(), code, status
	s.ControlGroup, s.FreezerState = "", "running"
	clean := code == cldExited && status == 0
	if !clean {
		s.Result = map[int32]string{cldExited: "exit-code", cldKilled: "signal"}[code]
	}
	one.hangUp()
	s.ActiveState, s.SubState = "deactivating", "stop-post"
	f.tell(one)
	f.noteExit(s)
	switch {
	case one.restart == "always" || one.restart == "on-failure" && !clean:
		// systemd 252 tells of the end first.
		s.ActiveState, s.SubState = "failed", "failed"
		if clean {
			s.ActiveState, s.SubState = "inactive", "dead"
		}
		f.tell(one)
		s.ActiveState, s.SubState = "activating", "auto-restart"
		f.tell(one)
	case !clean:
		s.ActiveState, s.SubState = "failed", "failed"
		f.tell(one)
	case one.remain:
		s.ActiveState, s.SubState = "active", "exited"
		f.tell(one)
	default:
		s.ActiveState, s.SubState = "inactive", "dead"
		f.tell(one)
		f.unloadLocked(one)
	}
}

// noteExit is what the script in ExecStopPost= does.
func (f *fakeUnits) noteExit(s *units.State) {
	list, err := os.OpenFile(filepath.Join(f.dirOf(s.Name), exitsFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer list.Close()
	how, status := "exited", fmt.Sprint(s.ExecMainStatus)
	if s.ExecMainCode == cldKilled {
		how, status = "killed", strings.TrimPrefix(unix.SignalName(syscall.Signal(s.ExecMainStatus)), "SIG")
	}
	fmt.Fprintf(list, "%s %d.%09d %s %s %s 0\n", s.InvocationID, s.ExecMainExit.Unix(), s.ExecMainExit.Nanosecond(), s.Result, how, status)
}

func (f *fakeUnits) unloadLocked(one *fakeUnit) {
	if f.loaded[one.state.Name] != one {
		return
	}
	delete(f.loaded, one.state.Name)
	one.hangUp()
	f.changes <- units.Change{State: one.state, Removed: true}
}

func (f *fakeUnits) tell(one *fakeUnit) { f.changes <- units.Change{State: one.state} }

// exit lets a container's process end by itself.
func (f *fakeUnits) exit(id string, code int) { f.exitUnit(unitName(id), code) }

// exitUnit lets a unit's process end by itself.
func (f *fakeUnits) exitUnit(name string, code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one := f.loaded[name]; one != nil && one.state.MainPID != 0 {
		f.endLocked(one, cldExited, int32(code))
	}
}

// restart lets the pause before a restart by systemd be over.
func (f *fakeUnits) restart(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.loaded[unitName(id)]
	if one == nil || one.state.SubState != "auto-restart" {
		return
	}
	one.state.NRestarts++
	if _, err := os.Stat(filepath.Join(f.execDir, id, stoppingFile)); err == nil {
		one.state.ActiveState, one.state.SubState, one.state.Result = "inactive", "dead", "exec-condition"
		f.tell(one)
		f.unloadLocked(one)
		return
	}
	f.beginLocked(one)
}

// vanish makes a unit disappear without a word, as if nobody had been there to hear it.
func (f *fakeUnits) vanish(id string) { f.vanishUnit(unitName(id)) }

func (f *fakeUnits) vanishUnit(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one := f.loaded[name]; one != nil {
		one.hangUp()
	}
	delete(f.loaded, name)
}

// print makes a container's process write to its standard output.
func (f *fakeUnits) print(id, text string) error { return f.printUnit(unitName(id), text) }

// printUnit makes a unit's process write to its standard output.
func (f *fakeUnits) printUnit(name, text string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.loaded[name]
	if one == nil || one.stdout == nil {
		return os.ErrClosed
	}
	_, err := one.stdout.WriteString(text)
	return err
}

func (f *fakeUnits) Stop(ctx context.Context, name string) error {
	if err := f.hit("Units.Stop"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.loaded[name]
	if one == nil {
		return nil
	}
	if one.state.MainPID != 0 {
		one.restart = "no"
		f.endLocked(one, cldKilled, int32(syscall.SIGTERM))
	}
	if s := &one.state; s.ActiveState != "failed" {
		s.ActiveState, s.SubState = "inactive", "dead"
		f.tell(one)
		f.unloadLocked(one)
	}
	return nil
}

func (f *fakeUnits) ResetFailed(_ context.Context, name string) error {
	if err := f.hit("Units.ResetFailed"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if one := f.loaded[name]; one != nil && one.state.ActiveState == "failed" {
		one.state.ActiveState, one.state.SubState = "inactive", "dead"
		f.tell(one)
		f.unloadLocked(one)
	}
	return nil
}

func (f *fakeUnits) Kill(_ context.Context, name string, _ units.Who, sig syscall.Signal) error {
	if err := f.hit("Units.Kill"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.loaded[name]
	switch {
	case one == nil:
		f.lost = append(f.lost, name)
		return units.ErrNotLoaded
	case one.state.MainPID == 0:
		return fmt.Errorf("no process: %w", errdefs.ErrFailedPrecondition)
	case sig == syscall.SIGKILL:
	case f.ignore[name] || sig == syscall.SIGWINCH:
		return nil
	case one.state.FreezerState == "frozen":
		one.pending = sig
		return nil
	}
	f.endLocked(one, cldKilled, int32(sig))
	return nil
}

func (f *fakeUnits) Freeze(_ context.Context, name string) error { return f.freezer(name, "frozen") }

func (f *fakeUnits) Thaw(_ context.Context, name string) error { return f.freezer(name, "running") }

func (f *fakeUnits) freezer(name, state string) error {
	if err := f.hit("Units.Freezer"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.loaded[name]
	if one == nil {
		return units.ErrNotLoaded
	}
	one.state.FreezerState = state
	f.tell(one)
	if one.pending != 0 && state == "running" {
		f.endLocked(one, cldKilled, int32(one.pending))
	}
	return nil
}

func (f *fakeUnits) State(_ context.Context, name string) (units.State, error) {
	if err := f.hit("Units.State"); err != nil {
		return units.State{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if one := f.loaded[name]; one != nil {
		return one.state, nil
	}
	return units.State{}, units.ErrNotLoaded
}

// Known knows as much as State.
func (f *fakeUnits) Known(name string) (units.State, bool) {
	f.faults.mu.Lock()
	silent := f.armed["Units.State"] != nil
	f.faults.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.loaded[name]
	if one == nil || silent {
		return units.State{}, false
	}
	return one.state, true
}

func (f *fakeUnits) SetProperties(_ context.Context, name string, props []units.Property) error {
	if err := f.hit("Units.SetProperties"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.loaded[name]
	if one == nil {
		return units.ErrNotLoaded
	}
	one.set(props)
	return nil
}

func (one *fakeUnit) set(props []units.Property) {
	for _, p := range props {
		one.props[p.Name] = p.Value.Value()
	}
}

func (f *fakeUnits) ServiceProperties(_ context.Context, name string, properties ...string) (map[string]any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one := f.loaded[name]
	if one == nil {
		return nil, units.ErrNotLoaded
	}
	values := map[string]any{}
	for _, p := range properties {
		if v, ok := one.props[p]; ok {
			values[p] = v
		}
	}
	return values, nil
}

func (f *fakeUnits) ReloadUnits(context.Context) error { return f.hit("Units.ReloadUnits") }

func (f *fakeUnits) List(context.Context, string) (map[string]units.State, error) {
	if err := f.hit("Units.List"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]units.State{}
	for name, one := range f.loaded {
		all[name] = one.state
	}
	return all, nil
}

// names are the units that are loaded.
func (f *fakeUnits) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.loaded))
}
