package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// lab is the machine that everything runs in.
type lab struct {
	ctx    context.Context
	script string
	name   string
	root   string // its root, as this machine sees it
	docker string // the client
}

// packages make the lab's package tree its own.
const packages = "docker.io,podman,netavark,iptables"

// bootLab boots a lab, named "bench" or as LAB says, with the lrd of LRD_BIN.
func bootLab(ctx context.Context) (*lab, error) {
	script, err := filepath.Abs("test/lab/lab")
	if err != nil {
		return nil, err
	}
	l := &lab{ctx: ctx, script: script, name: cmp.Or(os.Getenv("LAB"), "bench")}
	if _, err := l.run("down"); err != nil {
		return nil, err
	}
	if _, err := l.run("up"); err != nil {
		return nil, err
	}
	pid, err := l.run("pid")
	if err != nil {
		return nil, err
	}
	l.root = "/proc/" + pid + "/root"
	l.docker, err = l.run("client", "new")
	return l, err
}

// run runs the lab command.
func (l *lab) run(args ...string) (string, error) {
	cmd := exec.CommandContext(context.WithoutCancel(l.ctx), l.script, args...)
	cmd.Env = append(os.Environ(), "LAB="+l.name, "SUITE=trixie", "LRD_LAB_PACKAGES="+packages)
	return output(cmd)
}

// output runs a command and returns what it says, trimmed.
func output(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// exec runs a command in the lab.
func (l *lab) exec(args ...string) (string, error) {
	if err := l.ctx.Err(); err != nil {
		return "", err
	}
	return l.run(append([]string{"exec"}, args...)...)
}

func (l *lab) down() error {
	_, err := l.run("down")
	return err
}

// write puts a file into the lab.
func (l *lab) write(path string, content []byte) error {
	path = filepath.Join(l.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o755)
}

// processor is how much processor time the lab has used.
func (l *lab) processor() (time.Duration, error) {
	b, err := os.ReadFile(filepath.Join(l.root, "sys/fs/cgroup/cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("no usage_usec in the lab's cpu.stat")
}

// memory is the proportional set size, in bytes, of all processes of the lab
// but those of the containers, which are told by their command line.
func (l *lab) memory(payload string) (int64, error) {
	entries, err := os.ReadDir(filepath.Join(l.root, "proc"))
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		dir := filepath.Join(l.root, "proc", e.Name())
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || strings.HasPrefix(strings.ReplaceAll(string(args), "\x00", " "), payload) {
			continue // gone, or a container's
		}
		roll, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(roll)) {
			if v, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
				if err != nil {
					return 0, err
				}
				sum += n << 10
			}
		}
	}
	return sum, nil
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}
