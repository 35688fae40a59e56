package containers

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/images"
	"lrd/internal/networks"
	"lrd/internal/oci"
)

// shownImages is an image store with names and without files.
type shownImages struct {
	Images
	ids      map[string]string // name → ID
	broken   error             // what every look-up fails with
	resolved int
}

func (f *shownImages) Driver() string { return "overlay" }

func (f *shownImages) Resolve(_ context.Context, ref string) (images.Image, error) {
	f.resolved++
	id, ok := f.ids[ref]
	switch {
	case f.broken != nil:
		return images.Image{}, f.broken
	case !ok:
		return images.Image{}, refused(errdefs.ErrNotFound, "No such image: %s", ref)
	}
	return images.Image{ID: digest.Digest(id)}, nil
}

func (f *shownImages) RootfsData(_ context.Context, id string) (map[string]string, error) {
	if f.broken != nil {
		return nil, f.broken
	}
	return map[string]string{"UpperDir": "/upper/" + id[:1]}, nil
}

func (f *shownImages) RootfsSize(context.Context, string) (rw, virtual int64, err error) {
	return 7, 107, f.broken
}

const (
	imageA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	imageB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// longID is an ID that begins with prefix.
func longID(prefix string) string { return prefix + strings.Repeat("0", 64-len(prefix)) }

// shownManager has containers to look at, and nothing that could change them.
func shownManager(t *testing.T, records ...Record) (*Manager, *shownImages) {
	t.Helper()
	store := &shownImages{ids: map[string]string{"app": imageA}}
	m := New(Options{DataRoot: "/data", ExecRoot: "/exec", Units: newFakeUnits(t, &faults{}, "/exec", 252), Images: store, Log: slog.New(slog.DiscardHandler)})
	for _, r := range records {
		m.byID[r.ID] = m.newContainer(r)
		m.names[r.Name] = r.ID
	}
	return m, store
}

var noon = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)

// shownRecord is a running container in the bridge.
func shownRecord() Record {
	return Record{
		ID: longID("1"), Name: "web", Created: noon, ImageID: imageA,
		Config: &container.Config{
			Image: "app", Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"echo hello"},
			Labels:       map[string]string{"tier": "front"},
			ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}, network.MustParsePort("53/udp"): {}},
		},
		HostConfig: &container.HostConfig{
			NetworkMode:  "default",
			PortBindings: network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "8080"}}},
			Tmpfs:        map[string]string{"/run/": ""},
		},
		Mounts: []Mount{
			{Mount: oci.Mount{Type: mount.TypeBind, Source: "/srv", HostPath: "/srv", Target: "/www", ReadOnly: true}},
			{Mount: oci.Mount{Type: mount.TypeVolume, Source: "db", HostPath: "/data/volumes/db/_data", Target: "/db", Mode: "z"}, Volume: "db"},
			{Mount: oci.Mount{Type: mount.TypeTmpfs, Target: "/run"}},
			{Mount: oci.Mount{Type: mount.TypeTmpfs, Target: "/scratch"}},
		},
		Home: Home{StorageDriver: "overlay"},
		Run: &Run{BootID: "b", Sandbox: &networks.Sandbox{
			ContainerID: longID("1"), NetNS: "/exec/netns/1",
			Endpoints: []networks.Endpoint{{
				NetworkID: networks.BuiltinID("bridge"), Network: "bridge", Bridge: "lrd0", MAC: "02:42:ac:1e:00:02",
				IP: netip.MustParseAddr("172.30.0.2"), PrefixLen: 16, Gateway: netip.MustParseAddr("172.30.0.1"),
			}},
			Ports: []networks.PortBinding{{Proto: "tcp", HostIP: netip.IPv4Unspecified(), HostPort: 8080, ContainerPort: 80}},
		}},
		Status: SavedStatus{State: container.StateRunning, Pid: 42, StartedAt: noon.Add(time.Second), RestartCount: 3},
	}
}

func TestInspect(t *testing.T) {
	r := shownRecord()
	m, _ := shownManager(t, r)
	got, err := m.Inspect(t.Context(), "web", true)
	assert.NilError(t, err)

	assert.Check(t, is.Equal(got.ID, r.ID))
	assert.Check(t, is.Equal(got.Name, "/web"))
	assert.Check(t, is.Equal(got.Created, "2024-05-01T12:00:00Z"))
	assert.Check(t, is.Equal(got.Path, "/bin/sh"))
	assert.Check(t, is.DeepEqual(got.Args, []string{"-c", "echo hello"}))
	assert.Check(t, is.DeepEqual(got.State, &container.State{
		Status: "running", Running: true, Pid: 42,
		StartedAt: "2024-05-01T12:00:01Z", FinishedAt: "0001-01-01T00:00:00Z",
	}))
	assert.Check(t, is.Equal(got.Image, imageA))
	assert.Check(t, is.Equal(got.HostsPath, "/data/containers/"+r.ID+"/hosts"))
	assert.Check(t, is.Equal(got.HostnamePath, "/data/containers/"+r.ID+"/hostname"))
	assert.Check(t, is.Equal(got.ResolvConfPath, "/data/containers/"+r.ID+"/resolv.conf"))
	assert.Check(t, is.Equal(got.RestartCount, 3))
	assert.Check(t, is.Equal(got.Platform, "linux"))
	assert.Check(t, is.Equal(got.Driver, "overlay"))
	assert.Check(t, is.Equal(got.GraphDriver.Name, "overlay"))
	assert.Check(t, is.Equal(got.GraphDriver.Data["UpperDir"], "/upper/1"))
	assert.Check(t, is.Equal(*got.SizeRw, int64(7)))
	assert.Check(t, is.Equal(*got.SizeRootFs, int64(107)))
	assert.Check(t, is.DeepEqual(got.Mounts, []container.MountPoint{
		{Type: "bind", Source: "/srv", Destination: "/www", Propagation: "rprivate"},
		{Type: "volume", Name: "db", Source: "/data/volumes/db/_data", Destination: "/db", Driver: "local", Mode: "z", RW: true},
		{Type: "tmpfs", Destination: "/scratch", RW: true},
	}))
	assert.Check(t, got.Config != r.Config && got.HostConfig != r.HostConfig, "a caller could write into the Record")
}

func TestInspectWithoutSize(t *testing.T) {
	m, _ := shownManager(t, shownRecord())
	got, err := m.Inspect(t.Context(), "web", false)
	assert.NilError(t, err)
	assert.Check(t, got.SizeRw == nil && got.SizeRootFs == nil)
}

func TestInspectOfNothing(t *testing.T) {
	m, _ := shownManager(t)
	_, err := m.Inspect(t.Context(), "web", false)
	assert.Check(t, errdefs.IsNotFound(err))
}

// A container whose Record cannot be read, in a storage that is not there, is shown nevertheless.
func TestInspectOfWhatCannotBeRead(t *testing.T) {
	m, store := shownManager(t, Record{ID: longID("1"), Name: "web"})
	store.broken = refused(errdefs.ErrNotFound, "there is no such root filesystem")
	got, err := m.Inspect(t.Context(), "web", true)
	assert.NilError(t, err)
	assert.Check(t, got.Config != nil && got.HostConfig != nil && got.State != nil && got.NetworkSettings != nil)
	_, err = json.Marshal(got)
	assert.NilError(t, err)

	store.broken = errors.New("input/output error")
	_, err = m.Inspect(t.Context(), "web", true)
	assert.Check(t, is.ErrorContains(err, "cannot find the size of container"))
}

func TestInspectState(t *testing.T) {
	type flags struct{ Running, Paused, Restarting, Dead bool }
	for state, want := range map[container.ContainerState]flags{
		container.StateCreated:    {},
		container.StateRunning:    {Running: true},
		container.StatePaused:     {Running: true, Paused: true},
		container.StateRestarting: {Running: true, Restarting: true},
		container.StateExited:     {},
		container.StateRemoving:   {},
		container.StateDead:       {Dead: true},
	} {
		got := inspectState(Status{State: state})
		assert.Check(t, is.Equal(got.Status, state))
		assert.Check(t, is.DeepEqual(flags{got.Running, got.Paused, got.Restarting, got.Dead}, want), string(state))
	}
}

func TestInspectStateSaysWhy(t *testing.T) {
	for _, tc := range []struct{ err, reason, want string }{
		{"", "", ""},
		{"no such file", "", "no such file"},
		{"", "another bridge", "another bridge"},
		{"no such file", "another bridge", "no such file; another bridge"},
	} {
		assert.Check(t, is.Equal(inspectState(Status{Error: tc.err, Reason: tc.reason}).Error, tc.want))
	}
}

func TestNetworkSettings(t *testing.T) {
	running := shownRecord()
	got := networkSettings(running)
	assert.Check(t, is.Equal(got.SandboxKey, "/exec/netns/1"))
	assert.Check(t, is.DeepEqual(got.Ports, network.PortMap{
		network.MustParsePort("53/udp"): nil,
		network.MustParsePort("80/tcp"): {{HostIP: netip.IPv4Unspecified(), HostPort: "8080"}},
	}, portCmp, addrCmp))
	bridge := got.Networks["bridge"]
	assert.Assert(t, bridge != nil)
	assert.Check(t, is.Equal(bridge.NetworkID, networks.BuiltinID("bridge")))
	assert.Check(t, isID(bridge.EndpointID))
	assert.Check(t, is.Equal(bridge.IPAddress.String(), "172.30.0.2"))
	assert.Check(t, is.Equal(bridge.IPPrefixLen, 16))
	assert.Check(t, is.Equal(bridge.Gateway.String(), "172.30.0.1"))
	assert.Check(t, is.Equal(bridge.MacAddress.String(), "02:42:ac:1e:00:02"))

	stopped := running
	stopped.Run = nil
	got = networkSettings(stopped)
	assert.Check(t, is.Len(got.Ports, 0))
	assert.Check(t, is.Equal(got.SandboxKey, ""))
	assert.Check(t, !got.Networks["bridge"].IPAddress.IsValid())

	for mode, want := range map[container.NetworkMode]string{
		"": "bridge", "default": "bridge", "bridge": "bridge", "host": "host", "none": "none", "container:db": "",
	} {
		r := shownRecord()
		r.HostConfig.NetworkMode = mode
		if want != "bridge" {
			r.Run.Sandbox = nil
		}
		got := networkSettings(r)
		if want == "" {
			assert.Check(t, is.Len(got.Networks, 0))
			continue
		}
		assert.Check(t, is.Len(got.Networks, 1))
		assert.Check(t, got.Networks[want] != nil, string(mode))
	}
}

func TestNetworkIDs(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []string{"bridge", "host", "none"} {
		id := networks.BuiltinID(name)
		assert.Check(t, isID(id) && !seen[id])
		assert.Check(t, is.Equal(id, networks.BuiltinID(name)))
		seen[id] = true
	}
}
