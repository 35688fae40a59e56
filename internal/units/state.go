package units

import (
	"encoding/hex"
	"time"
	"unique"

	"github.com/godbus/dbus/v5"
)

const (
	unitIface    = "org.freedesktop.systemd1.Unit"
	serviceIface = "org.freedesktop.systemd1.Service"
)

// State is what is known of a service unit at one moment. The fields are the unit's properties of the same name in org.freedesktop.systemd1(5).
type State struct {
	Name string // with its suffix: "x.service"
	// LoadState is "loaded", or "not-found", "bad-setting", "error", "masked", …
	LoadState string
	// ActiveState is "active", "reloading", "inactive", "failed", "activating" or "deactivating".
	ActiveState string
	// SubState is what ActiveState means for a service: "running", "exited", "dead", "auto-restart", "stop-sigterm", …
	SubState string
	// Result of the last run: "success", "exit-code", "signal", "core-dump", "oom-kill", "timeout", "protocol", "start-limit-hit", …
	Result string
	// InvocationID is the ID of the current or last run, 32 hex digits; empty if the unit has not been started.
	InvocationID string
	// ControlGroup is the path below /sys/fs/cgroup; empty while there is none.
	ControlGroup string

	MainPID     uint32 // 0 while there is no main process
	ExecMainPID uint32 // also after it exited
	// ExecMainCode is 0 while the process runs, then 1 (CLD_EXITED), 2 (CLD_KILLED) or 3 (CLD_DUMPED); see waitid(2).
	ExecMainCode int32
	// ExecMainStatus is the exit status or the number of the signal.
	ExecMainStatus int32
	ExecMainStart  time.Time // zero if there was none
	ExecMainExit   time.Time // zero while it runs

	NRestarts    uint32 // restarts by systemd itself (Restart=)
	FreezerState string // "running", "freezing", "frozen", "thawing"
	Description  string
}

// field is a property that State is made of.
type field struct {
	iface, name string
	// announced says that the property is part of PropertiesChanged (EMITS_CHANGE); the others are known only from reading.
	announced bool
	// set stores a value; one of another type than expected leaves the field as it is.
	set func(s *State, v any)
}

// fields is the one list of what State is made of: merging announcements and reading derive from it.
var fields = []field{
	{serviceIface, "Result", true, func(s *State, v any) { assignText(&s.Result, v) }},
	{serviceIface, "MainPID", true, func(s *State, v any) { assign(&s.MainPID, v) }},
	{serviceIface, "ExecMainPID", true, func(s *State, v any) { assign(&s.ExecMainPID, v) }},
	{serviceIface, "ExecMainCode", true, func(s *State, v any) { assign(&s.ExecMainCode, v) }},
	{serviceIface, "ExecMainStatus", true, func(s *State, v any) { assign(&s.ExecMainStatus, v) }},
	{serviceIface, "ExecMainStartTimestamp", true, func(s *State, v any) { assignTime(&s.ExecMainStart, v) }},
	{serviceIface, "ExecMainExitTimestamp", true, func(s *State, v any) { assignTime(&s.ExecMainExit, v) }},
	{serviceIface, "NRestarts", true, func(s *State, v any) { assign(&s.NRestarts, v) }},
	{serviceIface, "ControlGroup", false, func(s *State, v any) { assignText(&s.ControlGroup, v) }},
	{unitIface, "LoadState", false, func(s *State, v any) { assignText(&s.LoadState, v) }},
	{unitIface, "Description", false, func(s *State, v any) { assignText(&s.Description, v) }},
	{unitIface, "InvocationID", true, func(s *State, v any) {
		if id, ok := v.([]byte); ok {
			s.InvocationID = hex.EncodeToString(id)
		}
	}},
	{unitIface, "FreezerState", true, func(s *State, v any) { assignText(&s.FreezerState, v) }},
	{unitIface, "ActiveState", true, func(s *State, v any) { assignText(&s.ActiveState, v) }},
	{unitIface, "SubState", true, func(s *State, v any) { assignText(&s.SubState, v) }},
}

// merge takes over every property of props that State has; the others, and what props lacks, change nothing.
func (s *State) merge(props map[string]dbus.Variant) {
	for i := range fields {
		if v, ok := props[fields[i].name]; ok {
			fields[i].set(s, v.Value())
		}
	}
}

// loaded reports whether s is a unit that somebody defined and not only a name that somebody mentioned: PID 1 keeps an empty unit for such a name,
// for an instant or for as long as another unit refers to it.
func (s *State) loaded() bool {
	return s.LoadState != "not-found" || (s.ActiveState != "inactive" && s.ActiveState != "")
}

func assign[T any](to *T, v any) {
	if x, ok := v.(T); ok {
		*to = x
	}
}

// assignText is assign for a text, which is kept for as long as the unit is known: once for all units, most of which say the same, and without the
// 4 KiB that godbus decodes all texts of a message into.
func assignText(to *string, v any) {
	if x, ok := v.(string); ok {
		*to = unique.Make(x).Value()
	}
}

// assignTime converts a systemd timestamp: microseconds of CLOCK_REALTIME, 0 for "never".
func assignTime(to *time.Time, v any) {
	usec, ok := v.(uint64)
	switch {
	case !ok:
	case usec == 0:
		*to = time.Time{}
	default:
		*to = time.UnixMicro(int64(usec))
	}
}
