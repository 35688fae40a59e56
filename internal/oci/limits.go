package oci

import (
	"cmp"
	"math"
	"slices"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

// Infinity stands for "no limit" in Limits, as in systemd's own properties
// (systemd.resource-control(5)): it is what `infinity` is on D-Bus.
const Infinity uint64 = math.MaxUint64

// Limits are a container's resources as properties of its unit. A nil pointer
// or an empty value means that the request says nothing about it; [Infinity]
// means that it asks for no limit. Names and units are systemd's
// (systemd.resource-control(5), org.freedesktop.systemd1(5)).
type Limits struct {
	// MemoryMax, MemoryLow and MemorySwapMax are bytes. MemorySwapMax is swap
	// alone, unlike the request's MemorySwap, which is memory and swap.
	MemoryMax     *uint64
	MemoryLow     *uint64
	MemorySwapMax *uint64
	// CPUQuotaPerSecUSec is processor time per second, in µs: 1 500 000 is one
	// and a half processors. CPUQuotaPeriodUSec is the period over which the
	// kernel counts, in µs.
	CPUQuotaPerSecUSec *uint64
	CPUQuotaPeriodUSec *uint64
	// CPUWeight is 1 to 10000.
	CPUWeight *uint64
	// AllowedCPUs and AllowedMemoryNodes are numbers in order; see CPUMask for
	// the form on D-Bus.
	AllowedCPUs        []int
	AllowedMemoryNodes []int
	// TasksMax counts processes and threads.
	TasksMax *uint64
	// IOWeight is 1 to 10000.
	IOWeight *uint64
	// Per device: a weight of 1 to 10000, or bytes or operations per second.
	IODeviceWeight   []DeviceValue
	IOReadBandwidth  []DeviceValue
	IOWriteBandwidth []DeviceValue
	IOReadIOPS       []DeviceValue
	IOWriteIOPS      []DeviceValue
	// DevicePolicy is "strict" (only DeviceAllow), or "auto" without
	// DeviceAllow, which allows everything.
	DevicePolicy string
	DeviceAllow  []DeviceAllow
}

// DeviceValue is a number for one block device of the host.
type DeviceValue struct {
	Path  string
	Value uint64
}

// DeviceAllow is an entry of the unit's property of that name.
type DeviceAllow struct {
	// Node is a path below /dev, or "char-GROUP" or "block-GROUP" where GROUP is
	// a name of /proc/devices, a major number or "*".
	Node string
	// Access is made of r, w and m (mknod).
	Access string
}

// LimitsOf translates a request that Validate has accepted.
func LimitsOf(hc *container.HostConfig, m Machine) (Limits, error) {
	r := hc.Resources
	l := Limits{
		MemoryMax:          bytesLimit(r.Memory),
		MemorySwapMax:      swapLimit(r.Memory, r.MemorySwap),
		CPUQuotaPerSecUSec: cpuQuota(r),
		CPUWeight:          cpuWeight(r.CPUShares),
		TasksMax:           tasksLimit(r.PidsLimit),
		IOWeight:           ioWeight(r.BlkioWeight),
		IODeviceWeight:     deviceWeights(r.BlkioWeightDevice),
		IOReadBandwidth:    deviceRates(r.BlkioDeviceReadBps),
		IOWriteBandwidth:   deviceRates(r.BlkioDeviceWriteBps),
		IOReadIOPS:         deviceRates(r.BlkioDeviceReadIOps),
		IOWriteIOPS:        deviceRates(r.BlkioDeviceWriteIOps),
	}
	if r.MemoryReservation > 0 {
		l.MemoryLow = bytesLimit(r.MemoryReservation)
	}
	if r.CPUPeriod > 0 {
		period := uint64(r.CPUPeriod)
		l.CPUQuotaPeriodUSec = &period
	}
	var err error
	if l.AllowedCPUs, err = parseSet(r.CpusetCpus); err != nil {
		return Limits{}, invalid("Invalid value %s for cpuset cpus", r.CpusetCpus)
	}
	if l.AllowedMemoryNodes, err = parseSet(r.CpusetMems); err != nil {
		return Limits{}, invalid("Invalid value %s for cpuset mems", r.CpusetMems)
	}
	l.DevicePolicy, l.DeviceAllow, err = devicePolicy(hc, m)
	return l, err
}

// bytesLimit is nil for 0 ("not said") and Infinity for negative numbers
// ("unlimited").
func bytesLimit(n int64) *uint64 {
	if n == 0 {
		return nil
	}
	v := Infinity
	if n > 0 {
		v = uint64(n)
	}
	return &v
}

// swapLimit takes the memory out of "memory and swap". A request that limits
// memory alone gets as much swap again, as Docker documents.
func swapLimit(memory, memorySwap int64) *uint64 {
	switch {
	case memorySwap < 0:
		return bytesLimit(-1)
	case memory <= 0:
		return nil
	case memorySwap == 0:
		return bytesLimit(memory)
	}
	v := uint64(max(memorySwap-memory, 0))
	return &v
}

// defaultCPUPeriod is the kernel's, in µs (cpu.cfs_period_us).
const defaultCPUPeriod = 100_000

func cpuQuota(r container.Resources) *uint64 {
	var perSecond uint64
	switch {
	case r.NanoCPUs > 0:
		perSecond = uint64(r.NanoCPUs) / 1000
	case r.CPUQuota > 0:
		period := uint64(cmp.Or(max(r.CPUPeriod, 0), defaultCPUPeriod))
		quota := uint64(r.CPUQuota)
		// Whole processors and the rest apart: the product of a large quota
		// would not fit. More of them than any machine has are no limit.
		if whole := quota / period; whole < 1<<32 {
			perSecond = whole*1_000_000 + quota%period*1_000_000/period
		} else {
			perSecond = Infinity
		}
	case r.CPUQuota < 0:
		perSecond = Infinity
	default:
		return nil
	}
	// systemd refuses zero; the kernel's smallest quota is larger than this.
	perSecond = max(perSecond, 1)
	return &perSecond
}

// cpuWeight maps cgroup v1's shares, 2 to 262144, onto v2's weight, 1 to
// 10000, linearly: the conversion that runtimes share.
func cpuWeight(shares int64) *uint64 {
	if shares <= 0 {
		return nil
	}
	shares = min(max(shares, 2), 262144)
	w := uint64(1 + (shares-2)*9999/262142)
	return &w
}

func tasksLimit(n *int64) *uint64 {
	if n == nil || *n == 0 {
		return nil
	}
	return bytesLimit(*n)
}

// ioWeight maps the request's 10 to 1000 onto v2's 1 to 10000, as runtimes do.
func ioWeight(w uint16) *uint64 {
	if w == 0 {
		return nil
	}
	v := 1 + (max(uint64(w), 10)-10)*9999/990
	v = min(v, 10000)
	return &v
}

func deviceWeights(list []*blkiodev.WeightDevice) []DeviceValue {
	var values []DeviceValue
	for _, d := range list {
		if d != nil && d.Weight > 0 {
			values = append(values, DeviceValue{d.Path, *ioWeight(d.Weight)})
		}
	}
	return values
}

func deviceRates(list []*blkiodev.ThrottleDevice) []DeviceValue {
	var values []DeviceValue
	for _, d := range list {
		if d != nil && d.Rate > 0 {
			values = append(values, DeviceValue{d.Path, d.Rate})
		}
	}
	return values
}

// CPUMask is a list of processors or memory nodes as the byte array that
// AllowedCPUs= and AllowedMemoryNodes= are on D-Bus: bit n%8 of byte n/8
// stands for number n.
func CPUMask(numbers []int) []byte {
	if len(numbers) == 0 {
		return nil
	}
	mask := make([]byte, slices.Max(numbers)/8+1)
	for _, n := range numbers {
		mask[n/8] |= 1 << (n % 8)
	}
	return mask
}
