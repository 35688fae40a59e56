package health

import (
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"
)

// maxProbes is how many probes are remembered, as with Docker.
const maxProbes = 5

// Probe is one run of a check.
type Probe struct {
	Number   int       `json:"number"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exitCode"` // -1 if its time was up
	Output   string    `json:"output,omitempty"`

	invocation string
}

// State is what the probes have come to. It is saved with the container; the
// zero value is that of one that has never been started.
type State struct {
	// Invocation is systemd's name for the run of the container's unit that it is about.
	Invocation string                 `json:"invocation"`
	Begun      time.Time              `json:"begun"`
	Status     container.HealthStatus `json:"status"`
	// Streak is how many probes in a row have failed.
	Streak int `json:"streak,omitempty"`
	// Number is that of the last probe that counts.
	Number int `json:"number"`
	// Probes are the last five, oldest first.
	Probes []Probe `json:"probes,omitempty"`
}

// Flip is a change of the state.
type Flip struct {
	At     time.Time
	Status container.HealthStatus
}

// Add is s with what the results of a container say besides, and the flips that
// come of it, in order. Results that s knows already count once. It is pure.
func (c Check) Add(s State, results Results) (State, []Flip) {
	var flips []Flip
	// What stands before the invocation that s is about is over.
	known := max(0, slices.IndexFunc(results.entries, func(e entry) bool { return e.invocation == s.Invocation }))
	over := map[string]bool{}
	for _, r := range results.entries[:known] {
		over[r.invocation] = true
	}
	for _, r := range results.entries[known:] {
		if over[r.invocation] {
			continue // a probe that has outlived its invocation
		}
		if r.invocation != s.Invocation { // of one whose beginning is not among the lines any more, the first probe tells
			over[s.Invocation] = true
			s = State{Invocation: r.invocation, Begun: r.Start, Status: container.Starting}
		}
		if r.begun || r.Number <= s.Number {
			continue
		}
		was := s.Status
		s = c.add(s, r.Probe)
		if s.Status != was {
			flips = append(flips, Flip{At: r.End, Status: s.Status})
		}
	}
	return s, flips
}

// add is the rule: one success makes a container healthy; failures do as many in
// a row as there are retries, not counting those in the start period of one that has never been healthy.
func (c Check) add(s State, p Probe) State {
	if p.ExitCode == killed && p.End.Sub(p.Start) >= c.Timeout {
		p.ExitCode = -1
	}
	s.Number = p.Number
	probes := append([]Probe{}, s.Probes...)
	s.Probes = append(probes[max(0, len(probes)-maxProbes+1):], p)
	switch {
	case p.ExitCode == 0:
		s.Status, s.Streak = container.Healthy, 0
	case s.Status == container.Starting && p.Start.Sub(s.Begun) < c.StartPeriod:
	default:
		if s.Streak++; s.Streak >= c.Retries {
			s.Status = container.Unhealthy
		}
	}
	return s
}

// killed is the exit code of timeout(1) for a command that it had to kill.
const killed = 128 + 9
