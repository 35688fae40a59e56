package oci

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The range of realtime signals as the C library numbers them: the kernel's
// begins at 32, of which the library keeps two for itself (signal(7)).
const (
	sigRTMin = syscall.Signal(34)
	sigRTMax = syscall.Signal(64)
)

// ParseSignal reads a signal by number ("9") or by name, with or without
// "SIG", in any case ("KILL", "sigterm", "RTMIN+3"). The names are the
// kernel's of this architecture.
func ParseSignal(raw string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(raw); err == nil {
		if n < 1 || n > int(sigRTMax) {
			return 0, invalid("invalid signal: %s", raw)
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(raw), "SIG")
	if s := unix.SignalNum("SIG" + name); s != 0 {
		return s, nil
	}
	if s, ok := namedSignals[name]; ok {
		return s, nil
	}
	if s, ok := realtimeSignal(name); ok {
		return s, nil
	}
	return 0, invalid("invalid signal: %s", raw)
}

// namedSignals are names besides those that the kernel's headers list first
// for a number.
var namedSignals = map[string]syscall.Signal{
	"CLD":  unix.SIGCHLD,
	"IOT":  unix.SIGABRT,
	"POLL": unix.SIGIO,
}

func realtimeSignal(name string) (syscall.Signal, bool) {
	base := sigRTMin
	var rest string
	switch {
	case strings.HasPrefix(name, "RTMIN"):
		rest = name[len("RTMIN"):]
		if rest != "" && rest[0] != '+' {
			return 0, false
		}
	case strings.HasPrefix(name, "RTMAX"):
		base, rest = sigRTMax, name[len("RTMAX"):]
		if rest != "" && rest[0] != '-' {
			return 0, false
		}
	default:
		return 0, false
	}
	if rest == "" {
		return base, true
	}
	offset, err := strconv.Atoi(rest)
	if err != nil {
		return 0, false
	}
	s := int(base) + offset
	if s < int(sigRTMin) || s > int(sigRTMax) {
		return 0, false
	}
	return syscall.Signal(s), true
}
