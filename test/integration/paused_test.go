//go:build integration

package integration

import (
	"testing"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
)

// TestPausedEnds ends paused containers in every way that a person has. A unit
// whose process dies while it is frozen can stop systemd itself: see thaw in
// internal/containers.
func TestPausedEnds(t *testing.T) {
	t.Parallel()
	l := boot(t)
	for name, way := range map[string]struct {
		end   []string
		code  int
		state container.ContainerState
	}{
		"stop":     {[]string{"stop", "--time", "5"}, 143, container.StateExited},
		"stop-now": {[]string{"stop", "--time", "0"}, 137, container.StateExited},
		"kill":     {[]string{"kill"}, 137, container.StateExited},
		"restart":  {[]string{"restart", "--time", "0"}, 0, container.StateRunning},
		"remove":   {[]string{"rm", "--force"}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			script := "sleep 10000"
			if name == "stop" {
				script = "trap 'exit 143' TERM; while :; do sleep 1; done" // an init has no default for a signal
			}
			l.docker("run", "--detach", "--name", name, "--network", "none", "busybox", "sh", "-c", script)
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
}
