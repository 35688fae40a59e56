//go:build integration

package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// shows checks what systemctl says of a container's unit.
func (l *lab) shows(id string, want ...string) {
	l.t.Helper()
	for _, w := range want {
		name, _, _ := strings.Cut(w, "=")
		assert.Check(l.t, is.Equal(l.exec("systemctl", "show", "--property="+name, "lrd-"+id+".service"), w))
	}
}

// TestUpdate changes limits and restart policies of a container that runs: systemctl and docker inspect tell the same.
func TestUpdate(t *testing.T) {
	t.Parallel()
	l := boot(t)
	since := fmt.Sprint(time.Now().Unix() - 1)
	id := l.docker("run", "--detach", "--name", "web", "--memory", "64m", "--device-cgroup-rule", "c 10:* r", "busybox", "sleep", "10000")
	l.shows(id, "MemoryMax=67108864", "TasksMax=infinity", "Restart=no")
	pid := l.inspect("web").State.Pid

	l.docker("update", "--memory", "128m", "--memory-swap", "200m", "--memory-reservation", "32m", "--cpus", "1.5", "--cpu-shares", "512", "--pids-limit", "77", "--cpuset-cpus", "0",
		"--blkio-weight", "300", "web")
	l.shows(id, "MemoryMax=134217728", "MemoryLow=33554432", "MemorySwapMax=75497472", "CPUQuotaPerSecUSec=1.500000s", "CPUWeight=20", "TasksMax=77", "AllowedCPUs=0", "IOWeight=2930")
	h := l.inspect("web").HostConfig
	assert.Check(t, is.Equal(h.Memory, int64(128<<20)))
	assert.Check(t, is.Equal(h.NanoCPUs, int64(15e8)))
	assert.Check(t, is.Equal(h.CPUShares, int64(512)))
	assert.Check(t, is.Equal(h.CpusetCpus, "0"))
	l.exec("systemctl", "set-property", "--runtime", "lrd-"+id+".service", "MemoryMax=96M", "TasksMax=50", "CPUQuota=20%")
	h = l.inspect("web").HostConfig
	assert.Check(t, is.Equal(h.Memory, int64(96<<20)))
	assert.Check(t, is.Equal(*h.PidsLimit, int64(50)))
	assert.Check(t, is.Equal(h.NanoCPUs, int64(2e8)))
	l.refused(1, []string{"Minimum memory limit allowed is 6MB"}, "update", "--memory", "1m", "web")
	l.exec("systemctl", "daemon-reload")
	l.shows(id, "MemoryMax=100663296", "TasksMax=50")

	// Another restart policy holds at once, also while the daemon is away.
	l.docker("update", "--restart", "on-failure:2", "web")
	l.shows(id, "Restart=on-failure", "RemainAfterExit=no")
	assert.Check(t, is.Equal(l.inspect("web").State.Pid, pid))
	l.stop()
	l.exec("kill", "-9", fmt.Sprint(pid))
	l.eventually(time.Minute, "systemd starts it again", func() bool {
		unit := strings.Fields(l.exec("systemctl", "show", "--property=MainPID", "--property=SubState", "lrd-"+id+".service"))
		return slices.Contains(unit, "SubState=running") && !slices.Contains(unit, fmt.Sprint("MainPID=", pid))
	})
	l.start()
	again := l.inspect("web")
	assert.Check(t, is.Equal(again.State.Status, container.StateRunning))
	assert.Check(t, is.Equal(again.RestartCount, 1))

	// A daemon-reload lets systemd 252 forget how often it has started the unit; the policy is kept all the same.
	for _, next := range []container.ContainerState{container.StateRunning, container.StateExited} {
		l.exec("systemctl", "daemon-reload")
		was := l.inspect("web").State.Pid
		l.exec("kill", "-9", fmt.Sprint(was))
		l.eventually(time.Minute, "it is "+string(next), func() bool { s := l.inspect("web").State; return s.Pid != was && s.Status == next })
	}
	assert.Check(t, is.Equal(l.inspect("web").State.Status, container.StateExited))

	// Taken away, it does not.
	l.docker("start", "web")
	l.shows(id, "Restart=on-failure", "MemoryMax=100663296", "TasksMax=50")
	l.docker("update", "--restart", "always", "--memory", "64m", "web")
	l.docker("update", "--restart", "no", "web")
	l.exec("kill", "-9", fmt.Sprint(l.inspect("web").State.Pid))
	assert.Check(t, is.Equal(l.docker("wait", "web"), "137"))
	assert.Check(t, is.Equal(l.inspect("web").State.Status, container.StateExited))
	l.docker("start", "web")
	l.shows(id, "Restart=no", "MemoryMax=67108864")
	told := l.docker("events", "--since", since, "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "event=update", "--format", "{{.Action}}")
	assert.Check(t, is.Equal(told, "update\nupdate\nupdate\nupdate"))
	l.docker("rm", "--force", "web")
	l.eventually(20*time.Second, "no drop-in is left", func() bool {
		return !strings.Contains(l.tryExec("ls", "/run/systemd/system", "/run/systemd/system.control").stdout, id)
	})
	l.assertClean()
}
