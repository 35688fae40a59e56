package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"lrd/internal/oci"
	"lrd/internal/shell"
	"lrd/internal/units"
)

// What systemd runs for an exec; see bundle.go for why these are scripts.
const execScript = "exec"

// writeExec puts the runtime's view of the command and the unit's scripts on disk.
func (m *Manager) writeExec(e *Exec, r *Record) error {
	b := m.bundleOf(r)
	process, err := m.execProcess(b, e, r)
	if err != nil {
		return err
	}
	data, err := json.Marshal(process)
	if err != nil {
		return fmt.Errorf("cannot encode the command: %w", err)
	}
	_, status := e.c.snapshot()
	for name, data := range map[string][]byte{
		"process.json": data,
		execScript:     []byte(e.script(b, status.Pid)),
		exitedScript: []byte(fmt.Sprintf("# Notes the exit of a command in container %s. Written by lrd; run by systemd as ExecStopPost= of its unit.\noom=0\n%s%s",
			r.Name, timeOfExit(e.path(exitsFile)), noteExit(e.path(exitsFile)))),
	} {
		if err := os.WriteFile(e.path(name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// execProcess is the command as the runtime wants it.
func (m *Manager) execProcess(b bundle, e *Exec, r *Record) (*specs.Process, error) {
	data, err := os.ReadFile(b.path("bundle/config.json"))
	var spec specs.Spec
	if err == nil {
		err = json.Unmarshal(data, &spec)
	}
	if err != nil || spec.Process == nil || spec.Root == nil {
		return nil, fmt.Errorf("cannot read how container %s was started: %w", r.Name, errors.Join(err, errdefs.ErrFailedPrecondition))
	}
	request := *e.request
	if size := e.snapshot().ConsoleSize; size != nil {
		request.ConsoleSize = size
	}
	in := oci.ExecInput{Container: spec.Process, Config: r.Config, Hostname: spec.Hostname, Request: &request, Machine: m.o.Machine}
	if request.User != "" {
		if in.User, err = oci.ResolveUser(spec.Root.Path, request.User, r.HostConfig.GroupAdd); err != nil {
			return nil, err
		}
	}
	return oci.ExecProcess(in)
}

// script enters the container's control group, so that its limits hold for
// the command, a pause stops it and its end ends it, and then becomes the
// runtime, which waits for the command and exits as that does.
//
// A container whose init has moved itself into a group below, as systemd does,
// may have processes only at the leaves (cgroups(7)); the command then joins the init.
func (e *Exec) script(b bundle, init int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# Executes a command in container %s. Written by lrd; run by systemd as ExecStart= of its unit.\n", b.name)
	log := e.path(runtimeLog)
	fmt.Fprintf(&s, ": >%s\n", shell.Quote(log))
	fmt.Fprintf(&s, "{ echo $$ >%s/cgroup.procs; } 2>/dev/null ||\n", groupPath(b.id))
	fmt.Fprintf(&s, "\t{ IFS=: read -r _ _ group </proc/%d/cgroup && echo $$ >%s\"$group\"/cgroup.procs; } 2>/dev/null ||\n", init, cgroupRoot)
	fmt.Fprintf(&s, "\t{ echo '{\"level\":\"error\",\"msg\":\"cannot enter the control group of the container\"}' >>%s; exit 1; }\n", shell.Quote(log))
	if r := e.snapshot(); r.streaming() {
		s.WriteString(openStreams(e.path, e.request.Tty, e.stdin()))
	} else {
		s.WriteString("exec </dev/null >/dev/null 2>&1\n")
	}
	args := append(b.command(), "--log", log, "--log-format", "json", "exec", "--process", e.path("process.json"), "--pid-file", e.path(pidFile))
	if e.request.Tty {
		args = append(args, "--console-socket", e.path(fdListener))
	}
	fmt.Fprintf(&s, "exec %s\n", shell.QuoteAll(append(args, b.id)))
	return s.String()
}

// execProperties are the properties of an exec's transient unit. Its main
// process is the runtime.
//
// Nothing binds it to its container's unit: BindsTo= would start that one again
// where it has just failed, and PartOf= execute the command a second time when
// somebody restarts the container. That it ends with the container is a matter
// of its processes, which are in the container's PID namespace and control group.
func execProperties(e *Exec, r Record) []units.Property {
	return []units.Property{
		units.String("Description", fmt.Sprintf("A command in container %s", r.Name)),
		units.String("Slice", Slice),
		// Not exec: that calls a start failed whose process has failed before systemd looks. The PID file says when the command runs.
		units.String("Type", "simple"),
		units.Exec("ExecStart", false, "/bin/sh", e.path(execScript)),
		units.Exec("ExecStopPost", true, "/bin/sh", e.path(exitedScript)),
		units.Bool("RemainAfterExit", true),
		// At a shutdown it ends before its container.
		units.Strings("After", unitName(r.ID)),
		units.String("OOMPolicy", "continue"),
		units.Uint64("TasksMax", oci.Infinity),
		units.String("SyslogIdentifier", r.Name),
		units.Fields("LogExtraFields", "CONTAINER_ID="+r.ID[:12], "CONTAINER_ID_FULL="+r.ID, "CONTAINER_NAME="+r.Name, "EXEC_ID="+e.id),
	}
}
