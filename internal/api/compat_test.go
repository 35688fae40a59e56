package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"gotest.tools/v3/assert"
)

func objectIn(t *testing.T, rec *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	assert.Equal(t, rec.Code, 200, "%s", rec.Body)
	var o map[string]any
	assert.NilError(t, json.Unmarshal(rec.Body.Bytes(), &o))
	return o
}

func TestInspectHasTheBridgesAddressForOldClients(t *testing.T) {
	w := newWorld(t)
	assert.Equal(t, w.do("POST", "/containers/create?name=c", `{"Image":"b"}`).Code, 201)
	for version, want := range map[string]any{"1.41": "172.18.0.2", "1.51": "172.18.0.2", "1.52": nil, "1.56": nil} {
		settings := objectIn(t, w.do("GET", "/v"+version+"/containers/c/json", ""))["NetworkSettings"].(map[string]any)
		assert.Equal(t, settings["IPAddress"], want, version)
		assert.Equal(t, settings["Networks"].(map[string]any)["bridge"].(map[string]any)["IPAddress"], "172.18.0.2")
	}
}

func TestInfoWarnsOldClientsOfNothing(t *testing.T) {
	w := newWorld(t)
	for version, want := range map[string]any{"1.41": true, "1.49": true, "1.50": nil} {
		assert.Equal(t, objectIn(t, w.do("GET", "/v"+version+"/info", ""))["BridgeNfIptables"], want, version)
	}
	runc := objectIn(t, w.do("GET", "/v1.41/info", ""))["RuncCommit"].(map[string]any)
	_, ok := runc["Expected"]
	assert.Assert(t, ok)
}

func TestImagesHaveTheirOldFields(t *testing.T) {
	w := newWorld(t)
	o := objectIn(t, w.do("GET", "/v1.41/images/busybox/json", ""))
	assert.Equal(t, o["VirtualSize"], 42.0)
	assert.Equal(t, o["Parent"], "")
	_, ok := objectIn(t, w.do("GET", "/v1.52/images/busybox/json", ""))["Parent"]
	assert.Assert(t, !ok)
	var list []map[string]any
	assert.NilError(t, json.Unmarshal(w.do("GET", "/v1.41/images/json", "").Body.Bytes(), &list))
	assert.Equal(t, list[0]["VirtualSize"], 42.0)
	assert.Equal(t, list[0]["Containers"], -1.0)
	assert.Equal(t, w.do("GET", "/v1.24/images/json?filter=busy*", "").Code, 200)
	assert.Assert(t, w.images.filters["reference"]["busy*"])
}

func TestDiskUsageOfOldClients(t *testing.T) {
	w := newWorld(t)
	o := objectIn(t, w.do("GET", "/v1.41/system/df", ""))
	assert.Equal(t, o["LayersSize"], 42.0)
	assert.Equal(t, len(o["Images"].([]any)), 1)
	assert.Equal(t, len(o["Containers"].([]any)), 0)
	o = objectIn(t, w.do("GET", "/v1.53/system/df?type=image", ""))
	_, ok := o["Images"]
	assert.Assert(t, !ok)
	assert.Equal(t, o["ImageUsage"].(map[string]any)["TotalSize"], 42.0)
	_, ok = o["ContainerUsage"]
	assert.Assert(t, !ok)
}

func TestCreateOfOldClients(t *testing.T) {
	w := newWorld(t)
	create := func(version, body string) (*container.HostConfig, *network.NetworkingConfig) {
		t.Helper()
		rec := w.do("POST", "/v"+version+"/containers/create", body)
		assert.Equal(t, rec.Code, 201, "%s", rec.Body)
		return w.containers.last.HostConfig, w.containers.last.NetworkingConfig
	}
	// Fields that are gone, and the empty addresses that an old client sends, are dropped silently.
	h, n := create("1.41", `{"Image":"b","MacAddress":"","HostConfig":{"KernelMemory":0,"Dns":[],"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":""}]}},
		"NetworkingConfig":{"EndpointsConfig":{"x":{"IPAMConfig":null,"IPAddress":"","Gateway":"","MacAddress":"","GlobalIPv6Address":""}}}}`)
	assert.Equal(t, len(h.PortBindings), 1)
	assert.Equal(t, len(n.EndpointsConfig), 1)

	_, n = create("1.41", `{"Image":"b","MacAddress":"02:42:ac:11:00:02"}`)
	assert.Equal(t, n.EndpointsConfig["default"].MacAddress.String(), "02:42:ac:11:00:02")
	_, n = create("1.52", `{"Image":"b","MacAddress":"02:42:ac:11:00:02"}`)
	assert.Equal(t, len(n.EndpointsConfig), 0)

	h, _ = create("1.24", `{"Image":"b","HostConfig":{"AutoRemove":true}}`)
	assert.Assert(t, !h.AutoRemove)
	h, _ = create("1.39", `{"Image":"b"}`)
	assert.Equal(t, string(h.IpcMode), "shareable")
	h, _ = create("1.41", `{"Image":"b","HostConfig":{"ConsoleSize":[1,2],"PidsLimit":0,"Mounts":[{"Type":"tmpfs","Target":"/t","VolumeOptions":{}},{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}]}}`)
	assert.Equal(t, h.ConsoleSize, [2]uint{})
	assert.Assert(t, h.PidsLimit == nil)
	assert.Assert(t, h.Mounts[0].VolumeOptions == nil)
	assert.Assert(t, h.Mounts[1].BindOptions.ReadOnlyNonRecursive)
	assert.Equal(t, w.do("POST", "/v1.42/containers/create", `{"Image":"b","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/t","VolumeOptions":{}}]}}`).Code, 400)

	for version, want := range map[string]int{"1.41": 1, "1.52": 1, "1.53": 0} {
		h, _ = create(version, `{"Image":"b","HostConfig":{"PortBindings":{"80/tcp":[]}}}`)
		assert.Equal(t, len(h.PortBindings), want, version)
	}
	assert.Equal(t, w.do("POST", "/v1.43/containers/create", `{"Image":"b","NetworkingConfig":{"EndpointsConfig":{"a":{},"b":null}}}`).Code, 400)
}

func TestStopSignalCameWith142(t *testing.T) {
	w := newWorld(t)
	w.do("POST", "/containers/create?name=c", `{"Image":"b"}`)
	for version, want := range map[string]string{"1.41": "", "1.42": "SIGUSR1"} {
		assert.Equal(t, w.do("POST", "/v"+version+"/containers/c/restart?signal=SIGUSR1", "").Code, 204)
		assert.Equal(t, w.containers.stop.Signal, want)
	}
}

func TestPruneTookNamedVolumesBefore142(t *testing.T) {
	w := newWorld(t)
	w.do("POST", "/v1.41/volumes/prune", "")
	assert.Assert(t, w.volumes.filters["all"]["true"])
	w.do("POST", "/v1.42/volumes/prune", "")
	assert.Assert(t, !w.volumes.filters.Has("all"))
}

func FuzzCreate(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `{"Image":"b"}`, `{"Image":"b","HostConfig":null,"NetworkingConfig":{"EndpointsConfig":{"a":null}}}`,
		`{"Image":"b","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"container:x"}}`,
		`{"Image":"b","ExposedPorts":{"80/tcp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"/":null},"Mounts":[{"Type":"bind"}],"PidsLimit":-1}}`,
		`{"Image":"b","Healthcheck":{"Test":["CMD"],"Interval":1},"HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":-1}}}`,
	} {
		f.Add("1.24", "n", seed)
		f.Add(MaxVersion, "", seed)
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, version, name, body string) {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.URL.Path = "/v" + version + "/containers/create"
		q := r.URL.Query()
		q.Set("name", name)
		r.URL.RawQuery = q.Encode()
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		switch {
		case rec.Code == 201:
			var resp container.CreateResponse
			assert.NilError(t, json.Unmarshal(rec.Body.Bytes(), &resp))
		case rec.Code >= 400 && rec.Code < 500, rec.Code == 501:
			assert.Assert(t, messageOf(t, rec) != "")
		default:
			t.Fatalf("%d: %s", rec.Code, rec.Body)
		}
	})
}
