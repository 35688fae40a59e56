package oci

import (
	"slices"

	"github.com/moby/moby/api/types/container"
)

// minMemory is the smallest memory limit in bytes: below it a runtime can not
// even start the process. Docker's number.
const minMemory = 6 << 20

// validateResources checks what becomes Limits and rlimits.
func validateResources(_ *container.Config, hc *container.HostConfig, m Machine) error {
	return ValidateResources(&hc.Resources, hc.ShmSize, hc.OomScoreAdj, m)
}

// ValidateResources checks resource limits alone, for a create request and for
// `docker update`.
func ValidateResources(r *container.Resources, shmSize int64, oomScoreAdj int, m Machine) error {
	if err := validateMemory(r); err != nil {
		return err
	}
	if err := validateCPU(r, m); err != nil {
		return err
	}
	if shmSize < 0 {
		return invalid("SHM size can not be less than 0")
	}
	if oomScoreAdj < -1000 || oomScoreAdj > 1000 {
		return invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", oomScoreAdj)
	}
	if _, err := rlimits(r.Ulimits, nil); err != nil {
		return err
	}
	return validateBlkio(r)
}

func validateMemory(r *container.Resources) error {
	switch {
	case r.Memory < 0:
		return invalid("invalid memory limit %d: must not be negative", r.Memory)
	case r.Memory > 0 && r.Memory < minMemory:
		return invalid("Minimum memory limit allowed is 6MB")
	case r.MemorySwap < -1:
		return invalid("invalid memory and swap limit %d: must be positive, 0 or -1 for unlimited", r.MemorySwap)
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0:
		return invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemoryReservation < 0:
		return invalid("invalid memory reservation %d: must not be negative", r.MemoryReservation)
	case r.MemoryReservation > 0 && r.MemoryReservation < minMemory:
		return invalid("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > r.Memory:
		return invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	if s := r.MemorySwappiness; s != nil && (*s < -1 || *s > 100) {
		return invalid("Invalid value: %v, valid memory swappiness range is 0-100", *s)
	}
	return nil
}

func validateCPU(r *container.Resources, m Machine) error {
	switch {
	case r.CPUShares < 0:
		return invalid("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.NanoCPUs != 0 && r.CPUPeriod > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs != 0 && r.CPUQuota > 0:
		return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.NanoCPUs < 0 || m.CPUs > 0 && r.NanoCPUs > int64(m.CPUs)*1e9:
		return invalid("range of CPUs is from 0.01 to %[1]d.00, as there are only %[1]d CPUs available", m.CPUs)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1_000_000):
		return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	if err := checkSet(r.CpusetCpus, m.CPUSet, "cpuset cpus", "CPUs"); err != nil {
		return err
	}
	return checkSet(r.CpusetMems, m.MemSet, "cpuset mems", "memory nodes")
}

func validateBlkio(r *container.Resources) error {
	if w := r.BlkioWeight; w != 0 && (w < 10 || w > 1000) {
		return invalid("Range of blkio weight is from 10 to 1000")
	}
	for _, d := range r.BlkioWeightDevice {
		if d == nil || d.Path == "" {
			return invalid("invalid blkio weight device: the path must not be empty")
		}
		if d.Weight != 0 && (d.Weight < 10 || d.Weight > 1000) {
			return invalid("Range of blkio weight is from 10 to 1000")
		}
	}
	for _, d := range slices.Concat(r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps) {
		if d == nil || d.Path == "" {
			return invalid("invalid blkio limit: the path of the device must not be empty")
		}
	}
	return nil
}
