package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"lrd/internal/health"
	"lrd/internal/shell"
)

// What systemd runs for a container are short scripts in the container's
// runtime directory, with all values written out. So the unit's commands hold no
// character that systemd would expand, a daemon-reload reads back exactly what
// was set over D-Bus, a container started by one version of lrd ends by that
// version's script, and an administrator can read what happens.
const (
	againScript  = "again"  // ExecCondition=, with a restart policy: whether systemd may start the container
	createScript = "create" // ExecStart=: opens the FIFOs by path and makes the container
	startScript  = "start"  // ExecStartPost=, unless lrd does it: lets the container's own process begin
	exitedScript = "exited" // ExecStopPost=: notes the exit and puts the runtime's state away

	// runtimeLog is where the runtime writes why it failed.
	runtimeLog = "runtime.log"
	// pidFile is where the runtime writes the process ID of the container's init.
	pidFile = "pid"
)

// bundle is what a bundle and its scripts are made of.
type bundle struct {
	id, name string
	dir      string // the container's runtime directory
	root     string // the runtime's state directory
	runtime  Runtime
	tty      bool
	stdin    bool
	policy   container.RestartPolicy
	spec     *specs.Spec
	health   *health.Script // nil without a health check
	// endedMark is a file that keeps the container's names from being told; "" if it has none.
	endedMark string
	// held says that lrd lets the container's process begin; see heldFile.
	held bool
}

// bundleOf is the bundle of a container, but for the Spec.
func (m *Manager) bundleOf(r *Record) bundle {
	b := bundle{
		id: r.ID, name: r.Name, dir: m.runDir(r.ID), root: m.runtimeDir(), runtime: r.Runtime,
		tty: r.Config.Tty, stdin: r.Config.OpenStdin && !r.Config.Tty, policy: r.HostConfig.RestartPolicy, endedMark: r.Run.endedMark(),
	}
	if check, ok := healthCheck(r); ok {
		b.health = b.healthScript(check)
	}
	return b
}

func (b bundle) path(name string) string { return filepath.Join(b.dir, name) }

// command is the runtime's command line up to and without the subcommand.
func (b bundle) command() []string {
	args := append([]string{b.runtime.Path}, b.runtime.Args...)
	args = append(args, "--root", b.root)
	if b.isCrun() {
		// The unit's control group is systemd's; the container's limits are the unit's properties.
		args = append(args, "--cgroup-manager=disabled")
	}
	return args
}

func (b bundle) isCrun() bool { return filepath.Base(b.runtime.Path) == "crun" }

// logging is command with the runtime's errors going to its log, from where Start takes them.
func (b bundle) logging() []string {
	return append(b.command(), "--log", b.path(runtimeLog), "--log-format", "json")
}

// write puts config.json and the scripts on disk.
func (b bundle) write() error {
	config, err := json.Marshal(b.spec)
	if err != nil {
		return fmt.Errorf("cannot encode the runtime configuration: %w", err)
	}
	if err := os.MkdirAll(b.path("bundle"), 0o700); err != nil {
		return err
	}
	files := map[string]string{
		"bundle/config.json": string(config),
		createScript:         b.create(),
		startScript:          b.start(),
		againScript:          b.again(),
		exitedScript:         b.exited(),
	}
	if b.held {
		files[heldFile] = ""
	}
	for name, data := range files {
		if err := os.WriteFile(b.path(name), []byte(data), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writePolicy replaces the scripts on disk that depend on the restart policy. systemd
// may be about to run the ones that are there.
func (b bundle) writePolicy() error {
	return errors.Join(
		renameio.WriteFile(b.path(againScript), []byte(b.again()), 0o600),
		renameio.WriteFile(b.path(exitedScript), []byte(b.exited()), 0o600))
}

// again says whether systemd may start the container: not while it is being
// stopped, and not more often than its policy allows. systemd counts the starts
// too, but before version 254 a daemon-reload lets it begin anew.
func (b bundle) again() string {
	var s strings.Builder
	fmt.Fprintf(&s, "# Says whether container %s may be started. Written by lrd; run by systemd as ExecCondition= of its unit.\n", b.name)
	fmt.Fprintf(&s, "[ ! -e %s ] || exit 1\n", shell.Quote(b.path(stoppingFile)))
	if n := b.policy.MaximumRetryCount; n > 0 || !restarts(b.policy) { // the latter of a policy that was taken away meanwhile
		exits := shell.Quote(b.path(exitsFile))
		fmt.Fprintf(&s, "ended=0\n[ ! -e %s ] || while read -r _; do ended=$((ended + 1)); done <%s\n[ $ended -le %d ]\n", exits, exits, n)
	}
	return s.String()
}

// create makes the container, with its standard streams.
func (b bundle) create() string {
	var s strings.Builder
	fmt.Fprintf(&s, "# Makes container %s. Written by lrd; run by systemd as ExecStart= of its unit.\n", b.name)
	fmt.Fprintf(&s, ": >%s\n", shell.Quote(b.path(runtimeLog)))
	if b.endedMark != "" {
		fmt.Fprintf(&s, "rm -f %s\n", shell.Quote(b.endedMark))
	}
	// What a run before has left, whose end was not put away; see exited.
	fmt.Fprintf(&s, "[ ! -e %s ] || %s\n", shell.Quote(filepath.Join(b.root, b.id)), shell.QuoteAll(append(b.command(), "delete", "--force", b.id)))
	args := append(b.logging(),
		"create", "--bundle", b.path("bundle"), "--pid-file", b.path(pidFile))
	if b.tty {
		args = append(args, "--console-socket", b.path(fdListener))
	}
	// Where there is no such group the container is paused as a unit. One that ended while it was paused has left it frozen.
	group := groupPath(b.id)
	fmt.Fprintf(&s, "{ mkdir -p %s && echo 0 >%[1]s/cgroup.freeze && echo $$ >%[1]s/cgroup.procs; } 2>/dev/null\n", group)
	s.WriteString(openStreams(b.path, b.tty, b.stdin))
	create := shell.QuoteAll(append(args, b.id))
	if !b.held {
		return s.String() + "exec " + create + "\n"
	}
	// Without lrd the process begins once systemd has taken this one's end, and with it the PID file, in.
	fmt.Fprintf(&s, "[ ! -e %s ] || exec %s\n%[2]s || exit\n", shell.Quote(b.path(heldFile)), create)
	fmt.Fprintf(&s, "{\n\twhile kill -0 $$ 2>/dev/null; do sleep 0.01; done\n\t%s || kill -s KILL \"$(cat %s)\"\n} &\n",
		shell.QuoteAll(append(b.logging(), "start", b.id)), shell.Quote(b.path(pidFile)))
	return s.String()
}

// start lets the container's own process begin.
func (b bundle) start() string {
	head := fmt.Sprintf("# Starts container %s. Written by lrd; run by systemd as ExecStartPost= of its unit.\n", b.name)
	run := shell.QuoteAll(append(b.logging(), "start", b.id)) + "\n"
	if b.health == nil {
		return head + "exec " + run
	}
	return head + strings.TrimSpace(run) + " || exit\n" + b.health.Begin() + "exit 0\n"
}

// exited notes how the run ended, for the runs whose end nobody is there to
// see and whose unit does not stay: see exits.go for the form. The time is
// systemd's where a restart will overwrite it; on a busy machine this script may
// run long after the end.
func (b bundle) exited() string {
	events := filepath.Join("/sys/fs/cgroup", Slice, unitName(b.id), "memory.events")
	var s strings.Builder
	fmt.Fprintf(&s, "# Notes the exit of container %s. Written by lrd; run by systemd as ExecStopPost= of its unit.\n", b.name)
	fmt.Fprintf(&s, "oom=0\nif [ -r %s ]; then\n\twhile read -r key value; do [ \"$key\" = oom_kill ] && oom=$value; done <%s\nfi\n", events, events)
	if !restarts(b.policy) {
		s.WriteString(timeOfExit(b.path(exitsFile)))
	} else {
		fmt.Fprintf(&s, "at=$(systemctl show --property=ExecMainExitTimestamp --value --timestamp=us+utc %s 2>/dev/null) &&\n\t", unitName(b.id))
		s.WriteString("[ -n \"$at\" ] && at=$(date -d \"$at\" +%s.%N 2>/dev/null) || at=$(date +%s.%N)\n")
	}
	s.WriteString(noteExit(b.path(exitsFile)))
	if b.health != nil {
		s.WriteString(b.health.End())
	}
	if b.endedMark != "" {
		// Not with ":": where that cannot open its output, the shell ends (POSIX, "Consequences of Shell Errors"), and the rest is not done.
		fmt.Fprintf(&s, "{ true >%s; } 2>/dev/null\n", shell.Quote(b.endedMark))
	}
	if restarts(b.policy) || !b.isCrun() || b.spec == nil || b.spec.Hooks != nil {
		fmt.Fprintf(&s, "exec %s\n", shell.QuoteAll(append(b.command(), "delete", "--force", b.id)))
	}
	// Otherwise the runtime's state is all that there is to put away, and lrd does that; crun's command takes longer than all the rest here.
	return s.String()
}

// openStreams is the part of a script that opens standard streams by path, not
// by descriptors passed through systemd: before version 254 those are gone after
// the first Restart=.
//
// Output is opened for reading and writing, so that the container is a reader
// of its own pipe and a write never fails with EPIPE, whoever dies. Input is
// opened for reading only, as its end must reach the container when the client
// closes it; the writer on descriptor 9 keeps that open from blocking.
func openStreams(path func(string) string, tty, stdin bool) string {
	if tty {
		return "exec </dev/null\n"
	}
	in := "exec </dev/null\n"
	if stdin {
		fifo := shell.Quote(path(fdStdin))
		in = fmt.Sprintf("exec 9<>%s <%s 9>&-\n", fifo, fifo)
	}
	return in + fmt.Sprintf("exec 1<>%s 2<>%s\n", shell.Quote(path(fdStdout)), shell.Quote(path(fdStderr)))
}

// timeOfExit is the part of a script in ExecStopPost= that has the time of the end be noted in a file
// beside the list, as its time of change. A shell has no clock, and date(1) takes more processor time than the rest of the script.
func timeOfExit(list string) string {
	return fmt.Sprintf("at=-\n{ true >%s-\"${INVOCATION_ID:--}\"; } 2>/dev/null\n", shell.Quote(list))
}

// noteExit is the part of a script in ExecStopPost= that adds to a
// list of exits; $at is when it was, $oom how many processes the OOM killer has killed.
func noteExit(list string) string {
	return fmt.Sprintf("printf '%%s %%s %%s %%s %%s %%s\\n' \"${INVOCATION_ID:--}\" \"$at\" \"${SERVICE_RESULT:--}\" \"${EXIT_CODE:--}\" \"${EXIT_STATUS:--}\" \"$oom\" >>%s\n",
		shell.Quote(list))
}
