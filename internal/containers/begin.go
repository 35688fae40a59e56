package containers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"lrd/internal/units"
)

// heldFile in the runtime directory says that the runtime has made, or is about
// to make, a container whose process waits for lrd to let it begin. It is there
// from before the unit's start until the process has begun: a daemon that finds
// it goes on from there. Where systemd starts a container by itself there is no
// such file, and the script in ExecStart= sees to the beginning.
//
// An ExecStartPost= would do without, and does where there is more to do than
// that; but each command of a unit costs some 15 ms of processor time with
// systemd 257, as much as the making of the container.
const heldFile = "held"

// holds says whether lrd lets the container's process begin, and not a command of the unit: where systemd is not to start
// it again, nothing else is to be done at its beginning, and the runtime is one whose way is known.
func (b bundle) holds() bool {
	hooks := b.spec != nil && b.spec.Hooks != nil && len(b.spec.Hooks.Poststart) > 0
	return !restarts(b.policy) && b.health == nil && !hooks && b.isCrun()
}

// letBegin lets the process of a container begin that the runtime has made. It does what `crun start` does, which
// is to write a byte into a FIFO that the process waits at, without the two executions which that command consists of.
// Wherever it is interrupted, it can be done again.
func (b bundle) letBegin(ctx context.Context) error {
	fifo := filepath.Join(b.root, b.id, "exec.fifo")
	f, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	switch {
	case err == nil:
		_, err = f.Write([]byte{0})
		err = errors.Join(err, f.Close())
	case errors.Is(err, unix.ENXIO): // nobody waits any more: it has begun, or is dead
		err = nil
	case errors.Is(err, fs.ErrNotExist): // the runtime has another way now
		args := append(b.logging(), "start", b.id)
		var out []byte
		if out, err = exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
		}
	}
	if err != nil {
		return fmt.Errorf("cannot let the container's process begin: %w", err)
	}
	for _, path := range []string{b.path(heldFile), fifo} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot take note that the container's process has begun: %w", err)
		}
	}
	return nil
}

// goOnBeginning lets the process of a container begin that an earlier daemon has not come to. u is the state of its unit.
func (m *Manager) goOnBeginning(ctx context.Context, c *Container, u units.State) {
	if u.ActiveState != "active" || u.MainPID == 0 {
		return
	}
	r, _ := c.snapshot()
	if _, err := os.Lstat(filepath.Join(m.runDir(c.id), heldFile)); err != nil || r.HostConfig == nil || r.Config == nil {
		return
	}
	if err := m.bundleOf(&r).letBegin(ctx); err != nil {
		c.logger("start").Error("Cannot go on with a start that was interrupted", "error", err)
	}
}
