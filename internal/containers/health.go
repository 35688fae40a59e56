package containers

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"lrd/internal/health"
	"lrd/internal/oci"
)

// healthDir is where the health check of a container has its files; see package health.
func (m *Manager) healthDir(id string) string { return filepath.Join(m.runDir(id), "health") }

// healthCheck is the container's health check; false if it has none.
func healthCheck(r *Record) (health.Check, bool) {
	if r.Config == nil {
		return health.Check{}, false
	}
	return health.Of(r.Config.Healthcheck, r.Config.Shell)
}

// healthScript is what the container's unit runs the health check with; nil without one.
func (b bundle) healthScript(check health.Check) *health.Script {
	return &health.Script{
		Check: check, ID: b.id, Name: b.name, Dir: b.path("health"), PIDFile: b.path(pidFile),
		Cgroup: groupPath(b.id),
		Exec: func(process, pid string) []string {
			return append(b.command(), "exec", "--process", process, "--pid-file", pid, b.id)
		},
	}
}

// writeHealth puts the health check on disk, if there is one.
func (m *Manager) writeHealth(b bundle, r *Record, spec *specs.Spec) error {
	if err := os.RemoveAll(b.path("health")); err != nil {
		return err
	}
	if b.health == nil {
		return nil
	}
	process, err := oci.ExecProcess(oci.ExecInput{
		Container: spec.Process, Config: r.Config, Hostname: spec.Hostname, Machine: m.o.Machine,
		Request: &container.ExecCreateRequest{Cmd: b.health.Command},
	})
	if err != nil {
		return err
	}
	data, err := json.Marshal(process)
	if err != nil {
		return fmt.Errorf("cannot encode the health check: %w", err)
	}
	if err := os.MkdirAll(b.health.Dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.health.Dir, health.ProcessFile), data, 0o600); err != nil {
		return err
	}
	return b.health.Write()
}

// lookHealth takes note of what the probes of a container have found since, and
// tells of changes with their true time. On disk is only what has changed: what
// follows can be read again. The caller holds c.op, or is Restore.
func (m *Manager) lookHealth(c *Container) {
	r, _ := c.snapshot()
	check, ok := healthCheck(&r)
	if !ok || c.foreign {
		return
	}
	results, err := health.Read(m.healthDir(c.id))
	if err != nil {
		c.logger("health").Warn("Cannot read the results of the container's health check", "error", err)
	}
	var was health.State
	if r.Health != nil {
		was = *r.Health
	}
	state, flips := check.Add(was, results)
	c.show(func(r *Record, _ *Status) { r.Health = &state })
	if len(flips) == 0 {
		return
	}
	for _, f := range flips {
		m.publishOnce(c, events.Action(string(events.ActionHealthStatus)+": "+string(f.Status)), f.At, nil)
	}
	c.note(func(*Record, *Status) {})
}

// keepHealth takes what the health check has found into the Record, before its files are removed.
func (m *Manager) keepHealth(c *Container) {
	m.lookHealth(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	if check, ok := healthCheck(&c.record); ok && c.record.Health != nil {
		state := check.WithOutput(*c.record.Health, m.healthDir(c.id))
		c.record.Health = &state
	}
}

// shownHealth is the health of a container as a client is told; false if it has no check, or has never run. One that does not
// run counts as unhealthy, as with Docker.
func shownHealth(r *Record, s Status) (health.State, bool) {
	if _, ok := healthCheck(r); !ok || s.StartedAt.IsZero() {
		return health.State{Status: container.NoHealthcheck}, false
	}
	var state health.State
	if r.Health != nil {
		state = *r.Health
	}
	switch {
	case !s.Running():
		state.Status = container.Unhealthy
	case state.Invocation != s.InvocationID:
		state = health.State{Status: container.Starting}
	}
	return state, true
}

// inspectHealth is the health in `docker inspect`, with what the last probes wrote; nil without a check.
func (m *Manager) inspectHealth(r *Record, s Status) *container.Health {
	state, ok := shownHealth(r, s)
	if !ok {
		return nil
	}
	if check, ok := healthCheck(r); ok && r.Run != nil {
		state = check.WithOutput(state, m.healthDir(r.ID))
	}
	log := make([]*container.HealthcheckResult, len(state.Probes))
	for i, p := range state.Probes {
		log[i] = &container.HealthcheckResult{Start: p.Start, End: p.End, ExitCode: p.ExitCode, Output: p.Output}
	}
	return &container.Health{Status: state.Status, FailingStreak: state.Streak, Log: log}
}

// healthText is what STATUS of `docker ps` says of it; empty without a check.
func healthText(r *Record, s Status) string {
	state, ok := shownHealth(r, s)
	switch {
	case !ok || s.State != container.StateRunning:
		return ""
	case state.Status == container.Starting:
		return " (health: starting)"
	}
	return " (" + string(state.Status) + ")"
}
