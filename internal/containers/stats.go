package containers

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
)

// Stats is what a container uses of the machine now: one sample, whose fields of
// the sample before are for the caller to fill in. Of a container that does not
// run it has the ID and the name, and nothing else, as with Docker. What the
// kernel does not account for here, as the unit has no such controller, is zero.
// Errors: ErrNotFound.
func (m *Manager) Stats(_ context.Context, ref string) (container.StatsResponse, error) {
	c, err := m.find(ref)
	if err != nil {
		return container.StatsResponse{}, err
	}
	r, s := c.snapshot()
	// Docker's name has the slash, and its client cuts off the first character.
	stats := container.StatsResponse{ID: c.id, Name: "/" + r.Name, OSType: "linux"}
	if !s.Running() || s.State == container.StateRestarting {
		return stats, nil
	}
	group, err := fs.Sub(os.DirFS(cgroupRoot), path.Join(Slice, unitName(c.id)))
	if err != nil {
		return stats, err
	}
	if err := readGroup(group, &stats); err != nil {
		if groupGone(err) {
			return stats, nil // it has ended and nobody has been told yet
		}
		return stats, fmt.Errorf("cannot tell what container %s uses: %w", r.Name, err)
	}
	if err := readMachine(os.DirFS("/proc"), &stats); err != nil {
		return stats, fmt.Errorf("cannot tell what container %s uses: %w", r.Name, err)
	}
	// A container with the host's network, or without one, has none of its own to account for.
	if r.Run != nil && r.Run.Sandbox != nil || r.HostConfig != nil && r.HostConfig.NetworkMode.IsContainer() {
		// Its init may end while this is read; what it had is in the next sample, or nobody's concern.
		if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", s.Pid)); err == nil {
			stats.Networks = parseNetDev(string(data))
		}
	}
	stats.Read = time.Now().UTC()
	return stats, nil
}

// readGroup reads the accounts of a control group (cgroup-v2.rst in the kernel's
// documentation). The kernel keeps those of the processor's time always, others
// where their controller is enabled.
func readGroup(group fs.FS, stats *container.StatsResponse) error {
	cpu, err := readKeyed(group, "cpu.stat")
	if err != nil {
		return err
	}
	const microsecond = uint64(time.Microsecond)
	stats.CPUStats.CPUUsage = container.CPUUsage{
		TotalUsage:        cpu["usage_usec"] * microsecond,
		UsageInUsermode:   cpu["user_usec"] * microsecond,
		UsageInKernelmode: cpu["system_usec"] * microsecond,
	}
	stats.CPUStats.ThrottlingData = container.ThrottlingData{
		Periods: cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"], ThrottledTime: cpu["throttled_usec"] * microsecond,
	}
	memory := &stats.MemoryStats
	if memory.Stats, err = readKeyed(group, "memory.stat"); err != nil {
		memory.Stats = nil
	}
	memory.Usage, memory.Limit = readNumber(group, "memory.current"), readNumber(group, "memory.max")
	memory.MaxUsage = readNumber(group, "memory.peak")
	if happened, err := readKeyed(group, "memory.events"); err == nil {
		memory.Failcnt = happened["oom"]
	}
	stats.PidsStats.Current, stats.PidsStats.Limit = readTasks(group), readNumber(group, "pids.max")
	if data, err := fs.ReadFile(group, "io.stat"); err == nil {
		stats.BlkioStats.IoServiceBytesRecursive = parseIO(string(data))
	}
	return nil
}

// readKeyed reads a file of lines of a name and a number.
func readKeyed(group fs.FS, name string) (map[string]uint64, error) {
	data, err := fs.ReadFile(group, name)
	if err != nil {
		return nil, err
	}
	values := map[string]uint64{}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			if n, err := strconv.ParseUint(value, 10, 64); err == nil {
				values[key] = n
			}
		}
	}
	return values, nil
}

// readNumber reads a file of one number; 0 if it is not there, or says "max".
func readNumber(group fs.FS, name string) uint64 {
	data, err := fs.ReadFile(group, name)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	return n
}

// readTasks is how many tasks a control group has, or, without the controller
// that counts them, how many processes are in it and in those below it.
func readTasks(group fs.FS) uint64 {
	if n := readNumber(group, "pids.current"); n > 0 {
		return n
	}
	pids, err := cgroupPIDs(group, ".")
	if err != nil {
		return 0
	}
	return uint64(len(pids))
}

// parseIO reads io.stat: a line for each device, "8:0 rbytes=1 wbytes=2 …".
// Other accounts than those of bytes Docker leaves out too.
func parseIO(text string) []container.BlkioStatEntry {
	var entries []container.BlkioStatEntry
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		var major, minor uint64
		if len(fields) == 0 {
			continue
		}
		if _, err := fmt.Sscanf(fields[0], "%d:%d", &major, &minor); err != nil {
			continue
		}
		for _, op := range []struct{ key, name string }{{"rbytes=", "read"}, {"wbytes=", "write"}} {
			for _, f := range fields[1:] {
				if value, ok := strings.CutPrefix(f, op.key); ok {
					n, _ := strconv.ParseUint(value, 10, 64)
					entries = append(entries, container.BlkioStatEntry{Major: major, Minor: minor, Op: op.name, Value: n})
				}
			}
		}
	}
	return entries
}

// clockTick is the unit of /proc/stat: 1/USER_HZ of a second, which is 100 on all that Linux runs on (time(7)).
const clockTick = uint64(time.Second / 100)

// readMachine reads what all processors have done, against which a client
// computes a share, and the memory there is, which is a container's limit that has none.
func readMachine(proc fs.FS, stats *container.StatsResponse) error {
	data, err := fs.ReadFile(proc, "stat")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 8 || !strings.HasPrefix(fields[0], "cpu"):
		case fields[0] == "cpu":
			// user, nice, system, idle, iowait, irq, softirq, as Docker adds them up (proc(5)).
			for _, f := range fields[1:8] {
				n, err := strconv.ParseUint(f, 10, 64)
				if err != nil {
					return fmt.Errorf("cannot read /proc/stat: %w", err)
				}
				stats.CPUStats.SystemUsage += n * clockTick
			}
		default:
			stats.CPUStats.OnlineCPUs++
		}
	}
	if stats.MemoryStats.Limit > 0 {
		return nil
	}
	data, err = fs.ReadFile(proc, "meminfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseUint(f[1], 10, 64)
			stats.MemoryStats.Limit = min(kib, math.MaxUint64>>10) << 10
		}
	}
	return nil
}

// parseNetDev reads /proc/<pid>/net/dev, but for the loopback interface: that is no way out of the container.
func parseNetDev(text string) map[string]container.NetworkStats {
	all := map[string]container.NetworkStats{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(fields) < 12 {
			continue // the two lines of the head have no colon
		}
		n := make([]uint64, 12)
		for i := range n {
			n[i], _ = strconv.ParseUint(fields[i], 10, 64)
		}
		// bytes packets errs drop fifo frame compressed multicast, received; then the same sent.
		all[name] = container.NetworkStats{
			RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3],
			TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		}
	}
	return all
}
