package rootfs

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// OpenProcess is the tree that a process sees. The process must be one of the systemd unit of this name, which is
// how a process ID that has passed to somebody else is told: errdefs.ErrUnavailable then, and if it has ended.
func OpenProcess(pid int, unit string) (_ *Tree, err error) {
	over := func(why error) error {
		return newError(errdefs.ErrUnavailable, "the container's process %d is over: %w", pid, why)
	}
	// As long as the process that it stands for is there, what is read under the number is about that one.
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, over(err)
	}
	defer unix.Close(pidfd)
	proc := fmt.Sprintf("/proc/%d/", pid)
	root, err := openRoot(proc + "root")
	if err != nil {
		return nil, over(err)
	}
	t := &Tree{root: root}
	defer func() {
		if err != nil {
			_ = t.Close()
		}
	}()
	if t.ns, err = os.Open(proc + "ns/mnt"); err != nil {
		return nil, over(err)
	}
	groups, err := os.ReadFile(proc + "cgroup")
	if err != nil {
		return nil, over(err)
	}
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		return nil, over(err)
	}
	if !inUnit(string(groups), unit) {
		return nil, newError(errdefs.ErrUnavailable, "process %d is not one of %s", pid, unit)
	}
	return t, nil
}

// inUnit says whether /proc/<pid>/cgroup (cgroups(7)) has a group below the unit's.
func inUnit(groups, unit string) bool {
	for line := range strings.Lines(groups) {
		if slices.Contains(strings.Split(strings.TrimSpace(line), "/"), unit) {
			return true
		}
	}
	return false
}
