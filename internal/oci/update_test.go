package oci

import (
	"fmt"
	"testing"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestUpdateResources(t *testing.T) {
	pids := int64(10)
	have := container.Resources{Memory: 100 << 20, MemorySwap: 200 << 20, NanoCPUs: 1e9, CpusetCpus: "0", CPUShares: 512}
	got, err := UpdateResources(have, &container.Resources{Memory: 150 << 20, PidsLimit: &pids, BlkioWeight: 300}, Machine{})
	assert.NilError(t, err)
	want := have
	want.Memory, want.PidsLimit, want.BlkioWeight = 150<<20, &pids, 300
	assert.Check(t, is.DeepEqual(got, want))

	for sentence, change := range map[string]container.Resources{
		"Memory limit should be smaller than already set memoryswap limit": {Memory: 300 << 20},
		"CPU Period and CPU Quota cannot be updated as NanoCPUs":           {CPUQuota: 50000},
		"Minimum memory limit allowed is 6MB":                              {Memory: 1},
		"Invalid value x for cpuset cpus":                                  {CpusetCpus: "x"},
		"Minimum memory limit can not be less than memory reservation":     {MemoryReservation: 150 << 20},
	} {
		_, err := UpdateResources(have, &change, Machine{})
		assert.Check(t, is.ErrorContains(err, sentence))
	}
	_, err = UpdateResources(container.Resources{CPUQuota: 50000}, &container.Resources{NanoCPUs: 1e9}, Machine{})
	assert.Check(t, is.ErrorContains(err, "Nano CPUs cannot be updated"))
}

// Resources that nobody has touched are shown as they were asked for, those of a unit that somebody has changed as the unit has them.
func TestObserved(t *testing.T) {
	n := func(v uint64) *uint64 { return &v }
	pids := int64(7)
	asked := container.Resources{
		Memory: 64 << 20, MemoryReservation: 32 << 20, MemorySwap: 96 << 20, CPUPeriod: 50000, CPUQuota: 20000, CPUShares: 777,
		BlkioWeight: 123, PidsLimit: &pids, CpusetCpus: "0,1,2", CpusetMems: "0",
	}
	for _, r := range []container.Resources{asked, {}, {NanoCPUs: 1500000000, Memory: 1 << 30, MemorySwap: -1}} {
		now, err := LimitsOf(&container.HostConfig{Resources: r}, Machine{})
		assert.NilError(t, err)
		assert.Check(t, is.DeepEqual(Observed(r, now), r))
	}

	got := Observed(asked, Limits{
		MemoryMax: n(128 << 20), MemoryLow: n(0), MemorySwapMax: n(0), CPUQuotaPerSecUSec: n(2000000), CPUWeight: n(100), IOWeight: n(10000),
		TasksMax: n(Infinity), AllowedCPUs: []int{0, 2, 3}, AllowedMemoryNodes: nil,
	})
	assert.Check(t, is.DeepEqual(got, container.Resources{
		Memory: 128 << 20, MemorySwap: 128 << 20, NanoCPUs: 2e9, CPUShares: 2598, BlkioWeight: 1000, PidsLimit: new(int64), CpusetCpus: "0,2-3",
	}))
	assert.Check(t, is.Equal(Observed(asked, Limits{CPUWeight: n(Infinity)}).CPUShares, int64(0)))
}

func TestUnscale(t *testing.T) {
	for _, shares := range []int64{2, 1024, 5000, 262144} {
		w := *cpuWeight(shares)
		assert.Check(t, is.Equal(*cpuWeight(unscale(w, 1, 9999, 2, 262142)), w), fmt.Sprint(shares))
	}
}
