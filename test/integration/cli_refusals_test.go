//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// api sends a request to lrd without a client that would look at it first. It gives back the status and the message,
// or the whole body if there is none.
func (l *lab) api(method, path, body string) (status int, message string) {
	l.t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(l.host, "unix://"))
	}}}
	req, err := http.NewRequestWithContext(l.t.Context(), method, "http://lrd"+path, strings.NewReader(body))
	assert.NilError(l.t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return http.StatusRequestEntityTooLarge, err.Error() // refused before all of it was sent: the answer may be lost
	}
	assert.NilError(l.t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	assert.NilError(l.t, err)
	var e struct{ Message string }
	if json.Unmarshal(data, &e) == nil && e.Message != "" {
		return resp.StatusCode, e.Message
	}
	return resp.StatusCode, string(data)
}

// TestCLIRefusals gives lrd what no client should: it says what is wrong, names the field, and goes on.
func TestCLIRefusals(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.tick("there")

	create := "/v1.41/containers/create"
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{"unknown endpoint", "GET", "/v1.41/nonsense", "", 404, "page not found"},
		{"unknown endpoint, no version", "POST", "/nonsense/too", "", 404, "page not found"},
		{"wrong method", "DELETE", "/v1.41/info", "", 405, ""},
		{"version too old", "GET", "/v1.12/info", "", 400, "too old"},
		{"version too new", "GET", "/v1.999/info", "", 400, "too new"},
		{"no container", "GET", "/v1.41/containers/nobody/json", "", 404, "No such container: nobody"},
		{"no image", "GET", "/v1.41/images/nobody/json", "", 404, "No such image: nobody"},
		{"no volume", "GET", "/v1.41/volumes/nobody", "", 404, "nobody"},
		{"no network", "GET", "/v1.41/networks/nobody", "", 404, "nobody"},

		{"no JSON", "POST", create, "{", 400, ""},
		{"no object", "POST", create, "[1]", 400, ""},
		{"nothing", "POST", create, "", 400, ""},
		{"wrong type", "POST", create, `{"Image":"busybox","Env":"A=b"}`, 400, "Env"},
		{"wrong type below", "POST", create, `{"Image":"busybox","HostConfig":{"Memory":"lots"}}`, 400, "Memory"},
		{"two values", "POST", create, `{"Image":"busybox"}{"Image":"busybox"}`, 400, ""},
		{"no image named", "POST", create, `{}`, 400, ""},
		{"image unknown", "POST", create, `{"Image":"nobody"}`, 404, "No such image: nobody:latest"},
		{"bad image name", "POST", create, `{"Image":"Not A Name"}`, 400, "invalid reference format"},
		{"bad name", "POST", create + "?name=no/slash", `{"Image":"busybox"}`, 400, "Invalid container name (no/slash)"},
		{"taken name", "POST", create + "?name=there", `{"Image":"busybox"}`, 409, `"/there" is already in use`},
		{"bad restart policy", "POST", create, `{"Image":"busybox","HostConfig":{"RestartPolicy":{"Name":"sometimes"}}}`, 400, "sometimes"},
		{"bad count", "POST", create, `{"Image":"busybox","HostConfig":{"RestartPolicy":{"Name":"always","MaximumRetryCount":3}}}`, 400, "maximum retry count"},
		{"policies that exclude each other", "POST", create, `{"Image":"busybox","HostConfig":{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}}`, 400, "can't create 'AutoRemove' container with restart policy"},
		{"too little memory", "POST", create, `{"Image":"busybox","HostConfig":{"Memory":4096}}`, 400, "memory limit"},
		{"negative CPUs", "POST", create, `{"Image":"busybox","HostConfig":{"NanoCpus":-1}}`, 400, "HostConfig.NanoCpus"},
		{"bad CPU set", "POST", create, `{"Image":"busybox","HostConfig":{"CpusetCpus":"a-b"}}`, 400, "a-b"},
		{"bad signal", "POST", create, `{"Image":"busybox","StopSignal":"SIGNONE"}`, 400, "SIGNONE"},
		{"bad capability", "POST", create, `{"Image":"busybox","HostConfig":{"CapAdd":["FLY"]}}`, 400, "CAP_FLY"},
		{"relative bind", "POST", create, `{"Image":"busybox","HostConfig":{"Binds":["/a:b"]}}`, 400, "invalid mount path: 'b'"},
		{"bad mount type", "POST", create, `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"nonsense","Target":"/x"}]}}`, 400, "nonsense"},
		{"bad port", "POST", create, `{"Image":"busybox","HostConfig":{"PortBindings":{"99999/tcp":[{}]}}}`, 400, "99999"},
		{"bad protocol", "POST", create, `{"Image":"busybox","ExposedPorts":{"80/carrier-pigeon":{}}}`, 400, "carrier-pigeon"},
		{"bad runtime", "POST", create, `{"Image":"busybox","HostConfig":{"Runtime":"nonsense"}}`, 400, "nonsense"},
		{"bad log driver", "POST", create, `{"Image":"busybox","HostConfig":{"LogConfig":{"Type":"nonsense"}}}`, 400, "nonsense"},
		{"bad ulimit", "POST", create, `{"Image":"busybox","HostConfig":{"Ulimits":[{"Name":"nonsense","Soft":1,"Hard":1}]}}`, 400, "nonsense"},
		{"bad working directory", "POST", create, `{"Image":"busybox","WorkingDir":"relative"}`, 400, "relative"},
		{"bad security option", "POST", create, `{"Image":"busybox","HostConfig":{"SecurityOpt":["nonsense"]}}`, 400, "nonsense"},

		{"kill with nonsense", "POST", "/v1.41/containers/there/kill?signal=NONSENSE", "", 400, "NONSENSE"},
		{"stop in no time", "POST", "/v1.41/containers/there/stop?t=soon", "", 400, "soon"},
		{"wait for nonsense", "POST", "/v1.41/containers/there/wait?condition=nonsense", "", 400, "nonsense"},
		{"logs of nothing", "GET", "/v1.41/containers/there/logs", "", 400, "you must choose at least one stream"},
		{"logs since never", "GET", "/v1.41/containers/there/logs?stdout=1&since=never", "", 400, "never"},
		{"filters that are none", "GET", "/v1.41/containers/json?filters=nonsense", "", 400, ""},
		{"a filter that is none", "GET", "/v1.41/containers/json?filters=" + `%7B%22nonsense%22%3A%5B%221%22%5D%7D`, "", 400, "nonsense"},
		{"a limit that is none", "GET", "/v1.41/containers/json?limit=some", "", 400, "some"},
		{"resize to nothing", "POST", "/v1.41/containers/there/resize?h=tall&w=1", "", 400, "tall"},
		{"rename to nothing", "POST", "/v1.41/containers/there/rename?name=", "", 400, ""},
		{"start with a body", "POST", "/v1.41/containers/there/start", "", 304, ""},

		{"build", "POST", "/v1.41/build", "", 501, "lrd does not build images"},
		{"networks", "POST", "/v1.41/networks/create", `{"Name":"mine","Driver":"overlay"}`, 404, "plugin not found"},
		{"swarm", "POST", "/v1.41/swarm/init", `{}`, 500, "--live-restore daemon configuration is incompatible with swarm mode"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, message := l.in(t).api(c.method, c.path, c.body)
			assert.Check(t, is.Equal(status, c.status), message)
			assert.Check(t, is.Contains(message, c.says))
		})
	}

	t.Run("too large", func(t *testing.T) {
		status, message := l.in(t).api("POST", create, `{"Image":"busybox","Env":["`+strings.Repeat("x", 64<<20)+`"]}`)
		assert.Check(t, status == 400 || status == 413, "%d %s", status, message)
	})

	t.Run("nothing came of it", func(t *testing.T) {
		l := l.in(t)
		assert.Equal(t, l.docker("ps", "--all", "--format", "{{.Names}} {{.State}}"), "there running")
		assert.Check(t, !strings.Contains(l.journal("--unit=lrd"), "panic"))
	})
}
