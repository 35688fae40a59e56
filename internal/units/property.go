package units

import (
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// Property is a property of a transient unit, or of a change to a unit: a name of org.freedesktop.systemd1(5) and a value of exactly the D-Bus type that
// PID 1 expects there. Which name takes which type is in bus_set_transient_property() of each kind of setting in systemd's source; the constructors below
// are named for the type.
type Property = systemd.Property

// execCommand is (sasb): path, arguments from the zeroth on, and whether a failure is ignored.
type execCommand struct {
	Path          string
	Args          []string
	IgnoreFailure bool
}

// Exec is a command: name is "ExecStart", "ExecStartPost", "ExecStopPost", …, type a(sasb). With ignoreFailure it is what "-" in front of the path is in a unit file.
// argv[0] is an absolute path or the name of a program that PID 1 finds in its own fixed search path. Given several times for one name, the commands run one after the other (but "ExecStart" of most service types can be one only).
func Exec(name string, ignoreFailure bool, argv ...string) Property {
	commands := []execCommand{}
	if len(argv) > 0 {
		commands = append(commands, execCommand{argv[0], argv, ignoreFailure})
	}
	return property(name, commands)
}

// String is a property of type s: "Type", "Slice", "PIDFile", "Restart", "DevicePolicy", "Description", ….
func String(name, value string) Property { return property(name, value) }

// Bool is a property of type b: "Delegate", "RemainAfterExit", ….
func Bool(name string, value bool) Property { return property(name, value) }

// Int32 is a property of type i: "OOMScoreAdjust", "Nice", ….
func Int32(name string, value int32) Property { return property(name, value) }

// Uint32 is a property of type u: "UMask", "StartLimitBurst", ….
func Uint32(name string, value uint32) Property { return property(name, value) }

// Uint64 is a property of type t: "MemoryMax", "TasksMax", "CPUWeight", "CPUQuotaPerSecUSec", "LimitNOFILE", ….
func Uint64(name string, value uint64) Property { return property(name, value) }

// USec is a property of type t that is a span of time in microseconds: "TimeoutStopUSec", "RestartUSec", …. A negative one means "infinity".
func USec(name string, d time.Duration) Property {
	if d < 0 {
		return property(name, ^uint64(0))
	}
	return property(name, uint64(d.Microseconds()))
}

// Strings is a property of type as: "Environment", "After", "Wants", "CPUAffinity"-like lists, ….
func Strings(name string, values ...string) Property {
	return property(name, append([]string{}, values...))
}

// Pair is an element of Pairs.
type Pair struct{ A, B string }

// Pairs is a property of type a(ss): "DeviceAllow" (device node or class, "rwm").
func Pairs(name string, values ...Pair) Property { return property(name, append([]Pair{}, values...)) }

// Limit is an element of Limits.
type Limit struct {
	Path  string
	Value uint64
}

// Limits is a property of type a(st): "IOReadBandwidthMax", "IOWriteIOPSMax", "IODeviceWeight", ….
func Limits(name string, values ...Limit) Property {
	return property(name, append([]Limit{}, values...))
}

// CPUs is a property of type ay that is a set of numbers: "AllowedCPUs", "AllowedMemoryNodes". No number at all means no restriction.
func CPUs(name string, numbers ...int) Property {
	mask := []byte{}
	for _, n := range numbers {
		for len(mask) <= n/8 {
			mask = append(mask, 0)
		}
		mask[n/8] |= 1 << (n % 8)
	}
	return property(name, mask)
}

// Fields is a property of type aay: "LogExtraFields" ("NAME=value").
func Fields(name string, values ...string) Property {
	list := make([][]byte, len(values))
	for i, v := range values {
		list[i] = []byte(v)
	}
	return property(name, list)
}

func property(name string, value any) Property {
	return Property{Name: name, Value: dbus.MakeVariant(value)}
}

// checkProperties finds what PID 1 would refuse with a less helpful sentence.
func checkProperties(props []Property) error {
	for _, p := range props {
		if p.Name == "" || p.Value.Value() == nil {
			return &kindError{fmt.Sprintf("property %q has no name or no value", p.Name), errdefs.ErrInvalidArgument}
		}
	}
	return nil
}
