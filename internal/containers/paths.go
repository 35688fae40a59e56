package containers

import (
	"path/filepath"
	"strings"
)

// Where things of a container are. What is below DataRoot survives a reboot,
// what is below ExecRoot does not. The tree is drawn in the package comment.

func (m *Manager) dataDir(id string) string   { return filepath.Join(m.o.DataRoot, "containers", id) }
func (m *Manager) outputDir(id string) string { return filepath.Join(m.dataDir(id), "output") }
func (m *Manager) runDir(id string) string    { return filepath.Join(m.o.ExecRoot, "containers", id) }

// pipePath is where a FIFO or the console's socket of a container is.
func (m *Manager) pipePath(id, what string) string { return filepath.Join(m.runDir(id), what) }

// runtimeDir is the runtime's own state directory, shared by all containers.
func (m *Manager) runtimeDir() string { return filepath.Join(m.o.ExecRoot, "runtime") }

const (
	unitPrefix = "lrd-"
	unitSuffix = ".service"
	// UnitPattern matches the units of all containers, as a glob for systemctl too.
	UnitPattern = unitPrefix + "*" + unitSuffix
	// UnitPrefix is what the names of all containers' units begin with.
	UnitPrefix = unitPrefix
	// Slice is the slice that all containers' units are in.
	Slice = "lrd.slice"
)

// unitName is the name of a container's unit.
func unitName(id string) string { return unitPrefix + id + unitSuffix }

// unitID is the container that a unit is for; false for other units.
func unitID(unit string) (id string, ok bool) {
	id, ok = strings.CutPrefix(unit, unitPrefix)
	if !ok {
		return "", false
	}
	id, ok = strings.CutSuffix(id, unitSuffix)
	return id, ok && isID(id)
}
