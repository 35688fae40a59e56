package health

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lrd/internal/shell"
)

// What the names of the units of health checks begin with, and end with.
const (
	unitPrefix  = "lrd-health-"
	startSuffix = "-start"
	// keptResults is how many lines of results there are at most; half of them are kept then.
	keptResults = 1000
	// scriptTimeout is how long the script may take around the probe.
	scriptTimeout = 30 * time.Second
)

// Units are the units of a container's health check, for whoever has to stop them.
func Units(id string) []string {
	return []string{unitPrefix + id + ".timer", unitPrefix + id + startSuffix + ".timer", unitPrefix + id + ".service", unitPrefix + id + startSuffix + ".service"}
}

// UnitOf is the container that a service runs the health check of; false for other units.
func UnitOf(unit string) (id string, ok bool) {
	id, ok = strings.CutPrefix(unit, unitPrefix)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(id, ".service")
	return strings.TrimSuffix(id, startSuffix), ok
}

// Script is what the scripts of a check are made of. Paths are absolute.
type Script struct {
	Check
	ID, Name string // of the container
	Dir      string // its health directory
	PIDFile  string // where its init's process ID is
	Cgroup   string // the container's control group, below /sys/fs/cgroup and with it
	// Exec is the runtime's command line that executes the command of ProcessFile in the container; the path of a file for
	// the process's ID, as the host numbers it, is its last but one argument.
	Exec func(process, pidFile string) []string
}

func (s Script) path(name string) string { return filepath.Join(s.Dir, name) }

// Write puts the probe's script on disk. ProcessFile is the caller's.
func (s Script) Write() error {
	return os.WriteFile(s.path(probeFile), []byte(s.probe()), 0o600)
}

// Begin is the part of a script in the container's ExecStartPost= that begins the check of an invocation.
func (s Script) Begin() string {
	suffix, first := "", s.Interval
	if s.eager() {
		suffix, first = startSuffix, s.StartInterval
	}
	var b strings.Builder
	fmt.Fprintf(&b, "echo \"$INVOCATION_ID\" >%s\n", shell.Quote(s.path(invocationFile)))
	fmt.Fprintf(&b, "printf '%%s begun %%s\\n' \"$INVOCATION_ID\" \"$(date +%%s.%%N)\" >>%s\n", shell.Quote(s.path(resultsFile)))
	// The timer of the invocation before has been stopped, and is forgotten by systemd a moment later.
	fmt.Fprintf(&b, "for try in 1 2 3 4 5; do\n\t%s && break\n\tsleep 0.1\n\t%sdone\n", s.timer(suffix, first), s.End())
	return b.String()
}

// eager says that probes come at another interval in the start period.
func (s Script) eager() bool { return s.StartPeriod > 0 && s.StartInterval < s.Interval }

// End is the part of a script in the container's ExecStopPost= that ends the check.
func (s Script) End() string {
	return "systemctl stop " + strings.Join(Units(s.ID), " ") + " 2>/dev/null\n"
}

// timer is the command that makes a timer for the probe. Its service is not in the container's slice: a probe that begins would
// cancel the stop of that.
func (s Script) timer(suffix string, interval time.Duration) string {
	return shell.QuoteAll([]string{
		"systemd-run", "--quiet", "--no-block", "--collect", "--unit=" + unitPrefix + s.ID + suffix,
		"--description=Health check of container " + s.Name,
		"--on-active=" + seconds(interval), "--on-unit-inactive=" + seconds(interval), "--timer-property=AccuracySec=100ms",
		"--property=Type=oneshot", "--property=TimeoutStartSec=" + seconds(s.Timeout+scriptTimeout), "--property=TimeoutStopSec=5s",
		// That one began and ended is not worth two lines in the journal.
		"--property=LogLevelMax=notice", "--property=OOMPolicy=continue", "--property=StartLimitIntervalSec=0",
		"/bin/sh", s.path(probeFile), suffix,
	})
}

// probe runs the check once and notes what came of it. The results are noted
// before all of the output is there: a process that the probe leaves behind may hold that open.
func (s Script) probe() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Probes the health of container %s. Written by lrd; run by systemd, as the timer beside the container says.", s.Name)
	line("cd %s || exit 0", shell.Quote(s.Dir))
	line("group=%s", shell.Quote(s.Cgroup))
	line("read -r invocation <%s || exit 0", invocationFile)
	// The runtime ends its files of process IDs without a newline, of which read(1) complains.
	line("[ ! -e %[1]s ] || read -r init <%[1]s; [ -n \"$init\" ] && [ -d \"/proc/$init\" ] || exit 0", shell.Quote(s.PIDFile))
	line(`[ ! -e "$group"/cgroup.events ] || while read -r key value; do [ "$key $value" != "frozen 1" ] || exit 0; done <"$group"/cgroup.events`)
	line("number=0; [ ! -e %s ] || read -r number <%s", numberFile, numberFile)
	line("number=$((number + 1)); echo $number >%s", numberFile)
	line("rm -f pid")
	line("start=$(date +%%s.%%N)")
	line("{")
	// It enters the container's control group, or that of its init if that has moved itself below, as a systemd in it does.
	line("\ttimeout -s KILL %s /bin/sh -c '{ echo 0 >\"$1\"/cgroup.procs; } 2>/dev/null || { IFS=: read -r _ _ group </proc/$2/cgroup && echo 0 >/sys/fs/cgroup$group/cgroup.procs; } && shift 2 && exec \"$@\"' sh \"$group\" $init %s </dev/null 2>&1",
		seconds(s.Timeout), shell.QuoteAll(s.Exec(s.path(ProcessFile), s.path("pid"))))
	line("\tcode=$?")
	line("\tend=$(date +%%s.%%N)")
	line("\t[ $code != %d ] || { read -r pid <pid; kill -9 $pid; } 2>/dev/null", killed)
	// The command ends with its container: that says nothing about its health.
	line("\t[ ! -d /proc/$init ] || printf '%%s probe %%s %%s %%s %%s\\n' $invocation $number $start $end $code >>%s", resultsFile)
	line("} | { head -c %d; exec cat >/dev/null; } >output.$((number %% %d))", maxOutput, maxProbes)
	line("[ $((number %% %d)) != 0 ] || { tail -n %d %s >new && mv new %s; }", keptResults/2, keptResults/2, resultsFile, resultsFile)
	if s.eager() {
		line("[ \"$1\" = %s ] || exit 0", startSuffix)
		line("last=$(tail -n 1 %s)", resultsFile)
		line("begun=$(sed -n \"s/^$invocation begun \\([0-9]*\\).*/\\1/p\" %s)", resultsFile)
		line("[ \"${last##* }\" = 0 ] || [ $(($(date +%%s) - ${begun:-0})) -ge %d ] || exit 0", int(math.Ceil(s.StartPeriod.Seconds())))
		line("%s && systemctl stop --no-block %s", s.timer("", s.Interval), unitPrefix+s.ID+startSuffix+".timer")
	}
	return b.String()
}

// seconds is a span of time as systemd and timeout(1) read it.
func seconds(d time.Duration) string {
	return fmt.Sprintf("%.3fs", max(d, time.Millisecond).Seconds())
}
