//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// TestMetrics: the sockets for Prometheus and for profiles are off by default, come with a restart once they are enabled, stay
// over a crash, and do not start a daemon that was stopped.
func TestMetrics(t *testing.T) {
	t.Parallel()
	l := boot(t)
	metrics := func() string { return l.tryExec("curl", "--silent", "http://127.0.0.1:9323/metrics").stdout + "\n" }
	profile := func() string {
		return l.tryExec("curl", "--silent", "--unix-socket", "/run/lrd-debug.sock", "http://lrd/debug/pprof/goroutine?debug=1").stdout
	}
	assert.Equal(t, metrics()+profile(), "\n")
	l.exec("systemctl", "enable", "lrd-metrics.socket", "lrd-debug.socket")
	l.restart()
	assert.Assert(t, strings.HasPrefix(profile(), "goroutine profile: total "))
	assert.Equal(t, l.exec("stat", "--format=%a %U", "/run/lrd-debug.sock"), "600 root")

	id := l.docker("run", "--detach", "--name", "web", "--network", "none", "--log-driver", "json-file", "busybox", "sh", "-c", "echo 12345; sleep 1000")
	l.docker("create", "busybox")
	want := []string{
		`lrd_containers{state="running"} 1`, `lrd_containers{state="created"} 1`, `lrd_descriptors_max 8192`, `lrd_descriptors_stored 2`,
		fmt.Sprintf(`lrd_container_output_bytes_total{driver="json-file",id="%s",name="web",stream="stdout"} 6`, id),
		`lrd_output_drained_bytes_total{driver="json-file"} 6`, `lrd_output_forwarded_bytes_total{driver="json-file"} 6`,
		`lrd_reloads_total{result="failed"} 1`, `lrd_reloads_total{result="ok"} 1`,
	}
	assert.NilError(t, l.reload())
	l.config("mtu = 1\n")
	assert.Assert(t, l.reload() != nil)
	l.config("")
	has := func(text string, lines []string) (missing string) {
		for _, line := range lines {
			if !strings.Contains(text, "\n"+line+"\n") {
				return line
			}
		}
		return ""
	}
	l.eventually(time.Minute, "metrics are missing", func() bool { return has(metrics(), want) == "" })

	l.kill9()
	l.eventually(time.Minute, "metrics are missing after a crash", func() bool {
		return has(metrics(), []string{`lrd_containers{state="running"} 1`, `lrd_restore_containers 2`, `lrd_output_drained_bytes_total{driver="json-file"} 0`}) == ""
	})
	l.stop()
	assert.Equal(t, metrics(), "\n")
	assert.Equal(t, l.tryExec("systemctl", "is-active", "lrd.service").stdout, "inactive")
	l.start()
	assert.Equal(t, has(metrics(), []string{`lrd_containers{state="running"} 1`}), "")
}
