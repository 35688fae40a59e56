package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	eventtypes "github.com/moby/moby/api/types/events"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/containers"
)

// do sends a request without a socket in between. A body is sent as JSON.
func (w *world) do(method, target, body string) *httptest.ResponseRecorder {
	var r *http.Request
	if body == "" {
		r = httptest.NewRequest(method, target, nil)
	} else {
		r = httptest.NewRequest(method, target, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	return rec
}

func messageOf(t *testing.T, rec *httptest.ResponseRecorder) string {
	t.Helper()
	var m message
	assert.NilError(t, json.Unmarshal(rec.Body.Bytes(), &m), "body: %q", rec.Body)
	assert.Equal(t, rec.Header().Get("Content-Type"), "application/json")
	return m.Message
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	long := `{"Image":"b","Env":["` + strings.Repeat("x", maxBody) + `"]}`
	for _, tc := range []struct {
		method, target, body string
		code                 int
		message              string // a part of it
	}{
		{"GET", "/nowhere", "", 404, "page not found"},
		{"GET", "/v1.41/nowhere", "", 404, "page not found"},
		{"GET", "/volumes/", "", 404, "page not found"},
		{"GET", "//containers/json", "", 404, "page not found"},
		{"GET", "/v1.99/containers/json", "", 400, "client version 1.99 is too new. Maximum supported API version is " + MaxVersion},
		{"GET", "/v1.23/containers/json", "", 400, "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
		{"GET", "/v2/containers/json", "", 400, "client version 2.0 is too new"},
		{"PUT", "/containers/json", "", 405, "PUT is not a method of /containers/json: use GET"},

		{"POST", "/containers/create", "", 400, "config cannot be empty in order to create a container"},
		{"POST", "/containers/create", "{}", 400, "config cannot be empty in order to create a container"},
		{"POST", "/containers/create", "{", 400, "invalid JSON: unexpected EOF"},
		{"POST", "/containers/create", `{"Image":"b"} {}`, 400, "unexpected content after JSON"},
		{"POST", "/containers/create", `{"Image":1}`, 400, "invalid JSON: field Image: cannot use number as string"},
		{"POST", "/containers/create", `{"Image":"b","HostConfig":{"Memory":"lots"}}`, 400, "field HostConfig.Memory: cannot use string as int64"},
		{"POST", "/containers/create", `[1]`, 400, "invalid JSON"},
		{"POST", "/containers/create", long, 400, "the request body is larger than 4194304 bytes"},
		{"POST", "/containers/create", `{"Image":"b","HostConfig":{"RestartPolicy":{"Name":"sometimes"}}}`, 400, "HostConfig.RestartPolicy: invalid restart policy: unknown policy 'sometimes'"},
		{"POST", "/containers/create", `{"Image":"b","HostConfig":{"IpcMode":"x"}}`, 400, `invalid value for HostConfig.IpcMode: "x"`},
		{"POST", "/containers/create", `{"Image":"b","HostConfig":{"Memory":-5}}`, 400, "invalid value for HostConfig.Memory: -5 is less than 0"},
		{"POST", "/containers/create", `{"Image":"b","HostConfig":{"Mounts":[{"Type":"odd","Target":"/a"}]}}`, 400, `HostConfig.Mounts[0].Type: mount type "odd" unknown`},
		{"POST", "/containers/create", `{"Image":"b","HostConfig":{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}}`, 400, "can't create 'AutoRemove' container with restart policy"},
		{"POST", "/containers/create?platform=a/b/c/d", `{"Image":"b"}`, 400, "invalid value for platform"},
		{"POST", "/containers/create", `{"Image":"missing"}`, 404, "No such image: missing:latest"},

		{"GET", "/containers/json?all=perhaps", "", 400, `invalid value for all: "perhaps" is neither true nor false`},
		{"GET", "/containers/json?limit=x", "", 400, `invalid value for limit: "x" is not a whole number`},
		{"GET", "/containers/json?%zz", "", 400, "malformed query"},
		{"GET", `/containers/json?filters={"colour":["red"]}`, "", 400, "invalid filter 'colour'"},
		{"GET", `/containers/json?filters={"status":["flying"]}`, "", 400, "invalid filter 'status=flying'"},
		{"GET", `/containers/json?filters={"name":3}`, "", 400, "invalid filter 'name'"},
		{"GET", `/containers/json?filters=rubbish`, "", 400, "invalid filters"},
		{"GET", `/images/json?filters={"dangling":["perhaps"]}`, "", 400, "invalid filter 'dangling=perhaps'"},
		{"POST", "/containers/x/wait?condition=tired", "", 400, `invalid condition: "tired"`},
		{"POST", "/containers/x/stop?t=soon", "", 400, "invalid value for t"},
		{"POST", "/containers/x/stop?t=-2", "", 400, "invalid value for t: -2"},
		{"POST", "/containers/x/resize?h=1", "", 400, "invalid value for w"},
		{"POST", "/containers/x/resize?h=1&w=99999", "", 400, "invalid value for w"},
		{"POST", "/containers/x/rename", "", 400, "invalid value for name"},
		{"POST", "/containers/x/attach?detachKeys=ctrl-", "", 400, "invalid detach keys (ctrl-)"},
		{"GET", "/containers/x/logs", "", 400, "you must choose at least one stream"},
		{"GET", "/containers/x/logs?stdout=1&since=yesterday", "", 400, "invalid value for since"},
		{"GET", "/containers/x/logs?stdout=1&tail=many", "", 400, "invalid value for tail"},
		{"GET", "/events?since=20&until=10", "", 400, "`since` time (20) cannot be after `until` time (10)"},
		{"GET", "/system/df?type=rubbish", "", 400, "unknown object type: rubbish"},
		{"POST", "/images/create", "", 400, "fromImage (a pull) or fromSrc (an import) is needed"},
		{"POST", "/images/create?fromImage=UPPER", "", 400, "invalid value for fromImage"},
		{"POST", "/images/create?fromImage=a&tag=^", "", 400, "invalid value for tag"},
		{"POST", "/images/busybox/tag", "", 400, "invalid value for repo"},
		{"POST", "/auth", "{", 400, "invalid credentials"},
		{"POST", "/commit?container=x&repo=UPPER", "", 400, "invalid value for repo"},

		{"GET", "/containers/x/json", "", 404, "No such container: x"},
		{"GET", "/images/nosuch/json", "", 404, "No such image: nosuch"},
		{"GET", "/networks/nosuch", "", 404, "network nosuch not found"},
		{"DELETE", "/networks/bridge", "", 403, "pre-defined network"},
		{"POST", "/networks/create", `{}`, 400, "network name is required"},
		{"POST", "/networks/create", `{"Name":`, 400, ""},
		{"POST", "/networks/mine/connect", `{}`, 400, "a container to connect is needed"},
		{"POST", "/networks/mine/disconnect", `{}`, 400, "a container to disconnect is needed"},
		{"POST", "/build", "", 501, "docker buildx build --load"},
		{"POST", "/session", "", 501, "buildah build"},
		{"GET", "/images/search", "", 400, "invalid value for term: it must not be empty"},
		{"GET", "/images/search?term=x&limit=101", "", 400, "limit 101 is outside the range of [1, 100]"},
		{"GET", `/images/search?term=x&filters={"stars":["many"]}`, "", 400, "invalid filter 'stars=many'"},
		{"GET", "/images/get", "", 400, "no image is named"},
		{"POST", "/images/UPPER/push", "", 400, "invalid value for name"},
		{"POST", "/images/prune?filters={%22color%22:[%22red%22]}", "", 400, "color"},
		{"POST", "/containers/x/exec", `{}`, 400, "no exec command specified"},
		{"POST", "/containers/x/exec", `{"Cmd":["a"],"DetachKeys":"ctrl-"}`, 400, "ctrl-"},
		{"POST", "/containers/x/exec", `{"Cmd":["a"]}`, 404, "No such container: x"},
		{"POST", "/exec/x/start", `{}`, 404, "No such exec instance: x"},
		{"POST", "/exec/x/resize?h=1", "", 400, "invalid value for w"},
		{"GET", "/exec/x/json", "", 404, "No such exec instance: x"},
		{"GET", "/swarm", "", 503, "This node is not a swarm manager."},
		{"GET", "/nodes/self", "", 503, "This node is not a swarm manager."},
		{"POST", "/swarm/leave", "", 503, "This node is not part of a swarm"},
	} {
		t.Run(tc.method+" "+tc.target+" "+tc.body[:min(len(tc.body), 40)], func(t *testing.T) {
			rec := w.do(tc.method, strings.ReplaceAll(tc.target, `"`, "%22"), tc.body)
			assert.Equal(t, rec.Code, tc.code, "%s", rec.Body)
			assert.Assert(t, is.Contains(messageOf(t, rec), tc.message))
		})
	}
}

func TestBodiesMustBeJSON(t *testing.T) {
	w := newWorld(t)
	for contentType, want := range map[string]string{
		"text/plain":                      "unsupported Content-Type header (text/plain): must be 'application/json'",
		"":                                "malformed Content-Type header ()",
		"a;b;;":                           "malformed Content-Type header (a;b;;)",
		"application/json; charset=utf-8": "",
	} {
		r := httptest.NewRequest(http.MethodPost, "/containers/create", strings.NewReader(`{"Image":"b"}`))
		r.Header.Set("Content-Type", contentType)
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		if want == "" {
			assert.Equal(t, rec.Code, 201, "%s", rec.Body)
			continue
		}
		assert.Equal(t, rec.Code, 400)
		assert.Assert(t, is.Contains(messageOf(t, rec), want))
	}
}

func TestErrorKindsAndStatusCodes(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		err  error
		code int
	}{
		{errdefs.ErrNotFound.WithMessage("m"), 404},
		{errdefs.ErrInvalidArgument.WithMessage("m"), 400},
		{errdefs.ErrFailedPrecondition.WithMessage("m"), 400},
		{errdefs.ErrConflict.WithMessage("m"), 409},
		{errdefs.ErrAlreadyExists.WithMessage("m"), 409},
		{errdefs.ErrPermissionDenied.WithMessage("m"), 403},
		{errdefs.ErrUnauthenticated.WithMessage("m"), 401},
		{errdefs.ErrUnavailable.WithMessage("m"), 503},
		{errdefs.ErrNotImplemented.WithMessage("m"), 501},
		{errdefs.ErrResourceExhausted.WithMessage("m"), 429},
		{errdefs.ErrInternal.WithMessage("m"), 500},
		{io.ErrUnexpectedEOF, 500},
	} {
		w.containers.err = tc.err
		rec := w.do("POST", "/containers/x/pause", "")
		assert.Equal(t, rec.Code, tc.code)
		assert.Equal(t, messageOf(t, rec), tc.err.Error())
	}
	w.containers.err = containers.ErrNotModified
	rec := w.do("POST", "/containers/x/start", "")
	assert.Equal(t, rec.Code, 304)
	assert.Equal(t, rec.Body.Len(), 0)
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	w := newWorld(t)
	for _, target := range []string{"/_ping", "/v1.41/version", "/nowhere", "/v1.99/info"} {
		h := w.do("GET", target, "").Header()
		assert.Equal(t, h.Get("Server"), "lrd/0.1.0 (linux)")
		assert.Equal(t, h.Get("Api-Version"), MaxVersion)
		assert.Equal(t, h.Get("Ostype"), "linux")
		assert.Equal(t, h.Get("Docker-Experimental"), "false")
	}
	assert.Equal(t, w.do("HEAD", "/_ping", "").Code, 200)
	assert.Equal(t, w.do("GET", "/v1.24/_ping", "").Body.String(), "OK")
}

func TestFiltersOfBothForms(t *testing.T) {
	w := newWorld(t)
	for _, f := range []string{`{"name":["a","b"]}`, `{"name":{"a":true,"b":true,"c":false}}`} {
		rec := w.do("GET", "/containers/json?filters="+strings.ReplaceAll(f, `"`, "%22"), "")
		assert.Equal(t, rec.Code, 200)
		assert.DeepEqual(t, slices.Sorted(maps.Keys(w.containers.o.Filters["name"])), []string{"a", "b"})
	}
	assert.Equal(t, strings.TrimSpace(w.do("GET", "/containers/json", "").Body.String()), "[]")
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		method, path string
		pattern      string
		vars         map[string]string
	}{
		{"GET", "/images/json", "/images/json", nil},
		{"GET", "/images/a/json", "/images/{name...}/json", map[string]string{"name": "a"}},
		{"GET", "/images/reg:5000/a/b:c@sha256:0/json", "/images/{name...}/json", map[string]string{"name": "reg:5000/a/b:c@sha256:0"}},
		{"DELETE", "/images/a/b", "/images/{name...}", map[string]string{"name": "a/b"}},
		{"GET", "/images/json/json", "/images/{name...}/json", map[string]string{"name": "json"}},
		{"GET", "/containers/json", "/containers/json", nil},
		{"GET", "/containers/json/json", "/containers/{ref}/json", map[string]string{"ref": "json"}},
		{"GET", "/containers//json", "", nil},
		{"GET", "/containers/a/b/json", "", nil},
	} {
		found, vars, _ := find(tc.method, tc.path)
		if tc.pattern == "" {
			assert.Assert(t, found == nil, "%s fits %v", tc.path, found)
			continue
		}
		assert.Assert(t, found != nil, tc.path)
		assert.Equal(t, found.pattern, tc.pattern)
		assert.DeepEqual(t, vars, tc.vars)
	}
}

func TestEveryRowIsReached(t *testing.T) {
	for i := range routes {
		r := &routes[i]
		path := strings.NewReplacer("{name...}", "x/y", "{rest...}", "z/z", "{ref}", "q", "{name}", "q", "{id}", "q").Replace(r.pattern)
		found, _, _ := find(r.method, path)
		assert.Assert(t, found == r, "%s %s is hidden by %s", r.method, r.pattern, found.pattern)
		assert.Assert(t, strings.Count(r.pattern, "{") <= 1, "%s has more than one name", r.pattern)
	}
}

func TestParseMomentIsExact(t *testing.T) {
	for in, want := range map[string]int64{
		"1": 1e9, "1.5": 15e8, "1136073600.000000001": 1136073600000000001, "1.000000001": 1e9 + 1, "-1.5": -15e8,
		"2006-01-01T00:00:00Z": 1136073600e9, "2006-01-01T01:00:00.000000001+01:00": 1136073600e9 + 1, "2006-01-01": 1136073600e9,
	} {
		got, err := parseMoment(in)
		assert.NilError(t, err, in)
		assert.Equal(t, got.UnixNano(), want, in)
	}
	for _, in := range []string{"x", "1.x", "1.0000000001", "1.-5", "1e9", "10m"} {
		_, err := parseMoment(in)
		assert.Assert(t, err != nil, in)
	}
}

func TestEventsFlushAtOnceAndSpeakTheClientsVersion(t *testing.T) {
	w := newWorld(t).serve(t)
	for _, tc := range []struct {
		version, accept, media, want string
	}{
		{"1.41", "", "application/json", `{"Type":"container","Action":"die","Actor":{"ID":"c1","Attributes":{"image":"b"}},"scope":"local","time":1,"timeNano":1000000002,"status":"die","id":"c1","from":"b"}`},
		{"1.53", "application/jsonl", "application/jsonl", `{"Type":"container","Action":"die","Actor":{"ID":"c1","Attributes":{"image":"b"}},"scope":"local","time":1,"timeNano":1000000002}`},
		{"1.53", "application/json-seq, */*", "application/json-seq", "\x1e" + `{"Type":"container","Action":"die","Actor":{"ID":"c1","Attributes":{"image":"b"}},"scope":"local","time":1,"timeNano":1000000002}`},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://lrd/v"+tc.version+"/events", nil)
		assert.NilError(t, err)
		r.Header.Set("Accept", tc.accept)
		resp, err := w.http.Do(r) // returns when the head is there: before any event
		assert.NilError(t, err)
		assert.Equal(t, resp.Header.Get("Content-Type"), tc.media)
		w.hub.Publish(eventtypes.Message{Type: "container", Action: "die", TimeNano: 1e9 + 2, Actor: eventtypes.Actor{ID: "c1", Attributes: map[string]string{"image": "b"}}})
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		assert.NilError(t, err)
		assert.Equal(t, strings.TrimSuffix(line, "\n"), tc.want)
		resp.Body.Close()
	}
}

func TestEventFilters(t *testing.T) {
	m := func(typ, action, id, name, image string, labels ...string) eventtypes.Message {
		a := map[string]string{"name": name, "image": image}
		for _, l := range labels {
			k, v, _ := strings.Cut(l, "=")
			a[k] = v
		}
		return eventtypes.Message{Type: eventtypes.Type(typ), Action: eventtypes.Action(action), Scope: "local", Actor: eventtypes.Actor{ID: id, Attributes: a}}
	}
	die := m("container", "die", "abc123", "web", "busybox:latest", "env=prod", "x")
	health := m("container", "health_status: healthy", "abc123", "web", "busybox")
	pull := m("image", "pull", "busybox:latest", "busybox:latest", "")
	mount := m("volume", "mount", "data", "", "")
	for _, tc := range []struct {
		key, value string
		m          eventtypes.Message
		want       bool
	}{
		{"event", "die", die, true},
		{"event", "kill", die, false},
		{"event", "health_status", health, true},
		{"event", "health_status: healthy", health, true},
		{"event", "health", health, false},
		{"type", "container", die, true},
		{"type", "image", die, false},
		{"container", "web", die, true},
		{"container", "abc", die, true},
		{"container", "db", die, false},
		{"container", "busybox", pull, false},
		{"image", "busybox", die, true},
		{"image", "busybox:latest", die, true},
		{"image", "busybox", pull, true},
		{"image", "alpine", pull, false},
		{"volume", "data", mount, true},
		{"volume", "data", die, false},
		{"label", "x", die, true},
		{"label", "env=prod", die, true},
		{"label", "env=dev", die, false},
		{"scope", "local", die, true},
		{"daemon", "lrd", die, false},
	} {
		got := eventMatcher(containers.Filters{tc.key: {tc.value: true}})(tc.m)
		assert.Equal(t, got, tc.want, "%s=%s of %s", tc.key, tc.value, tc.m.Action)
	}
	assert.Assert(t, !eventMatcher(containers.Filters{"label": {"x": true, "nope": true}})(die), "labels must all be there")
	assert.Assert(t, eventMatcher(containers.Filters{"container": {"web": true, "db": true}, "event": {"die": true}})(die))
	assert.Assert(t, eventMatcher(nil) == nil)
}

func TestDebugLogNamesThePeer(t *testing.T) {
	w := newWorld(t)
	var log syncBuffer
	w.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.serve(t)
	resp, err := w.http.Get("http://lrd/_ping")
	assert.NilError(t, err)
	resp.Body.Close()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(log.String(), "path=/_ping"); time.Sleep(time.Millisecond) {
		assert.Assert(t, time.Now().Before(deadline), log.String())
	}
	assert.Assert(t, is.Regexp(`method=GET path=/_ping status=200 took=\S+ uid=\d+ gid=\d+ pid=\d+`, log.String()))
}

func TestPanicIsAnError(t *testing.T) {
	w := newWorld(t)
	w.Networks = nil
	rec := w.do("GET", "/networks", "")
	assert.Equal(t, rec.Code, 500)
	assert.Assert(t, is.Contains(messageOf(t, rec), "internal error"))
	assert.Equal(t, w.InFlight(), 0)
}

func TestReloadIsPassedOn(t *testing.T) {
	w := newWorld(t)
	assert.Equal(t, w.do("POST", "/lrd/reload", "").Body.String(), "reloaded")
	assert.Equal(t, w.do("GET", "/lrd/reload", "").Code, 405)
}

// containerConfig is that of a container that runs cmd, with its input open or not.
func containerConfig(cmd string, stdin bool) container.Config {
	return container.Config{Cmd: []string{cmd}, OpenStdin: stdin, StdinOnce: stdin}
}

// shut begins a Shutdown and returns its result.
func (w *world) shut(ctx context.Context) <-chan error {
	result := make(chan error, 1)
	go func() { result <- w.Shutdown(ctx) }()
	return result
}

func TestShutdownEndsStreamsAndLetsChangesFinish(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	run(t, c, "a", containerConfig("cat", true), nil)
	run(t, c, "b", containerConfig("sleep", false), nil)

	var streams []io.Reader
	for _, path := range []string{"/events", "/containers/a/logs?follow=1&stdout=1"} {
		resp, err := w.http.Get("http://lrd" + path)
		assert.NilError(t, err)
		defer resp.Body.Close()
		streams = append(streams, resp.Body)
	}
	attached := w.attachRaw(t, "a")
	streams = append(streams, attached)
	wait, err := w.http.Post("http://lrd/containers/a/wait", "", nil)
	assert.NilError(t, err)
	defer wait.Body.Close()

	w.containers.slow = make(chan struct{})
	stopped := make(chan int, 1)
	go func() {
		resp, err := w.http.Post("http://lrd/containers/b/stop?t=3", "", nil)
		if err != nil {
			t.Error(err)
			stopped <- 0
			return
		}
		resp.Body.Close()
		stopped <- resp.StatusCode
	}()
	for w.InFlight() != 5 {
		time.Sleep(time.Millisecond)
	}

	result := w.shut(t.Context())
	for _, s := range streams {
		_, err := io.ReadAll(s)
		assert.NilError(t, err, "a stream does not end cleanly")
	}
	attached.Close()
	text, err := io.ReadAll(wait.Body)
	assert.NilError(t, err)
	assert.Assert(t, is.Contains(string(text), "lrd is stopping or restarting"))
	select {
	case err := <-result:
		t.Fatal("Shutdown did not wait for the stop: ", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(w.containers.slow)
	assert.Equal(t, <-stopped, 204)
	assert.NilError(t, <-result)
	assert.Equal(t, w.InFlight(), 0)
	assert.Equal(t, *w.containers.stop.Timeout, 3)
	assert.Assert(t, w.containers.all["a"].running, "the container's input was closed by a daemon that leaves")
}

func TestShutdownGivesUpWhenItsContextIsDone(t *testing.T) {
	w := newWorld(t).serve(t)
	run(t, w.client(t), "b", containerConfig("sleep", false), nil)
	w.containers.slow = make(chan struct{})
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		resp, err := w.http.Post("http://lrd/containers/b/stop", "", nil)
		if err == nil {
			resp.Body.Close()
		}
	}()
	for w.InFlight() != 1 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := <-w.shut(ctx)
	assert.ErrorContains(t, err, "cannot answer 1 requests in time")
	<-answered
}

func TestChangeRunsToItsEndThoughTheClientLeaves(t *testing.T) {
	w := newWorld(t).serve(t)
	run(t, w.client(t), "b", containerConfig("sleep", false), nil)
	w.containers.slow = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		r, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://lrd/containers/b/stop", nil)
		if resp, err := w.http.Do(r); err == nil {
			resp.Body.Close()
		}
	}()
	for w.InFlight() != 1 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-gone
	time.Sleep(10 * time.Millisecond)
	assert.Equal(t, w.InFlight(), 1)
	close(w.containers.slow)
	for w.InFlight() != 0 {
		time.Sleep(time.Millisecond)
	}
	assert.Equal(t, w.containers.all["b"].code, 143)
}

func TestAttachByOldClients(t *testing.T) {
	w := newWorld(t).serve(t)
	run(t, w.client(t), "a", containerConfig("cat", true), nil)
	conn := w.attachRaw(t, "a")
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	assert.NilError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, resp.StatusCode, 200)
	assert.Equal(t, resp.Header.Get("Content-Type"), mediaTypeRaw)
	_, err = io.WriteString(conn, "x")
	assert.NilError(t, err)
	assert.NilError(t, conn.CloseWrite())
	all, err := io.ReadAll(br)
	assert.NilError(t, err)
	assert.Equal(t, string(all), "\x01\x00\x00\x00\x00\x00\x00\x01x")
}

// attachRaw attaches as clients did before Upgrade.
func (w *world) attachRaw(t *testing.T, ref string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", w.socket)
	assert.NilError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, "POST /v1.24/containers/"+ref+"/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: lrd\r\nContent-Length: 0\r\n\r\n")
	assert.NilError(t, err)
	return conn.(*net.UnixConn)
}

// syncBuffer is a buffer that may be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
