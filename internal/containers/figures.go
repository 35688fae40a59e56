package containers

import (
	"sync"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/output"
)

// Output is what a container has written.
type Output struct {
	ID, Name, Driver string // Driver is its log driver
	output.Stats
}

// drained counts the bytes that were taken from containers since the daemon's
// start, by log driver, of stores that are not open any more.
type drained struct {
	mu       sync.Mutex // guards bytes
	byDriver map[string]int64
}

func (d *drained) add(driver string, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byDriver == nil {
		d.byDriver = map[string]int64{}
	}
	d.byDriver[driver] += n
}

// States tells how many containers there are in each state there can be.
func (m *Manager) States() map[container.ContainerState]int {
	n := map[container.ContainerState]int{
		container.StateCreated: 0, container.StateRunning: 0, container.StatePaused: 0, container.StateRestarting: 0,
		container.StateRemoving: 0, container.StateExited: 0, container.StateDead: 0,
	}
	for _, c := range m.all() {
		n[c.Status().State]++
	}
	return n
}

// Outputs tells what containers have written, of those whose store is open: all that run, and those
// whose output was looked at since the daemon's start.
func (m *Manager) Outputs() []Output {
	var all []Output
	for _, c := range m.all() {
		if log := c.streams.opened(); log != nil {
			r, _ := c.snapshot()
			all = append(all, Output{ID: c.id, Name: r.Name, Driver: c.logging.options.Driver, Stats: log.Stats()})
		}
	}
	return all
}

// Drained tells how many bytes were taken from containers since the daemon's start, by log driver.
func (m *Manager) Drained() map[string]int64 {
	sum := map[string]int64{}
	for _, c := range m.all() {
		if log := c.streams.opened(); log != nil {
			sum[c.logging.options.Driver] += c.drainedFrom(log)
		}
	}
	m.drained.mu.Lock()
	defer m.drained.mu.Unlock()
	for driver, n := range m.drained.byDriver {
		sum[driver] += n
	}
	return sum
}

// drainedFrom is what was taken from the container since its store was opened.
func (c *Container) drainedFrom(log *output.Log) int64 {
	s := log.Stats()
	return s.Streams[0].Bytes + s.Streams[1].Bytes - c.logging.before.Load()
}
