package containers

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestReadGroup(t *testing.T) {
	group := fstest.MapFS{}
	for name, text := range map[string]string{
		"cpu.stat":       "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnice_usec 0\nnr_periods 7\nnr_throttled 3\nthrottled_usec 5\n",
		"memory.stat":    "anon 10\ninactive_file 20\n",
		"memory.current": "100\n", "memory.max": "200\n", "memory.peak": "150\n", "memory.events": "low 0\noom 4\n",
		"pids.current": "5\n", "pids.max": "max\n", "cgroup.procs": "", "payload/cgroup.procs": "1\n2\n",
		"io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n253:1 \nnonsense\n9:3 wbytes=6 rbytes=5\n",
	} {
		group[name] = &fstest.MapFile{Data: []byte(text)}
	}
	var got container.StatsResponse
	assert.NilError(t, readGroup(group, &got))
	assert.Check(t, is.DeepEqual(got, container.StatsResponse{
		CPUStats: container.CPUStats{
			CPUUsage:       container.CPUUsage{TotalUsage: 3e6, UsageInUsermode: 2e6, UsageInKernelmode: 1e6},
			ThrottlingData: container.ThrottlingData{Periods: 7, ThrottledPeriods: 3, ThrottledTime: 5000},
		},
		MemoryStats: container.MemoryStats{Usage: 100, Limit: 200, MaxUsage: 150, Failcnt: 4, Stats: map[string]uint64{"anon": 10, "inactive_file": 20}},
		PidsStats:   container.PidsStats{Current: 5},
		BlkioStats: container.BlkioStats{IoServiceBytesRecursive: []container.BlkioStatEntry{
			{Major: 8, Op: "read", Value: 1},
			{Major: 8, Op: "write", Value: 2},
			{Major: 9, Minor: 3, Op: "read", Value: 5},
			{Major: 9, Minor: 3, Op: "write", Value: 6},
		}},
	}))

	for _, name := range []string{"memory.stat", "memory.current", "memory.max", "memory.peak", "memory.events", "pids.current", "pids.max", "io.stat"} {
		delete(group, name) // as where systemd may not enable the controllers
	}
	got = container.StatsResponse{}
	assert.NilError(t, readGroup(group, &got))
	assert.Check(t, is.DeepEqual(got.MemoryStats, container.MemoryStats{}))
	assert.Check(t, is.DeepEqual(got.BlkioStats, container.BlkioStats{}))
	assert.Check(t, is.DeepEqual(got.PidsStats, container.PidsStats{Current: 2}), "what can be counted is")
	assert.Assert(t, groupGone(readGroup(fstest.MapFS{}, &got)))
}

func TestReadMachine(t *testing.T) {
	proc := fstest.MapFS{
		"stat":    {Data: []byte("cpu  1 2 3 4 5 6 7 800 900 1000\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu3 1 1 1 1 1 1 1 1 1 1\nintr 5 6 7 8 9 10 11 12\n")},
		"meminfo": {Data: []byte("MemTotal:       10 kB\nMemFree:        5 kB\n")},
	}
	var got container.StatsResponse
	assert.NilError(t, readMachine(proc, &got))
	assert.Equal(t, got.CPUStats.SystemUsage, uint64(28*1e7))
	assert.Equal(t, got.CPUStats.OnlineCPUs, uint32(2))
	assert.Equal(t, got.MemoryStats.Limit, uint64(10<<10), "a container without a limit has the machine's")
	got = container.StatsResponse{MemoryStats: container.MemoryStats{Limit: 7}}
	assert.NilError(t, readMachine(proc, &got))
	assert.Equal(t, got.MemoryStats.Limit, uint64(7))
	assert.NilError(t, readMachine(os.DirFS("/proc"), &container.StatsResponse{}))
}

func TestParseNetDev(t *testing.T) {
	got := parseNetDev(strings.Join([]string{
		"Inter-|   Receive                                                |  Transmit",
		" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed",
		"    lo:      99      99    0    0    0     0          0         0       99      99    0    0    0     0       0          0",
		"  eth0:       1       2    3    4    0     0          0         0        5       6    7    8    0     0       0          0", "",
	}, "\n"))
	assert.Check(t, is.DeepEqual(got, map[string]container.NetworkStats{
		"eth0": {RxBytes: 1, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 5, TxPackets: 6, TxErrors: 7, TxDropped: 8},
	}))
}

func TestStatsOfWhatDoesNotRun(t *testing.T) {
	w := newWorld(t, 257)
	id := w.create(withName("still"))
	got, err := w.m.Stats(t.Context(), "still")
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(got, container.StatsResponse{ID: id, Name: "/still", OSType: "linux"}))
	_, err = w.m.Stats(t.Context(), "nosuch")
	assert.Assert(t, errdefs.IsNotFound(err))
	// The fake's control group is not there: it has ended, and nobody has been told yet.
	got, err = w.m.Stats(t.Context(), w.started())
	assert.NilError(t, err)
	assert.Assert(t, got.Read.IsZero())
}
