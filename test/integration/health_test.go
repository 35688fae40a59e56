//go:build integration

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// healthIs waits for a container's health.
func (l *lab) healthIs(name string, want container.HealthStatus) {
	l.t.Helper()
	l.eventually(time.Minute, name+" is "+string(want), func() bool { return l.inspect(name).State.Health.Status == want })
}

// healthEvents are the changes of a container's health that were told, with their times.
func (l *lab) healthEvents(name, since string) (actions []string, times []time.Time) {
	l.t.Helper()
	told := l.docker("events", "--since", since, "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "container="+name, "--filter", "event=health_status",
		"--format", "{{.TimeNano}} {{.Action}}")
	for line := range strings.Lines(told) {
		var nano int64
		var status string
		_, err := fmt.Sscanf(line, "%d health_status: %s", &nano, &status)
		assert.NilError(l.t, err, line)
		actions, times = append(actions, status), append(times, time.Unix(0, nano))
	}
	return actions, times
}

// TestHealth probes containers while the daemon is there and while it is away.
func TestHealth(t *testing.T) {
	t.Parallel()
	l := boot(t)
	since := fmt.Sprint(time.Now().Unix() - 1)
	flags := []string{"--health-interval", "300ms", "--health-timeout", "5s", "--health-retries", "2"}
	run := func(name string, args ...string) string {
		return l.docker(append(append([]string{"run", "--detach", "--name", name}, flags...), args...)...)
	}
	id := run("web", "--restart", "always", "--health-cmd", "echo looked; test ! -e /sick", "busybox", "sleep", "100000")
	run("eager", "--health-interval", "1h", "--health-start-period", "1h", "--health-start-interval", "200ms", "--health-cmd", "test -e /up", "busybox", "sleep", "100000")
	run("slow", "--health-timeout", "400ms", "--health-retries", "1", "--health-cmd", "sleep 12345", "busybox", "sleep", "100000")
	assert.Check(t, is.Contains(l.docker("ps", "--filter", "name=eager"), "(health: starting)"))
	l.healthIs("web", container.Healthy)
	assert.Check(t, is.Contains(l.docker("ps", "--filter", "health=healthy"), "(healthy)"))
	log := l.inspect("web").State.Health.Log
	assert.Check(t, is.Equal(log[0].Output, "looked\n"))
	l.healthIs("slow", container.Unhealthy)
	slow := l.inspect("slow").State.Health.Log
	assert.Check(t, is.Equal(slow[0].ExitCode, -1))
	assert.Check(t, is.Contains(slow[0].Output, "exceeded timeout"))
	l.docker("rm", "--force", "slow")
	assert.Equal(t, l.tryExec("pgrep", "-f", "sleep 12345").stdout, "")

	// In the start period a failure does not count, and the first success ends it.
	l.eventually(time.Minute, "three probes have failed", func() bool { return len(l.inspect("eager").State.Health.Log) >= 3 })
	assert.Check(t, is.Equal(l.inspect("eager").State.Health.Status, container.Starting))
	l.exec("touch", fmt.Sprintf("/proc/%d/root/up", l.inspect("eager").State.Pid))
	l.healthIs("eager", container.Healthy)
	l.eventually(time.Minute, "the timer of the start period is gone", func() bool {
		return !strings.Contains(l.exec("systemctl", "list-units", "--all", "lrd-health-*"), "-start.timer")
	})

	// While the daemon is away it becomes ill, at a time of its own.
	l.stop()
	before := time.Now()
	l.exec("touch", fmt.Sprintf("/proc/%s/root/sick", l.exec("cat", "/run/lrd/containers/"+id+"/pid")))
	results := "/run/lrd/containers/" + id + "/health/results"
	l.eventually(time.Minute, "two probes have failed", func() bool { return strings.Count(l.readFile(results), " 1\n") >= 2 })
	after := time.Now()
	l.start()
	assert.Check(t, is.Equal(l.inspect("web").State.Health.Status, container.Unhealthy))
	actions, times := l.healthEvents("web", since)
	assert.Assert(t, is.DeepEqual(actions, []string{"healthy", "unhealthy"}))
	assert.Check(t, times[1].After(before) && times[1].Before(after), "%s, not between %s and %s", times[1], before, after)

	// systemd starts it again while the daemon is away: the check begins anew, with one timer.
	l.stop()
	l.exec("sh", "-c", "kill -9 $(cat /run/lrd/containers/"+id+"/pid)")
	l.eventually(time.Minute, "it is started and probed again", func() bool {
		r := l.readFile(results)
		return strings.Count(r, "begun") == 2 && strings.Contains(r[strings.LastIndex(r, "begun"):], "probe")
	})
	l.exec("rm", fmt.Sprintf("/proc/%s/root/sick", l.exec("cat", "/run/lrd/containers/"+id+"/pid")))
	l.start()
	l.kill9()
	l.healthIs("web", container.Healthy)
	actions, _ = l.healthEvents("web", since)
	// The new run may have been found ill too before it was cured.
	assert.Check(t, is.DeepEqual(slices.Compact(actions), []string{"healthy", "unhealthy", "healthy"}))
	assert.Check(t, is.Equal(strings.Count(l.exec("systemctl", "list-timers", "--all"), "lrd-health-"+id+".timer"), 1))

	// A pause is no illness, and no probe is left behind by anything.
	l.docker("pause", "web")
	n := strings.Count(l.readFile(results), "probe")
	time.Sleep(time.Second)
	assert.Check(t, strings.Count(l.readFile(results), "probe") <= n+1)
	l.docker("unpause", "web")
	l.docker("stop", "--time", "0", "web")
	assert.Check(t, is.Equal(l.inspect("web").State.Health.Status, container.Unhealthy))
	assert.Check(t, len(l.inspect("web").State.Health.Log) > 0)
	l.docker("start", "web")
	l.healthIs("web", container.Healthy)
	told := l.docker("events", "--since", since, "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "container=web", "--filter", "event=exec_start")
	assert.Check(t, is.Equal(told, ""), "a probe is no exec of anybody's")
	l.docker("rm", "--force", "web", "eager")
	l.eventually(30*time.Second, "no unit of a check is left", func() bool {
		return !strings.Contains(l.exec("systemctl", "list-units", "--all", "lrd-health-*"), "lrd-health-")
	})
	l.assertClean()
}
