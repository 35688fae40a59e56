package units

import (
	"syscall"

	"github.com/godbus/dbus/v5"
)

// ExitStatuses is a property of type (aiai): "RestartForceExitStatus",
// "RestartPreventExitStatus", "SuccessExitStatus". It names exit codes and signals.
func ExitStatuses(name string, codes []int, signals []syscall.Signal) Property {
	set := struct{ Codes, Signals []int32 }{[]int32{}, []int32{}}
	for _, c := range codes {
		set.Codes = append(set.Codes, int32(c))
	}
	for _, s := range signals {
		set.Signals = append(set.Signals, int32(s))
	}
	return Property{Name: name, Value: dbus.MakeVariant(set)}
}
