package containers

import (
	"fmt"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/oci"
	"lrd/internal/units"
)

// stoppingFile in the runtime directory says that the container is being
// stopped for good: the unit's ExecCondition= then keeps systemd from starting
// it again, also if the daemon dies in the middle of the stop. So a stop can use
// any signal and any grace period, which a unit could not be told once it runs.
const stoppingFile = "stopping"

// How long systemd waits for the runtime to make a container. It takes some
// 30 ms; the limit is for a runtime that hangs, on a machine with hundreds of
// starts at once.
const startTimeout = 5 * time.Minute

// unitProperties are the properties of a container's transient unit. It is
// pure, but for the properties that hold a descriptor, of which there are none.
func unitProperties(r Record, b bundle, stopSignal syscall.Signal, stopTimeout time.Duration, limits oci.Limits, systemd int) []units.Property {
	restart := r.HostConfig.RestartPolicy
	props := []units.Property{
		units.String("Description", fmt.Sprintf("%s (%s)", r.Name, r.Config.Image)),
		units.String("Slice", Slice),
		units.String("Type", "forking"),
		units.String("PIDFile", b.path(pidFile)),
		units.Bool("Delegate", true),
		units.Exec("ExecStart", false, "/bin/sh", b.path(createScript)),
		units.Exec("ExecStopPost", true, "/bin/sh", b.path(exitedScript)),
		units.USec("TimeoutStartUSec", startTimeout),
		units.USec("TimeoutStopUSec", stopTimeout),
		// What systemctl stop and a shutdown do: the stop signal to the container's init, then the end of all.
		units.String("KillMode", "mixed"),
		units.Int32("KillSignal", int32(stopSignal)),
		units.String("OOMPolicy", "continue"),
		units.String("SyslogIdentifier", r.Name),
		units.Fields("LogExtraFields", "CONTAINER_ID="+r.ID[:12], "CONTAINER_ID_FULL="+r.ID, "CONTAINER_NAME="+r.Name, "IMAGE_NAME="+r.Config.Image),
	}
	if !b.held {
		props = append(props, units.Exec("ExecStartPost", false, "/bin/sh", b.path(startScript)))
	}
	props = append(props, restartProperties(restart, b, systemd)...)
	return append(props, limitProperties(limits)...)
}

// restarts says whether systemd is to start a container again by itself, after some ends at least.
func restarts(p container.RestartPolicy) bool { return !p.IsNone() && p.Name != "" }

// restartProperties carry the restart policy to systemd, which so keeps it
// while the daemon is away. RemainAfterExit= keeps the exit status of a run that
// ended cleanly; with it systemd does not restart after a clean end, so that
// the policies that restart go without, and have their list of exits.
func restartProperties(p container.RestartPolicy, b bundle, systemd int) []units.Property {
	if !restarts(p) {
		return []units.Property{units.String("Restart", "no"), units.Bool("RemainAfterExit", true)}
	}
	props := []units.Property{
		units.Exec("ExecCondition", false, "/bin/sh", b.path(againScript)),
	}
	if p.IsOnFailure() {
		props = append(props,
			units.String("Restart", "on-failure"),
			// To systemd these are clean ends, to Docker an exit code that is not 0.
			units.ExitStatuses("RestartForceExitStatus", nil, []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE, syscall.SIGTERM}),
		)
	} else {
		props = append(props, units.String("Restart", "always"))
	}
	if n := p.MaximumRetryCount; n > 0 {
		// The first start counts too.
		props = append(props, units.USec("StartLimitIntervalUSec", -1), units.Uint32("StartLimitBurst", uint32(n)+1))
	} else {
		props = append(props, units.USec("StartLimitIntervalUSec", 0))
	}
	if systemd >= 254 {
		// Docker waits 100 ms and doubles that up to a minute: 100 ms · 2^9 is nearly that.
		return append(props,
			units.USec("RestartUSec", 100*time.Millisecond),
			units.Uint32("RestartSteps", 9),
			units.USec("RestartMaxDelayUSec", time.Minute))
	}
	// One pause for all restarts is what there is before 254. A second is bearable for
	// somebody who waits, and for a machine with a container that never comes up.
	return append(props, units.USec("RestartUSec", time.Second))
}

// limitProperties are resource limits in the form of org.freedesktop.systemd1(5).
func limitProperties(l oci.Limits) []units.Property {
	var props []units.Property
	number := func(name string, v *uint64) {
		if v != nil {
			props = append(props, units.Uint64(name, *v))
		}
	}
	number("MemoryMax", l.MemoryMax)
	number("MemoryLow", l.MemoryLow)
	number("MemorySwapMax", l.MemorySwapMax)
	number("CPUQuotaPerSecUSec", l.CPUQuotaPerSecUSec)
	number("CPUQuotaPeriodUSec", l.CPUQuotaPeriodUSec)
	number("CPUWeight", l.CPUWeight)
	number("IOWeight", l.IOWeight)
	tasks := oci.Infinity // systemd's default is a share of the machine; Docker has none
	if l.TasksMax != nil {
		tasks = *l.TasksMax
	}
	number("TasksMax", &tasks)
	if l.AllowedCPUs != nil {
		props = append(props, units.CPUs("AllowedCPUs", l.AllowedCPUs...))
	}
	if l.AllowedMemoryNodes != nil {
		props = append(props, units.CPUs("AllowedMemoryNodes", l.AllowedMemoryNodes...))
	}
	perDevice := func(name string, values []oci.DeviceValue) {
		if len(values) == 0 {
			return
		}
		limits := make([]units.Limit, len(values))
		for i, v := range values {
			limits[i] = units.Limit{Path: v.Path, Value: v.Value}
		}
		props = append(props, units.Limits(name, limits...))
	}
	perDevice("IODeviceWeight", l.IODeviceWeight)
	perDevice("IOReadBandwidthMax", l.IOReadBandwidth)
	perDevice("IOWriteBandwidthMax", l.IOWriteBandwidth)
	perDevice("IOReadIOPSMax", l.IOReadIOPS)
	perDevice("IOWriteIOPSMax", l.IOWriteIOPS)
	if l.DevicePolicy != "" {
		props = append(props, units.String("DevicePolicy", l.DevicePolicy))
	}
	if len(l.DeviceAllow) > 0 {
		allow := make([]units.Pair, len(l.DeviceAllow))
		for i, d := range l.DeviceAllow {
			allow[i] = units.Pair{A: d.Node, B: d.Access}
		}
		props = append(props, units.Pairs("DeviceAllow", allow...))
	}
	return props
}
