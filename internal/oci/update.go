package oci

import (
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// UpdateResources is what a container's resources are after `docker update`:
// those that it has, with what the request says put over them. What the request
// does not say stays. Errors are those of ValidateResources, and
// ErrInvalidArgument for changes that contradict what stays.
func UpdateResources(have container.Resources, change *container.Resources, m Machine) (container.Resources, error) {
	switch {
	case have.NanoCPUs > 0 && (change.CPUPeriod != 0 || change.CPUQuota != 0) && change.NanoCPUs == 0:
		return have, invalid("Conflicting options: CPU Period and CPU Quota cannot be updated as NanoCPUs has already been set")
	case change.NanoCPUs > 0 && (have.CPUPeriod != 0 || have.CPUQuota > 0) && have.NanoCPUs == 0:
		return have, invalid("Conflicting options: Nano CPUs cannot be updated as CPU Period or CPU Quota has already been set")
	case change.Memory != 0 && change.MemorySwap == 0 && have.MemorySwap > 0 && change.Memory > have.MemorySwap:
		return have, invalid("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	over(&have.Memory, change.Memory)
	over(&have.MemorySwap, change.MemorySwap)
	over(&have.MemoryReservation, change.MemoryReservation)
	over(&have.NanoCPUs, change.NanoCPUs)
	over(&have.CPUPeriod, change.CPUPeriod)
	over(&have.CPUQuota, change.CPUQuota)
	over(&have.CPUShares, change.CPUShares)
	over(&have.CpusetCpus, change.CpusetCpus)
	over(&have.CpusetMems, change.CpusetMems)
	over(&have.BlkioWeight, change.BlkioWeight)
	over(&have.PidsLimit, change.PidsLimit)
	return have, ValidateResources(&have, 0, 0, m)
}

// over sets a value unless the new one is zero.
func over[T comparable](to *T, v T) {
	var zero T
	if v != zero {
		*to = v
	}
}

// Observed is r as `docker inspect` shows it for a unit that has the limits
// now: where somebody has changed the unit with systemctl set-property, what
// the unit says. A nil pointer or set of now is no limit.
func Observed(r container.Resources, now Limits) container.Resources {
	said := func(l *uint64, unset uint64) uint64 {
		if l == nil {
			return unset
		}
		return *l
	}
	if v := said(now.MemoryMax, Infinity); v != said(bytesLimit(r.Memory), Infinity) {
		r.Memory = finite(v)
	}
	if v := said(now.MemoryLow, 0); v != said(bytesLimit(r.MemoryReservation), 0) {
		r.MemoryReservation = finite(v)
	}
	// Less than the memory is what another limit of that leaves behind.
	if v := said(now.MemorySwapMax, Infinity); v != said(swapLimit(r.Memory, r.MemorySwap), Infinity) || r.MemorySwap > 0 && r.MemorySwap < r.Memory {
		switch {
		case v == Infinity:
			r.MemorySwap = -1
		case r.Memory > 0:
			r.MemorySwap = r.Memory + int64(v)
		}
	}
	if v := said(now.CPUQuotaPerSecUSec, Infinity); v != said(cpuQuota(r), Infinity) {
		r.NanoCPUs, r.CPUPeriod, r.CPUQuota = finite(v)*1000, 0, 0
	}
	if v := said(now.CPUWeight, Infinity); v != said(cpuWeight(r.CPUShares), Infinity) {
		r.CPUShares = unscale(v, 1, 9999, 2, 262142)
	}
	if v := said(now.IOWeight, Infinity); v != said(ioWeight(r.BlkioWeight), Infinity) {
		r.BlkioWeight = uint16(unscale(v, 1, 9999, 10, 990))
	}
	if v := said(now.TasksMax, Infinity); v != said(tasksLimit(r.PidsLimit), Infinity) {
		limit := finite(v)
		r.PidsLimit = &limit
	}
	r.CpusetCpus = observedSet(r.CpusetCpus, now.AllowedCPUs)
	r.CpusetMems = observedSet(r.CpusetMems, now.AllowedMemoryNodes)
	return r
}

// finite is a limit as the API has it, where 0 is none.
func finite(v uint64) int64 {
	if v > 1<<62 {
		return 0
	}
	return int64(v)
}

// unscale is the opposite of cpuWeight and ioWeight, which round down: a weight
// that counts span from low is one that counts toSpan from toLow. No weight is 0.
func unscale(v, low, span, toLow, toSpan uint64) int64 {
	if v < low || v > low+span {
		return 0
	}
	return int64(toLow + ((v-low)*toSpan+span-1)/span)
}

// observedSet keeps the form that a person has given a set, unless it is another one now.
func observedSet(asked string, now []int) string {
	have, err := parseSet(asked)
	if err == nil && fmt.Sprint(have) == fmt.Sprint(now) {
		return asked
	}
	return formatSet(now)
}

// formatSet is a set in the kernel's list form; numbers are in order.
func formatSet(numbers []int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		last := i
		for last+1 < len(numbers) && numbers[last+1] == numbers[last]+1 {
			last++
		}
		part := fmt.Sprint(numbers[i])
		if last > i {
			part += fmt.Sprintf("-%d", numbers[last])
		}
		parts = append(parts, part)
		i = last + 1
	}
	return strings.Join(parts, ",")
}
