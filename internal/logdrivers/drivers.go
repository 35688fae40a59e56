package logdrivers

import (
	"fmt"
	"sync"
	"sync/atomic"

	"lrd/internal/logopts"
)

// Drivers is what forwarders have in common. Make it with New.
type Drivers struct {
	journal journalAccess
	turns   chan struct{} // see yield

	mu       sync.Mutex // guards counters
	counters map[string]*atomic.Int64
}

// New returns Drivers that nothing was forwarded with yet.
func New() *Drivers {
	return &Drivers{journal: newJournalAccess(), turns: newTurns(), counters: map[string]*atomic.Int64{}}
}

// Forwarded tells how many bytes of output each driver has delivered since the daemon's start.
func (d *Drivers) Forwarded() map[string]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum := make(map[string]int64, len(d.counters))
	for name, n := range d.counters {
		sum[name] = n.Load()
	}
	return sum
}

func (d *Drivers) counter(driver string) *atomic.Int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.counters[driver]
	if !ok {
		n = new(atomic.Int64)
		d.counters[driver] = n
	}
	return n
}

// target makes a driver's target for one container.
func (d *Drivers) target(o Options) (target, error) {
	switch o.Driver {
	case logopts.JSONFile:
		return newJSONFile(LogPath(o.Driver, o.Dir, o.Info.ContainerID), o)
	case logopts.Journald:
		return newJournal(&d.journal, o)
	case logopts.Syslog:
		return newSyslog(o)
	case logopts.FluentdDriver:
		return newFluentd(o)
	}
	return nil, fmt.Errorf("there is no log driver %s", o.Driver)
}
