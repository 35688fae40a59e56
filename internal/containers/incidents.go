package containers

import (
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"

	"lrd/internal/output"
)

// Events that Docker does not have: of a log that cannot be written.
const (
	actionOutputFull    events.Action = "output_full"    // it cannot be written; attribute error
	actionOutputDropped events.Action = "output_dropped" // some of it was dropped; attributes bytes, from, to
	actionOutputResumed events.Action = "output_resumed" // it is written again
)

// outputIncident publishes what happens to a container's log, each with the
// attribute stream. It is called by the store's drains.
func (c *Container) outputIncident(i output.Incident) {
	attrs := map[string]string{"stream": i.Stream.String()}
	switch i.Kind {
	case output.IncidentFull:
		attrs["error"] = i.Err.Error()
		c.m.publish(c, actionOutputFull, time.Time{}, attrs)
	case output.IncidentDropped:
		attrs["bytes"] = strconv.FormatInt(i.Bytes, 10)
		attrs["from"], attrs["to"] = i.From.UTC().Format(time.RFC3339Nano), i.To.UTC().Format(time.RFC3339Nano)
		c.m.publish(c, actionOutputDropped, time.Time{}, attrs)
	case output.IncidentResumed:
		c.m.publish(c, actionOutputResumed, time.Time{}, attrs)
	}
}
