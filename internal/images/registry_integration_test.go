//go:build integration

package images

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// TestPullFromDebiansRegistry pulls from the registry that Debian packages, as a
// process of its own on loopback.
func TestPullFromDebiansRegistry(t *testing.T) {
	binary, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("SKIPPED: Debian's package docker-registry is not installed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	host := l.Addr().String()
	assert.NilError(t, l.Close())
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	assert.NilError(t, os.WriteFile(config, fmt.Appendf(nil,
		"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n", dir, host), 0o600))
	cmd := exec.CommandContext(t.Context(), binary, "serve", config)
	cmd.Stderr = t.Output()
	assert.NilError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		resp, err := client.Get("http://" + host + "/v2/")
		if err != nil {
			return poll.Continue("registry does not answer: %v", err)
		}
		resp.Body.Close()
		return poll.Success()
	}, poll.WithTimeout(10*time.Second))
	testPull(t, &testRegistry{url: "http://" + host, host: host, client: client})
}
