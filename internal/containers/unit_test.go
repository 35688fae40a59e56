package containers

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/oci"
	"lrd/internal/units"
)

// written is properties as lines of NAME=VALUE, in the notation of D-Bus.
func written(props []units.Property) string {
	var s strings.Builder
	for _, p := range props {
		value := strings.ReplaceAll(p.Value.String(), ",)", ")")
		switch v := p.Value.Value().(type) {
		case [][]byte:
			value = fmt.Sprintf("%q", v)
		case []byte:
			value = fmt.Sprintf("%#x", v)
		}
		s.WriteString(p.Name + "=" + value + "\n")
	}
	return s.String()
}

func lines(s ...string) string { return strings.Join(s, "\n") + "\n" }

func TestUnitProperties(t *testing.T) {
	r := Record{ID: longID("1234567890abcdef"), Name: "web", Config: &container.Config{Image: "app:1"}, HostConfig: &container.HostConfig{}}
	b := bundle{id: r.ID, dir: "/run/x"}
	for _, systemd := range systemds {
		got := written(unitProperties(r, b, syscall.SIGINT, -1, oci.Limits{}, systemd))
		assert.Check(t, is.Equal(got, lines(
			`Description="web (app:1)"`,
			`Slice="lrd.slice"`,
			`Type="forking"`,
			`PIDFile="/run/x/pid"`,
			`Delegate=true`,
			`ExecStart=[("/bin/sh", ["/bin/sh", "/run/x/create"], false)]`,
			`ExecStopPost=[("/bin/sh", ["/bin/sh", "/run/x/exited"], true)]`,
			`TimeoutStartUSec=@t 300000000`,
			`TimeoutStopUSec=@t 18446744073709551615`,
			`KillMode="mixed"`,
			`KillSignal=2`,
			`OOMPolicy="continue"`,
			`SyslogIdentifier="web"`,
			`LogExtraFields=["CONTAINER_ID=1234567890ab" "CONTAINER_ID_FULL=`+r.ID+`" "CONTAINER_NAME=web" "IMAGE_NAME=app:1"]`,
			`ExecStartPost=[("/bin/sh", ["/bin/sh", "/run/x/start"], false)]`,
			`Restart="no"`,
			`RemainAfterExit=true`,
			`TasksMax=@t 18446744073709551615`,
		)))
		held := b
		held.held = true
		got = written(unitProperties(r, held, syscall.SIGINT, -1, oci.Limits{}, systemd))
		assert.Check(t, !strings.Contains(got, "ExecStartPost="))
	}
}

func TestRestartProperties(t *testing.T) {
	const (
		condition = `ExecCondition=[("/bin/sh", ["/bin/sh", "/run/x/again"], false)]`
		unlimited = `StartLimitIntervalUSec=@t 0`
	)
	once := lines(`Restart="no"`, `RemainAfterExit=true`)
	force := `RestartForceExitStatus=@(aiai) ([], [1, 2, 13, 15])`
	fixed := []string{`RestartUSec=@t 1000000`}
	growing := []string{`RestartUSec=@t 100000`, `RestartSteps=@u 9`, `RestartMaxDelayUSec=@t 60000000`}
	for _, tc := range []struct {
		policy container.RestartPolicy
		want   []string
	}{
		{container.RestartPolicy{}, nil},
		{container.RestartPolicy{Name: "no"}, nil},
		{container.RestartPolicy{Name: "always"}, []string{condition, `Restart="always"`, unlimited}},
		{container.RestartPolicy{Name: "unless-stopped"}, []string{condition, `Restart="always"`, unlimited}},
		{container.RestartPolicy{Name: "on-failure"}, []string{condition, `Restart="on-failure"`, force, unlimited}},
		{container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}, []string{condition, `Restart="on-failure"`, force, `StartLimitIntervalUSec=@t 18446744073709551615`, `StartLimitBurst=@u 4`}},
	} {
		for systemd, pause := range map[int][]string{252: fixed, 253: fixed, 254: growing, 257: growing} {
			want := once
			if tc.want != nil {
				want = lines(append(append([]string{}, tc.want...), pause...)...)
			}
			assert.Check(t, is.Equal(written(restartProperties(tc.policy, bundle{dir: "/run/x"}, systemd)), want), "%v on systemd %d", tc.policy, systemd)
		}
	}
}

func TestLimitProperties(t *testing.T) {
	n := func(v uint64) *uint64 { return &v }
	got := written(limitProperties(oci.Limits{
		MemoryMax: n(1 << 20), MemoryLow: n(1 << 19), MemorySwapMax: n(0),
		CPUQuotaPerSecUSec: n(500000), CPUQuotaPeriodUSec: n(50000), CPUWeight: n(39), IOWeight: n(7), TasksMax: n(10),
		AllowedCPUs: []int{0, 2}, AllowedMemoryNodes: []int{1},
		IOReadBandwidth: []oci.DeviceValue{{Path: "/dev/sda", Value: 5}}, IOWriteIOPS: []oci.DeviceValue{{Path: "/dev/sdb", Value: 6}},
		DevicePolicy: "closed", DeviceAllow: []oci.DeviceAllow{{Node: "/dev/null", Access: "rwm"}},
	}))
	assert.Check(t, is.Equal(got, lines(
		`MemoryMax=@t 1048576`,
		`MemoryLow=@t 524288`,
		`MemorySwapMax=@t 0`,
		`CPUQuotaPerSecUSec=@t 500000`,
		`CPUQuotaPeriodUSec=@t 50000`,
		`CPUWeight=@t 39`,
		`IOWeight=@t 7`,
		`TasksMax=@t 10`,
		`AllowedCPUs=0x05`,
		`AllowedMemoryNodes=0x02`,
		`IOReadBandwidthMax=@a(st) [("/dev/sda", 5)]`,
		`IOWriteIOPSMax=@a(st) [("/dev/sdb", 6)]`,
		`DevicePolicy="closed"`,
		`DeviceAllow=[("/dev/null", "rwm")]`,
	)))
	assert.Check(t, is.Equal(written(limitProperties(oci.Limits{})), lines(`TasksMax=@t 18446744073709551615`)))
}

func TestStopTimeout(t *testing.T) {
	w := newWorld(t, 252)
	w.config.DefaultStopTimeout = 10 * time.Second
	seconds := func(n int) *int { return &n }
	for _, tc := range []struct {
		asked, own *int
		want       time.Duration
	}{
		{nil, nil, 10 * time.Second},
		{nil, seconds(3), 3 * time.Second},
		{seconds(0), seconds(3), 0},
		{seconds(-1), seconds(3), -time.Second},
		{nil, seconds(-1), -time.Second},
	} {
		r := Record{Config: &container.Config{StopTimeout: tc.own}}
		assert.Check(t, is.Equal(stopTimeout(r, StopOptions{Timeout: tc.asked}, w.config), tc.want))
	}
}

func TestUnitNames(t *testing.T) {
	id := longID("a")
	got, ok := unitID(unitName(id))
	assert.Check(t, ok && got == id)
	for _, name := range []string{"lrd.service", "lrd-.service", "lrd-abc.service", "lrd-" + id, "lrd-" + id + ".scope", strings.ToUpper(unitName(id))} {
		_, ok := unitID(name)
		assert.Check(t, !ok, name)
	}
}
