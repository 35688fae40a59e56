package containers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// cgroupRoot is where the unified control group hierarchy is mounted (cgroups(7), systemd.exec(5)).
const cgroupRoot = "/sys/fs/cgroup"

// Top lists the processes of a running container with the columns that the
// host's ps(1) shows for psArgs, -ef if there are none. The process IDs are the
// host's.
//
// errdefs.ErrConflict for a container without processes, ErrInvalidArgument for
// arguments that ps refuses or that leave out the column PID, ErrUnavailable on
// a host without ps.
func (m *Manager) Top(ctx context.Context, ref string, psArgs []string) (container.TopResponse, error) {
	c, err := m.find(ref)
	if err != nil {
		return container.TopResponse{}, err
	}
	if err := checkPSArgs(psArgs); err != nil {
		return container.TopResponse{}, err
	}
	switch s := c.Status(); {
	case s.State == container.StateRestarting:
		return container.TopResponse{}, refused(errdefs.ErrConflict, "container %s is restarting, wait until it is running", c.id)
	case !s.Running():
		return container.TopResponse{}, notRunning(c.id)
	}
	unit, err := m.o.Units.State(ctx, unitName(c.id))
	if errdefs.IsNotFound(err) || err == nil && unit.ControlGroup == "" {
		// It has ended and nobody has been told yet.
		return container.TopResponse{}, notRunning(c.id)
	}
	if err != nil {
		return container.TopResponse{}, fmt.Errorf("cannot list the processes of container %s: %w", c.id, err)
	}
	pids, err := cgroupPIDs(os.DirFS(cgroupRoot), strings.TrimPrefix(path.Clean(unit.ControlGroup), "/"))
	if err != nil {
		return container.TopResponse{}, fmt.Errorf("cannot list the processes of container %s: %w", c.id, err)
	}
	out, err := runPS(ctx, psArgs)
	if err != nil {
		return container.TopResponse{}, err
	}
	return parsePS(out, pids)
}

func notRunning(id string) error {
	return refused(errdefs.ErrConflict, "container %s is not running", id)
}

// renamed finds a column that ps is to show with a title that says PID.
var renamed = regexp.MustCompile(`([^\s,=]*)=[^,]*PID`)

// checkPSArgs refuses to give another column the title PID: the rows are chosen
// by that column, so that they would be of any processes of the host.
func checkPSArgs(args []string) error {
	for _, arg := range args {
		format := strings.TrimPrefix(strings.TrimPrefix(arg, "--format="), "-o")
		if match := renamed.FindStringSubmatch(format); match != nil && match[1] != "pid" {
			return refused(errdefs.ErrInvalidArgument, "specifying %q is not allowed", arg)
		}
	}
	return nil
}

// cgroupPIDs are the processes of a control group and all below it. Groups come
// and go meanwhile.
func cgroupPIDs(hierarchy fs.FS, group string) (map[int]bool, error) {
	pids := map[int]bool{}
	err := fs.WalkDir(hierarchy, group, func(name string, d fs.DirEntry, err error) error {
		if groupGone(err) {
			return fs.SkipDir
		}
		if err != nil || !d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(hierarchy, path.Join(name, "cgroup.procs"))
		if groupGone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		for field := range strings.FieldsSeq(string(data)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return fmt.Errorf("cannot read the processes of control group /%s: %w", name, err)
			}
			pids[pid] = true
		}
		return nil
	})
	return pids, err
}

// groupGone says whether a control group is no more, or is a threaded one
// (cgroups(7)), whose processes the group above it lists.
func groupGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EOPNOTSUPP)
}

// runPS runs the host's ps.
func runPS(ctx context.Context, args []string) (string, error) {
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	ps := exec.CommandContext(ctx, "ps", args...)
	var stderr bytes.Buffer
	ps.Stderr = &stderr
	out, err := ps.Output()
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", refused(errdefs.ErrUnavailable, "cannot list processes: this host has no ps; it is part of the package procps")
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.As(err, &exit) && stderr.Len() > 0:
		why, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return "", refused(errdefs.ErrInvalidArgument, "cannot list processes with ps %s: %s", strings.Join(args, " "), why)
	case err != nil:
		return "", fmt.Errorf("cannot list processes with ps %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}

// parsePS picks the processes in pids out of what ps wrote. A row whose PID is
// "-" is a thread of the process in the row before (ps -m).
func parsePS(out string, pids map[int]bool) (container.TopResponse, error) {
	header, rows, _ := strings.Cut(out, "\n")
	top := container.TopResponse{Titles: strings.Fields(header), Processes: [][]string{}}
	column := slices.Index(top.Titles, "PID")
	if column < 0 {
		return container.TopResponse{}, refused(errdefs.ErrInvalidArgument, "cannot find the column PID in the output of ps: the arguments must leave it in")
	}
	wanted := false
	for row := range strings.SplitSeq(rows, "\n") {
		fields := strings.Fields(row)
		if len(fields) <= column {
			continue
		}
		if fields[column] != "-" {
			pid, err := strconv.Atoi(fields[column])
			if err != nil {
				return container.TopResponse{}, fmt.Errorf("cannot read the output of ps: unexpected PID %q", fields[column])
			}
			wanted = pids[pid]
		}
		if wanted {
			top.Processes = append(top.Processes, fold(fields, len(top.Titles)))
		}
	}
	return top, nil
}

// fold makes a row of exactly n fields: the last column is a command line, with spaces in it.
func fold(fields []string, n int) []string {
	for len(fields) < n {
		fields = append(fields, "")
	}
	return append(slices.Clone(fields[:n-1]), strings.Join(fields[n-1:], " "))
}
