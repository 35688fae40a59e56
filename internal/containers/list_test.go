package containers

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

var (
	portCmp = cmp.Comparer(func(a, b network.Port) bool { return a == b })
	addrCmp = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

func TestStatusText(t *testing.T) {
	now := noon
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, tc := range []struct {
		status Status
		want   string
	}{
		{Status{State: container.StateCreated}, "Created"},
		{Status{State: container.StateCreated, ExitCode: 127, Error: "no such file"}, "Created"},
		{Status{State: container.StateRunning, StartedAt: ago(3 * time.Minute)}, "Up 3 minutes"},
		{Status{State: container.StateRunning, StartedAt: ago(time.Second)}, "Up 1 second"},
		{Status{State: container.StateRunning, StartedAt: ago(0)}, "Up Less than a second"},
		{Status{State: container.StateRunning, StartedAt: ago(-time.Hour)}, "Up Less than a second"},
		{Status{State: container.StatePaused, StartedAt: ago(2 * time.Hour)}, "Up 2 hours (Paused)"},
		{Status{State: container.StateExited, ExitCode: 7, StartedAt: ago(time.Hour), FinishedAt: ago(5 * time.Minute)}, "Exited (7) 5 minutes ago"},
		{Status{State: container.StateExited, ExitCode: 255, StartedAt: ago(time.Hour)}, "Exited (255)"},
		{Status{State: container.StateRestarting, ExitCode: 1, FinishedAt: ago(4 * time.Second)}, "Restarting (1) 4 seconds ago"},
		{Status{State: container.StateRemoving}, "Removal In Progress"},
		{Status{State: container.StateDead}, "Dead"},
		{Status{State: container.StateRunning, StartedAt: ago(3 * time.Minute), Reason: "the bridge has another address"}, "Up 3 minutes (the bridge has another address)"},
		{Status{State: container.StateCreated, Reason: "one\ntwo"}, "Created (one)"},
		{Status{State: container.StateCreated, Reason: strings.Repeat("é", 100)}, "Created (" + strings.Repeat("é", maxReason-1) + "…)"},
	} {
		assert.Check(t, is.Equal(statusText(tc.status, "", now), tc.want))
	}
}

func TestCommandText(t *testing.T) {
	for _, tc := range []struct {
		argv []string
		want string
	}{
		{[]string{""}, ""},
		{[]string{"top"}, "top"},
		{[]string{"sh", "-c", "echo hello"}, "sh -c 'echo hello'"},
		{[]string{"/my programs/x", "a"}, "/my programs/x a"},
	} {
		assert.Check(t, is.Equal(commandText(tc.argv), tc.want))
	}
}

func TestSummary(t *testing.T) {
	r := shownRecord()
	got := summary(r, r.Status.live(), noon.Add(time.Minute+time.Second))
	assert.Check(t, is.DeepEqual(got.Names, []string{"/web"}))
	assert.Check(t, is.Equal(got.ImageID, imageA))
	assert.Check(t, is.Equal(got.Command, "/bin/sh -c 'echo hello'"))
	assert.Check(t, is.Equal(got.Created, noon.Unix()))
	assert.Check(t, is.DeepEqual(got.Ports, []container.PortSummary{
		{PrivatePort: 53, Type: "udp"},
		{IP: netip.IPv4Unspecified(), PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
	}, addrCmp))
	assert.Check(t, is.Equal(got.Status, "Up About a minute"))
	assert.Check(t, is.Equal(got.State, container.StateRunning))
	assert.Check(t, is.Equal(got.HostConfig.NetworkMode, "default"))
	assert.Check(t, is.Len(got.Mounts, 3))
	assert.Check(t, got.NetworkSettings.Networks["bridge"] != nil)

	empty := summary(Record{ID: longID("1")}, Status{}, noon)
	assert.Check(t, empty.Labels != nil && empty.Ports != nil && empty.Mounts != nil, "clients expect lists and maps, not null")
}

func TestPortSummaries(t *testing.T) {
	tcp80 := network.MustParsePort("80/tcp")
	got := portSummaries(&container.NetworkSettings{Ports: network.PortMap{
		network.MustParsePort("443/tcp"): nil,
		network.MustParsePort("80/udp"):  nil,
		tcp80: {
			{HostPort: "9000"},
			{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: "8080"},
			{HostPort: "8080"},
		},
	}})
	all := netip.IPv4Unspecified()
	assert.Check(t, is.DeepEqual(got, []container.PortSummary{
		{IP: all, PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
		{IP: all, PrivatePort: 80, PublicPort: 9000, Type: "tcp"},
		{IP: netip.MustParseAddr("127.0.0.1"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
		{PrivatePort: 80, Type: "udp"},
		{PrivatePort: 443, Type: "tcp"},
	}, addrCmp))
}

// listedManager has four containers, the first the oldest.
func listedManager(t *testing.T) (*Manager, *shownImages) {
	state := func(name, image string, minute int, s SavedStatus) Record {
		return Record{
			ID: longID(name[:1]), Name: name, Created: noon.Add(time.Duration(minute) * time.Minute), ImageID: image,
			Config: &container.Config{Image: "app"}, HostConfig: &container.HostConfig{}, Status: s,
		}
	}
	return shownManager(t,
		state("a_created", imageA, 0, SavedStatus{State: container.StateCreated}),
		state("b_running", imageB, 1, SavedStatus{State: container.StateRunning, StartedAt: noon}),
		state("c_exited", imageA, 2, SavedStatus{State: container.StateExited, ExitCode: 7, StartedAt: noon, FinishedAt: noon}),
		state("d_paused", imageA, 3, SavedStatus{State: container.StatePaused, StartedAt: noon}),
	)
}

// initials are the first letters of the listed containers' names.
func initials(list []container.Summary) string {
	var s strings.Builder
	for _, c := range list {
		s.WriteString(c.Names[0][1:2])
	}
	return s.String()
}

func TestListChoosesNewestFirst(t *testing.T) {
	m, _ := listedManager(t)
	status := func(v string) Filters { return Filters{"status": {v: true}} }
	for _, tc := range []struct {
		name string
		o    ListOptions
		want string
	}{
		{"running", ListOptions{}, "db"},
		{"all", ListOptions{All: true}, "dcba"},
		{"limit implies all", ListOptions{Limit: 2}, "dc"},
		{"limit beyond the end", ListOptions{Limit: 9}, "dcba"},
		{"no limit", ListOptions{Limit: -1}, "db"},
		{"limit counts what the filters leave", ListOptions{Limit: 1, Filters: status("created")}, "a"},
		{"status implies all", ListOptions{Filters: status("exited")}, "c"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := m.List(t.Context(), tc.o)
			assert.NilError(t, err)
			assert.Check(t, is.Equal(initials(got), tc.want))
		})
	}
}

func TestListShowsTheImageAsItIsKnownNow(t *testing.T) {
	m, store := listedManager(t)
	list := func() map[string]string {
		got, err := m.List(t.Context(), ListOptions{All: true, Size: true})
		assert.NilError(t, err)
		shown := map[string]string{}
		for _, c := range got {
			shown[c.Names[0][1:2]] = c.Image
			assert.Check(t, is.Equal(c.SizeRw, int64(7)))
		}
		return shown
	}
	assert.Check(t, is.DeepEqual(list(), map[string]string{"a": "app", "b": imageB, "c": "app", "d": "app"}))
	assert.Check(t, is.Equal(store.resolved, 1), "a name is looked up once for a list")
	delete(store.ids, "app")
	assert.Check(t, is.Equal(list()["a"], imageA))
}

func TestListDoesNotFailOverTheImageStore(t *testing.T) {
	m, store := listedManager(t)
	store.broken = errors.New("input/output error")
	got, err := m.List(t.Context(), ListOptions{All: true})
	assert.NilError(t, err)
	assert.Check(t, is.Equal(got[0].Image, "app"))
}

func TestListOfNothing(t *testing.T) {
	m, _ := shownManager(t)
	got, err := m.List(t.Context(), ListOptions{})
	assert.NilError(t, err)
	assert.Check(t, got != nil, "clients expect a list, not null")
}
