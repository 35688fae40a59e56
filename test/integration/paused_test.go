//go:build integration

package integration

import (
	"strconv"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
)

// TestPausedEnds ends paused containers in every way that a person has. systemd
// must be well afterwards: see freezer.go in internal/containers.
func TestPausedEnds(t *testing.T) {
	t.Parallel()
	l := boot(t)
	for name, way := range map[string]struct {
		end   []string
		code  int
		state container.ContainerState
	}{
		"stop":     {[]string{"stop", "--time", "100"}, 143, container.StateExited},
		"stop-now": {[]string{"stop", "--time", "0"}, 137, container.StateExited},
		"kill":     {[]string{"kill"}, 137, container.StateExited},
		"restart":  {[]string{"restart", "--time", "0"}, 0, container.StateRunning},
		"remove":   {[]string{"rm", "--force"}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			script := "echo ready; sleep 10000"
			if name == "stop" {
				script = "trap 'exit 143' TERM; echo ready; while :; do sleep 0.1; done" // an init has no default for a signal
			}
			l.docker("run", "--detach", "--name", name, "--network", "none", "busybox", "sh", "-c", script)
			l.said(name, "ready")
			l.docker("pause", name)
			l.restart()
			assert.Equal(t, l.inspect(name).State.Status, container.StatePaused)
			l.docker(append(way.end, name)...)
			if way.state != "" {
				state := l.inspect(name).State
				assert.Equal(t, state.Status, way.state)
				assert.Equal(t, state.ExitCode, way.code)
			}
			l.exec("systemctl", "list-units") // systemd is well
		})
	}

	t.Run("killed by others", func(t *testing.T) {
		l := l.in(t)
		l.docker("run", "--detach", "--name", "once", "--network", "none", "busybox", "sleep", "10000")
		l.docker("run", "--detach", "--name", "again", "--network", "none", "--restart", "always", "busybox", "sleep", "10000")
		l.docker("pause", "once", "again")
		for _, name := range []string{"once", "again"} {
			l.exec("kill", "-s", "KILL", strconv.Itoa(l.inspect(name).State.Pid))
		}
		l.exec("systemctl", "list-units")
		l.eventually(30*time.Second, "its end is known", func() bool { return l.inspect("once").State.Status == container.StateExited })
		assert.Equal(t, l.inspect("once").State.ExitCode, 137)
		l.eventually(30*time.Second, "it runs again, and is not paused", func() bool {
			state := l.inspect("again").State
			return state.Status == container.StateRunning && !state.Paused
		})
		assert.Equal(t, l.docker("exec", "again", "echo", "awake"), "awake")
	})

	t.Run("stopped by systemd", func(t *testing.T) {
		l := l.in(t)
		id := l.docker("run", "--detach", "--name", "polite", "--network", "none", "busybox", "sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done")
		l.said("polite", "ready")
		l.docker("pause", "polite")
		l.exec("systemctl", "stop", "lrd-"+id)
		l.eventually(30*time.Second, "its end is known", func() bool { return l.inspect("polite").State.Status == container.StateExited })
		assert.Equal(t, l.docker("logs", "polite"), "ready\nbye")
	})
}
