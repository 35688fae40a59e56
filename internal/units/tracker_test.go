package units

import (
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// testTracker is a tracker with one watch whose queue is read directly.
func testTracker() (*tracker, *Watch) {
	t := newTracker()
	w := &Watch{prefix: "lrd-", pending: newQueue[Change]()}
	t.add(w)
	return t, w
}

func changed(seq dbus.Sequence, iface string, props map[string]any) *dbus.Signal {
	variants := make(map[string]dbus.Variant)
	for k, v := range props {
		variants[k] = dbus.MakeVariant(v)
	}
	return &dbus.Signal{Name: propsIface + ".PropertiesChanged", Path: unitPath(testUnit), Sequence: seq, Body: []any{iface, variants, []string{}}}
}

func TestChangeIsWhole(t *testing.T) {
	tr, w := testTracker()
	tr.signal(changed(1, serviceIface, running()))
	assert.Check(t, is.Len(w.pending.take(), 0), "half of an announcement")
	tr.signal(changed(2, unitIface, running()))
	assert.Check(t, is.Len(w.pending.take(), 1))
	tr.signal(changed(3, unitIface, running()))
	assert.Check(t, is.Len(w.pending.take(), 0), "no news")
	tr.signal(changed(4, "org.freedesktop.systemd1.Other", exited(1)))
	tr.signal(&dbus.Signal{Name: propsIface + ".PropertiesChanged", Path: "/elsewhere", Body: []any{unitIface}})
	assert.Check(t, is.Len(w.pending.take(), 0))
}

// The first announcement of a run says "inactive" still, and so does that of a name that is merely mentioned.
func TestNotStartedIsNotEnded(t *testing.T) {
	tr, w := testTracker()
	starting := running()
	starting["ActiveState"], starting["SubState"] = "inactive", "dead"
	tr.signal(changed(1, unitIface, map[string]any{"ActiveState": "inactive", "InvocationID": []byte{}}))
	tr.signal(changed(2, unitIface, starting))
	starting["MainPID"] = uint32(0)
	tr.signal(changed(3, unitIface, starting))
	assert.Check(t, is.Len(w.pending.take(), 0))
	tr.signal(changed(4, unitIface, running()))
	tr.signal(changed(5, unitIface, exited(1)))
	assert.Check(t, is.Len(w.pending.take(), 2))

	// Started again under the same name, with the exit of the former run still there.
	again := exited(1)
	again["InvocationID"], again["ActiveState"] = []byte{2}, "inactive"
	tr.signal(changed(6, unitIface, again))
	assert.Check(t, is.Len(w.pending.take(), 0))

	again["ExecMainExitTimestamp"] = uint64(0)
	tr.signal(changed(7, unitIface, again))
	assert.Check(t, is.Len(w.pending.take(), 0))

	// Ended at once.
	again["ExecMainExitTimestamp"] = uint64(9_000_000)
	tr.signal(changed(8, unitIface, again))
	assert.Check(t, is.Len(w.pending.take(), 1))
}

// A listing made in the background does not undo what was signalled meanwhile.
func TestResyncAndSignals(t *testing.T) {
	tr, w := testTracker()
	tr.signal(changed(1, unitIface, running()))
	tr.signal(changed(20, unitIface, exited(1)))
	w.pending.take()
	old := State{Name: testUnit, LoadState: "loaded", ActiveState: "active", SubState: "running", InvocationID: "abcd", ControlGroup: "/x"}
	tr.resync(listing{seq: 5, units: map[string]listedUnit{testUnit: {old, 6}}})
	assert.Check(t, is.DeepEqual(w.pending.take(), []Change{{Resync: true}}))
	assert.Check(t, is.Equal(tr.units[testUnit].state.ActiveState, "failed"))
	assert.Check(t, is.Equal(tr.units[testUnit].state.ControlGroup, "/x"))

	tr.resync(listing{seq: 10, units: nil})
	assert.Check(t, is.Len(w.pending.take(), 1), "made after the list")
	tr.resync(listing{seq: 30, units: nil})
	gone := w.pending.take()
	assert.Check(t, is.Len(gone, 2))
	assert.Check(t, gone[0].Removed && gone[0].State.ExecMainStatus == 1)
}

func TestFroze(t *testing.T) {
	tr, w := testTracker()
	tr.signal(changed(1, unitIface, running()))
	tr.froze(testUnit, "frozen")
	tr.froze(testUnit, "frozen")
	tr.froze("lrd-unknown.service", "frozen")
	changes := w.pending.take()
	assert.Check(t, is.Len(changes, 2))
	assert.Check(t, is.Equal(changes[1].State.FreezerState, "frozen"))
	tr.remove(w)
	assert.Check(t, is.Len(tr.units, 0))
}

func TestPatterns(t *testing.T) {
	tr := newTracker()
	for _, prefix := range []string{"lrd-", "a*b", "lrd-", ""} {
		tr.add(&Watch{prefix: prefix})
	}
	assert.Check(t, is.DeepEqual(tr.patterns(), []string{"*", `a\*b*`, "lrd-*"}))
}

func TestPaths(t *testing.T) {
	for _, name := range []string{"lrd-0a.service", "-.slice", `dev-x\x2dy.device`, "a@b:c_d.service", "ä.service"} {
		got, ok := unitName(unitPath(name))
		assert.Check(t, ok && got == name, "%q became %q", name, got)
	}
	for _, path := range []dbus.ObjectPath{"/", "/org/freedesktop/systemd1/job/1", unitPrefix + "a_zz"} {
		_, ok := unitName(path)
		assert.Check(t, !ok, path)
	}
}

func TestParseVersion(t *testing.T) {
	for s, want := range map[string]int{"252.39-1~deb12u2": 252, "v255": 255, "257~rc1": 257, "260": 260, "": 0, "x": 0} {
		assert.Check(t, is.Equal(parseVersion(s), want), s)
	}
}

// PID 1 refuses a property of any other type than exactly its own.
func TestPropertyTypes(t *testing.T) {
	for _, x := range []struct {
		p    Property
		want string
	}{
		{Exec("ExecStart", true, "/bin/true", "x"), "a(sasb)"},
		{Exec("ExecStart", false), "a(sasb)"},
		{String("Type", "exec"), "s"},
		{Bool("Delegate", true), "b"},
		{Int32("Nice", 1), "i"},
		{Uint32("UMask", 1), "u"},
		{Uint64("MemoryMax", 1), "t"},
		{USec("TimeoutStopUSec", time.Second), "t"},
		{Strings("Environment"), "as"},
		{Pairs("DeviceAllow", Pair{"/dev/null", "rwm"}), "a(ss)"},
		{Limits("IOReadBandwidthMax", Limit{"/", 1}), "a(st)"},
		{CPUs("AllowedCPUs", 0), "ay"},
		{Fields("LogExtraFields", "A=b"), "aay"},
	} {
		assert.Check(t, is.Equal(x.p.Value.Signature().String(), x.want), x.p.Name)
	}
	assert.Check(t, is.Equal(USec("x", -1).Value.Value(), ^uint64(0)))
	assert.Check(t, is.Equal(USec("x", 2*time.Second).Value.Value(), uint64(2_000_000)))
	assert.Check(t, is.DeepEqual(CPUs("x", 0, 9, 17).Value.Value(), []byte{1, 2, 2}))
	assert.Check(t, checkProperties([]Property{{}}) != nil)
}
