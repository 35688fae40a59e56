package containers

import (
	"errors"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/networks"
)

func TestFilters(t *testing.T) {
	web := shownRecord() // running, exposes 80/tcp and 53/udp, publishes 80/tcp
	web.Name = "web"
	job := Record{
		ID: longID("2"), Name: "job-web", Created: noon.Add(time.Minute), ImageID: imageB,
		Config:     &container.Config{Image: "tool", Labels: map[string]string{"tier": "back", "job": ""}},
		HostConfig: &container.HostConfig{NetworkMode: "host"},
		Status:     SavedStatus{State: container.StateExited, ExitCode: 3, StartedAt: noon, FinishedAt: noon},
	}
	fresh := Record{
		ID: longID("3"), Name: "fresh", Created: noon.Add(2 * time.Minute), ImageID: imageA,
		Config: &container.Config{Image: "app"}, HostConfig: &container.HostConfig{NetworkMode: "container:web"},
		Status: SavedStatus{State: container.StateCreated},
	}
	m, store := shownManager(t, web, job, fresh)
	store.ids["tool"] = imageB

	for _, tc := range []struct {
		key    string
		values []string
		all    bool
		want   string // names' first letters, newest first
	}{
		{"id", []string{longID("1")}, true, "w"},
		{"id", []string{"^2"}, true, "j"},
		{"id", []string{"^1", "^2"}, true, "jw"},
		{"name", []string{"web"}, true, "jw"},
		{"name", []string{"^web$"}, true, "w"},
		{"name", []string{"^/web$"}, true, "w"},
		{"name", []string{"fresh", "^web"}, true, "fw"},
		{"name", []string{"web"}, false, "w"},
		{"label", []string{"tier"}, true, "jw"},
		{"label", []string{"tier=back"}, true, "j"},
		{"label", []string{"tier", "job"}, true, "j"},
		{"label", []string{"job="}, true, "j"},
		{"label", []string{"tie"}, true, ""},
		{"exited", []string{"3"}, false, "j"},
		{"exited", []string{"0"}, false, ""},
		{"status", []string{"running"}, false, "w"},
		{"status", []string{"created", "exited"}, false, "fj"},
		{"ancestor", []string{"app"}, true, "fw"},
		{"ancestor", []string{"app", "tool"}, true, "fjw"},
		{"ancestor", []string{"no-such-image"}, true, ""},
		{"before", []string{"job-web"}, false, "w"},
		{"before", []string{longID("3")[:8]}, false, "jw"},
		{"since", []string{"web"}, false, "fj"},
		{"volume", []string{"db"}, true, "w"},
		{"volume", []string{"/www"}, true, "w"},
		{"volume", []string{"/srv"}, true, "w"},
		{"volume", []string{"other"}, true, ""},
		{"network", []string{"bridge"}, true, "w"},
		{"network", []string{"host"}, true, "j"},
		{"network", []string{networks.BuiltinID("host")[:12]}, true, "j"},
		{"network", []string{"other"}, true, ""},
		{"publish", []string{"80"}, true, "w"},
		{"publish", []string{"1-100/tcp"}, true, "w"},
		{"publish", []string{"53/udp"}, true, ""},
		{"expose", []string{"53/udp"}, true, "w"},
		{"expose", []string{"53"}, true, ""},
		{"expose", []string{"8000-8100"}, true, ""},
		{"is-task", []string{"false"}, true, "fjw"},
		{"is-task", []string{"true"}, true, ""},
		{"health", []string{"none"}, true, "fjw"},
		{"health", []string{"healthy"}, true, ""},
	} {
		f := Filters{tc.key: {}}
		for _, v := range tc.values {
			f[tc.key][v] = true
		}
		got, err := m.List(t.Context(), ListOptions{All: tc.all, Filters: f})
		assert.NilError(t, err, "%s=%v", tc.key, tc.values)
		assert.Check(t, is.Equal(initials(got), tc.want), "%s=%v", tc.key, tc.values)
	}
}

func TestFiltersMustAllHold(t *testing.T) {
	m, _ := listedManager(t)
	got, err := m.List(t.Context(), ListOptions{All: true, Filters: Filters{
		"name":     {"e": true, "nothing": false},
		"ancestor": {"app": true},
		"volume":   {},
	}})
	assert.NilError(t, err)
	assert.Check(t, is.Equal(initials(got), "dca"))
}

func TestFiltersRefused(t *testing.T) {
	m, _ := listedManager(t)
	for _, tc := range []struct{ key, value, want string }{
		{"colour", "red", "invalid filter 'colour'"},
		{"name", "(", "invalid filter 'name=('"},
		{"id", "(", "invalid filter 'id=('"},
		{"exited", "x", "invalid filter 'exited=x'"},
		{"status", "asleep", "invalid filter 'status=asleep'"},
		{"publish", "0x50", "invalid filter 'publish=0x50'"},
		{"expose", "70000", "invalid filter 'expose=70000'"},
		{"is-task", "maybe", "invalid filter 'is-task=maybe'"},
		{"health", "fine", "invalid filter 'health=fine'"},
	} {
		_, err := m.List(t.Context(), ListOptions{Filters: Filters{tc.key: {tc.value: true}}})
		assert.Check(t, is.ErrorContains(err, tc.want))
		assert.Check(t, errdefs.IsInvalidArgument(err), tc.key)
	}
	for _, key := range []string{"before", "since"} {
		_, err := m.List(t.Context(), ListOptions{Filters: Filters{key: {"nobody": true}}})
		assert.Check(t, errdefs.IsNotFound(err), key)
	}
}

func TestFilterAncestorTellsOfABrokenStore(t *testing.T) {
	m, store := listedManager(t)
	ancestor := ListOptions{Filters: Filters{"ancestor": {"app": true}}}
	store.broken = refused(errdefs.ErrInvalidArgument, "invalid reference format")
	_, err := m.List(t.Context(), ancestor)
	assert.Check(t, is.Error(err, "invalid filter 'ancestor=app': invalid reference format"))
	store.broken = errors.New("input/output error")
	_, err = m.List(t.Context(), ancestor)
	assert.Check(t, is.ErrorIs(err, store.broken))
}
