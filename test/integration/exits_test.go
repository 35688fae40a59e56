//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"gotest.tools/v3/assert"
)

// exit is when a run ended, as far as can be told from outside: no sooner than it has noted that it is about to, and no later
// than it was seen to be over or the next run began.
type exit struct{ from, to time.Time }

// mortal is a container that ends while lrd is away, and what is to be seen afterwards.
type mortal struct {
	name   string
	args   []string // of docker run
	script string   // what it does once it is told to, up to its end
	killed bool     // by SIGKILL from outside, instead

	// starts is how often it has begun when lrd comes back.
	starts int
	state  container.ContainerState // "": it has been removed
	code   int
}

var mortals = []mortal{
	{name: "seven", script: "exit 7", starts: 1, state: container.StateExited, code: 7},
	{name: "fine", script: "exit 0", starts: 1, state: container.StateExited, code: 0},
	{name: "killed", killed: true, starts: 1, state: container.StateExited, code: 137},
	{name: "removed", args: []string{"--rm"}, script: "exit 3", starts: 1},
	{
		name: "always", args: []string{"--restart", "always"}, starts: 2, state: container.StateRunning,
		script: `[ $run = 1 ] || exec sleep 10000; exit 9`,
	},
	{
		name: "clean-always", args: []string{"--restart", "unless-stopped"}, starts: 2, state: container.StateRunning,
		script: `[ $run = 1 ] || exec sleep 10000; exit 0`,
	},
	{
		name: "killed-always", args: []string{"--restart", "always"}, killed: true, starts: 2, state: container.StateRunning,
	},
	{
		name: "gives-up", args: []string{"--restart", "on-failure:2"}, starts: 3, state: container.StateExited, code: 5,
		script: `exit 5`,
	},
	{
		name: "content", args: []string{"--restart", "on-failure"}, starts: 1, state: container.StateExited, code: 0,
		script: `exit 0`,
	},
}

func (m mortal) start(l *lab) {
	l.t.Helper()
	args := append([]string{"run", "--detach", "--name", m.name, "--network", "none", "--volume", truth + ":/truth"}, m.args...)
	// The files that it makes are the truth: one for each time it begins, and one for each time it ends.
	script := `
		me=/truth/` + m.name + `
		run=1
		while [ -e $me.begin.$run ]; do run=$((run + 1)); done
		: >$me.begin.$run
		until [ -e /truth/go ]; do usleep 10000; done
		echo "run $run: last words"
		echo "run $run: last errors" >&2
		`
	if m.killed {
		script += "\n: >$me.said.$run; exec sleep 10000"
	} else {
		script += "\nend() { : >$me.end.$run; exit $1; }\n" +
			strings.ReplaceAll(m.script, "exit ", "end ")
	}
	l.docker(append(args, "busybox", "sh", "-c", script)...)
}

// noted is when a container made its files.
func (m mortal) noted(l *lab, what string) (times []time.Time) {
	for run := 1; ; run++ {
		info, err := os.Stat(l.path(fmt.Sprintf("%s/%s.%s.%d", truth, m.name, what, run)))
		if err != nil {
			return times
		}
		times = append(times, info.ModTime())
	}
}

// TestExitsWhileAway is promise 4, for a daemon that was stopped and for one
// that crashed.
func TestExitsWhileAway(t *testing.T) {
	t.Parallel()
	for _, away := range []struct {
		name        string
		leave, come func(*lab)
	}{
		{"stopped", (*lab).stop, (*lab).start},
		// Nothing but a restart cuts the pause before an automatic restart short: a start waits for it.
		{"crashed", (*lab).crash, (*lab).restart},
	} {
		t.Run(away.name, func(t *testing.T) {
			t.Parallel()
			l := boot(t)
			l.exec("mkdir", truth)
			l.stayCrashed()
			begin := time.Now()
			ids := map[string]string{}
			for _, m := range mortals {
				m.start(l)
				ids[m.name] = l.inspect(m.name).ID
			}
			away.leave(l)
			exits := l.letDie(ids)
			away.come(l)
			for _, m := range mortals {
				t.Run(m.name, func(t *testing.T) {
					m.check(l.in(t), ids[m.name], exits[m.name], begin)
				})
			}
			for _, m := range mortals {
				l.tryDocker("rm", "--force", m.name)
			}
			l.assertClean()
		})
	}
}

// stayCrashed keeps systemd from starting lrd again after a crash.
func (l *lab) stayCrashed() {
	l.t.Helper()
	l.writeFile("/run/systemd/system/lrd.service.d/crash.conf", "[Service]\nRestartSec=1h\n")
	l.exec("systemctl", "daemon-reload")
}

// crash kills lrd. It is not back when crash returns: see stayCrashed.
func (l *lab) crash() {
	l.t.Helper()
	l.exec("systemctl", "kill", "--signal=KILL", "--kill-who=main", "lrd.service")
	l.eventually(10*time.Second, "lrd waits to be restarted", func() bool {
		return l.exec("systemctl", "show", "--property=SubState", "--value", "lrd.service") == "auto-restart"
	})
}

// letDie tells the mortals to end, waits until they have, and gives back when
// each of them did, for each of its runs that ended.
func (l *lab) letDie(ids map[string]string) map[string][]exit {
	l.t.Helper()
	exits := map[string][]exit{}
	l.writeFile(truth+"/go", "")
	for _, m := range mortals {
		if !m.killed {
			continue
		}
		l.eventually(30*time.Second, m.name+" has said what it had to", func() bool { return len(m.noted(l, "said")) > 0 })
		// As the kernel would for want of memory: not through the unit.
		l.exec("sh", "-ec", "pid=$(systemctl show --property=MainPID --value lrd-"+ids[m.name]+".service); : >"+truth+"/"+m.name+".end.1; kill -KILL $pid")
	}
	for _, m := range mortals {
		l.eventually(30*time.Second, m.name+" ends while lrd is away", func() bool {
			if len(m.noted(l, "begin")) < m.starts {
				return false
			}
			unit := l.exec("systemctl", "show", "--property=ActiveState", "--property=SubState", "--value", "lrd-"+ids[m.name]+".service")
			if m.state == container.StateRunning {
				return unit == "active\nrunning"
			}
			return unit == "active\nexited" || strings.HasPrefix(unit, "inactive") || strings.HasPrefix(unit, "failed\nfailed")
		})
		seen, begins := time.Now(), m.noted(l, "begin")
		assert.Equal(l.t, len(begins), m.starts, m.name)
		for run, end := range m.noted(l, "end") {
			e := exit{end, seen}
			if run+1 < len(begins) {
				e.to = begins[run+1]
			}
			exits[m.name] = append(exits[m.name], e)
		}
	}
	// Or there would be nothing to see.
	assert.Assert(l.t, l.exec("systemctl", "show", "--property=ActiveState", "--value", "lrd.service") != "active")
	return exits
}

// check compares what lrd shows of a container with what was.
func (m mortal) check(l *lab, id string, exits []exit, begin time.Time) {
	l.t.Helper()
	dies := l.dies(id, begin)
	assert.Equal(l.t, len(dies), len(exits), "die events: %v", dies)
	for i, die := range dies {
		exits[i].at(l.t, time.Unix(0, die.TimeNano), fmt.Sprintf("event of exit %d", i+1))
	}
	if m.state == "" {
		l.eventually(10*time.Second, "it is removed", func() bool { return l.tryDocker("inspect", m.name).code != 0 })
		return
	}
	now := l.inspect(m.name)
	assert.Equal(l.t, now.State.Status, m.state)
	assert.Equal(l.t, now.RestartCount, m.starts-1)
	finished, err := time.Parse(time.RFC3339Nano, now.State.FinishedAt)
	assert.NilError(l.t, err)
	exits[len(exits)-1].at(l.t, finished, "FinishedAt")
	logs := l.tryDocker("logs", m.name)
	for i := range exits {
		assert.Assert(l.t, strings.Contains(logs.stdout, fmt.Sprintf("run %d: last words", i+1)), "standard output: %q", logs.stdout)
		assert.Assert(l.t, strings.Contains(logs.stderr, fmt.Sprintf("run %d: last errors", i+1)), "standard error: %q", logs.stderr)
	}
	if m.state == container.StateRunning {
		started, err := time.Parse(time.RFC3339Nano, now.State.StartedAt)
		assert.NilError(l.t, err)
		assert.Assert(l.t, started.After(finished), "started %s, finished %s", started, finished)
		return
	}
	assert.Equal(l.t, now.State.ExitCode, m.code)
	assert.Equal(l.t, now.State.Pid, 0)
	assert.Equal(l.t, dies[len(dies)-1].Actor.Attributes["exitCode"], strconv.Itoa(m.code))
	assert.Equal(l.t, l.docker("wait", m.name), strconv.Itoa(m.code))
}

// dies are the events of a container's exits.
func (l *lab) dies(id string, since time.Time) (dies []events.Message) {
	l.t.Helper()
	out := l.docker("events", "--since", since.Format(time.RFC3339Nano), "--until", time.Now().Format(time.RFC3339Nano),
		"--filter", "container="+id, "--filter", "event=die", "--format", "{{json .}}")
	for line := range strings.Lines(out) {
		var m events.Message
		assert.NilError(l.t, json.Unmarshal([]byte(line), &m))
		dies = append(dies, m)
	}
	return dies
}

// at checks that a time is that of the exit. All of this was before lrd came back.
func (e exit) at(t *testing.T, got time.Time, what string) {
	t.Helper()
	if got.Before(e.from) || got.After(e.to) {
		t.Errorf("%s is %s, %s after it was announced; it was over %s after that", what, got.UTC().Format(time.RFC3339Nano), got.Sub(e.from), e.to.Sub(e.from))
	}
}
