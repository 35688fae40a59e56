//go:build vm

package vm

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// takes is a command that needs so many megabytes of memory.
func takes(mb int) string { return fmt.Sprintf("dd if=/dev/zero of=/dev/null bs=%dM count=1", mb) }

// told are the events of containers since a second of the machine's, "NAME ACTION EXITCODE" each, of the given actions.
func (m *machine) told(since string, actions ...string) []string {
	m.t.Helper()
	script := "docker events --since " + since + " --until $(($(date +%s)+1)) --format '{{.Actor.Attributes.name}} {{.Action}} {{.Actor.Attributes.exitCode}}'"
	for _, action := range actions {
		script += " --filter event=" + action
	}
	var told []string
	for line := range strings.Lines(m.sh(script)) {
		told = append(told, strings.TrimSuffix(strings.TrimSpace(line), " <no value>"))
	}
	return told
}

// memory is containers that take more memory than they may.
func memory(m *machine) {
	since := m.sh("date +%s")
	output, code := m.try("docker run --name greedy --memory 32m busybox " + takes(200))
	assert.Equal(m.t, code, 137, output)
	const state = ".State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.RestartCount"
	assert.Equal(m.t, m.inspect("greedy", state), "exited 137 true 0")
	assert.DeepEqual(m.t, m.told(since, "oom", "die"), []string{"greedy oom", "greedy die 137"})
	m.sh("docker run --rm --name frugal --memory 64m busybox " + takes(16))
	assert.DeepEqual(m.t, m.told(since, "oom"), []string{"greedy oom"})

	// The next run is another one, be it a person's or systemd's.
	m.sh("docker run --detach --name second --memory 32m --restart on-failure --volume /data:/data busybox sh -c '[ -e /data/second ] || { touch /data/second; exec " + takes(200) + "; }'")
	m.eventually("[ \"$(docker inspect --format '{{.State.Status}} {{.RestartCount}}' second)\" = 'exited 1' ]")
	assert.Equal(m.t, m.inspect("second", state), "exited 0 false 1")
	assert.DeepEqual(m.t, m.told(since, "oom", "die"), []string{"greedy oom", "greedy die 137", "frugal die 0", "second oom", "second die 137", "second die 0"})

	// Nobody is there to see it.
	m.sh("docker run --detach --name unseen --memory 32m --volume /data:/data busybox sh -c 'until [ -e /data/unseen ]; do usleep 100000; done; exec " + takes(200) + "'")
	unit := path.Base(m.group("unseen"))
	m.sh("systemctl stop lrd.socket lrd; touch /data/unseen")
	m.eventually("[ $(systemctl show --property=ExecMainCode --value " + unit + ") != 0 ]")
	m.sh("systemctl start lrd.socket lrd")
	assert.Equal(m.t, m.inspect("unseen", state), "exited 137 true 0")
	assert.DeepEqual(m.t, m.told(since, "oom"), []string{"greedy oom", "second oom", "unseen oom"})

	// A process of it is killed, which is told at once, and the container goes on.
	m.sh("docker run --detach --name parent --memory 32m busybox sh -c '" + takes(200) + "; echo $?; exec sleep 100000'")
	m.eventually("[ \"$(docker logs parent 2>/dev/null)\" = 137 ]")
	m.eventually("[ \"$(docker inspect --format '{{.State.Status}} {{.State.OOMKilled}}' parent)\" = 'running true' ]")
	m.sh("systemctl restart lrd")
	all := []string{"greedy oom", "second oom", "unseen oom", "parent oom"}
	assert.DeepEqual(m.t, m.told(since, "oom"), all)
	m.sh("docker exec parent " + takes(200) + " || [ $? = 137 ]")
	m.eventually("[ $(docker events --since " + since + " --until $(date +%s) --filter event=oom --filter container=parent | wc -l) = 2 ]")
	m.sh("docker kill parent")
	assert.Equal(m.t, m.inspect("parent", state), "exited 137 true 0")
	assert.DeepEqual(m.t, m.told(since, "oom"), append(all, "parent oom"))
	m.sh("docker rm greedy second unseen parent")
}

// swap is a container that may have more of it than of memory.
func swap(m *machine) {
	m.sh("dd if=/dev/zero of=/swap bs=1M count=128 2>/dev/null; chmod 600 /swap; mkswap -q /swap; swapon /swap")
	m.sh("docker run --rm --memory 32m --memory-swap 112m busybox " + takes(60))
	output, code := m.try("docker run --rm --memory 32m --memory-swap 32m busybox " + takes(60))
	assert.Equal(m.t, code, 137, output)
	m.sh("swapoff /swap; rm /swap")
}

// processor is containers that take more processor time than they may, or other processors.
func processor(m *machine) {
	m.sh("docker run --detach --name busy --cpus 0.2 --cpuset-cpus 1 --cpu-shares 512 busybox sh -c 'nproc; while :; do :; done'")
	group := m.group("busy")
	m.cgroup(group, "cpu.max 20000 100000", "cpuset.cpus.effective 1", "cpu.weight 20")
	m.eventually("[ \"$(docker logs busy)\" = 1 ]")
	m.sh("cd " + group + `; used() { busybox awk '$1 == "usage_usec" { print $2 }' cpu.stat; }
		u=$(used) t=$(date +%s%6N); sleep 5; u=$(($(used) - u)) t=$(($(date +%s%6N) - t)); echo $u of $t us; [ $((u * 2)) -lt $t ]`)
	m.sh("grep -v ' 0$' " + group + "/cpu.stat | grep nr_throttled")
	percent, err := strconv.ParseFloat(m.sh("docker stats --no-stream --format '{{.CPUPerc}}' busy | tr -d %"), 64)
	assert.NilError(m.t, err)
	assert.Assert(m.t, percent > 0 && percent < 50, "%f %%", percent)
	m.sh("docker rm --force busy")
}

// processes is a container that starts more processes than it may.
func processes(m *machine) {
	m.sh("docker run --detach --name many --pids-limit 10 busybox sh -c 'sleep 100000 & sleep 100000 & sleep 100000 & wait'")
	group := m.group("many")
	m.eventually("[ $(cat " + group + "/pids.current) = 4 ]")
	output, code := m.try("docker exec many sh -c 'for i in 1 2 3 4 5 6 7; do sleep 1000 & done'")
	assert.Assert(m.t, code != 0, "more processes than --pids-limit")
	assert.Assert(m.t, is.Contains(output, "can't fork"))
	m.cgroup(group, "pids.max 10")
	m.sh("! grep -qx 'max 0' " + group + "/pids.events")
	m.sh("docker rm --force many")
}

// disk is a container that writes faster than it may.
func disk(m *machine) {
	// By hand, as trixie's client forgets --device-write-bps.
	m.sh(`curl -sS --fail-with-body --unix-socket /run/lrd.sock -H 'Content-Type: application/json' 'http://lrd/v1.45/containers/create?name=writer' --data '{
		"Image": "busybox", "Cmd": ["sleep", "100000"],
		"HostConfig": {"Binds": ["/data:/data"], "BlkioDeviceWriteBps": [{"Path": "/dev/vda", "Rate": 1048576}]}}'; docker start writer`)
	m.cgroup(m.group("writer"), "io.max 254:0 rbps=max wbps=1048576 riops=max wiops=max")
	m.sh("t=$(date +%s%3N); docker exec writer dd if=/dev/zero of=/data/written bs=1M count=4 conv=fsync; t=$(($(date +%s%3N) - t)); echo $t ms; [ $t -gt 2000 ]")
	fields := strings.Fields(m.sh("docker stats --no-stream --format '{{.BlockIO}}' writer")) // 0B / 4.19MB
	assert.Assert(m.t, len(fields) == 3 && strings.HasSuffix(fields[2], "MB"), "%v", fields)
	m.sh("docker rm --force writer; rm /data/written")
}

// devices is a container that reads a disk that it may read, and another that it may not.
func devices(m *machine) {
	m.sh("docker run --detach --name reader --device /dev/vdb:/dev/mine:r busybox sleep 100000")
	tries := `head -c 1 /dev/mine >/dev/null && echo reads; (true >/dev/mine); mknod /other b 254 0; head -c 1 /other; rm /other`
	for range 2 {
		assert.Equal(m.t, m.sh("docker exec reader sh -c '"+tries+"'"),
			"reads\nsh: can't create /dev/mine: Operation not permitted\nhead: /other: Operation not permitted")
		m.sh("systemctl daemon-reload")
	}
	m.sh("docker rm --force reader")
}

// update changes limits of a container that runs, docker's way and systemd's, and all show the same.
func update(m *machine) {
	m.sh("docker run --detach --name web --memory 32m --memory-swap 32m busybox sleep 100000")
	group := m.group("web")
	_, code := m.try("docker exec web " + takes(100))
	assert.Equal(m.t, code, 137, "100 MB in a container that may have 32")
	m.sh("docker update --memory 256m --memory-swap 256m --memory-reservation 16m --cpus 1.5 --pids-limit 50 --cpuset-cpus 0 web")
	m.sh("docker exec web " + takes(100))
	shows := func(memory int, low, cpu, pids, cpus, inspected string) {
		m.t.Helper()
		m.cgroup(group, fmt.Sprint("memory.max ", memory<<20), "memory.low "+low, "cpu.max "+cpu, "pids.max "+pids, "cpuset.cpus.effective "+cpus)
		assert.Equal(m.t, m.inspect("web", ".HostConfig.Memory}} {{.HostConfig.MemoryReservation}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpusetCpus"),
			fmt.Sprint(memory<<20)+" "+low+" "+inspected)
		stats := strings.Fields(m.sh("docker stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemUsage}}' web"))
		assert.Equal(m.t, len(stats), 5, "%v", stats) // web 1 100KiB / 256MiB
		assert.Equal(m.t, stats[0]+" "+stats[1]+" "+stats[4], fmt.Sprintf("web 1 %dMiB", memory))
		assert.Assert(m.t, !strings.HasPrefix(stats[2], "0"), "%v", stats)
	}
	shows(256, "16777216", "150000 100000", "50", "0", "1500000000 50 0")
	m.sh("systemctl set-property --runtime " + path.Base(group) + " MemoryMax=96M MemoryLow=8M CPUQuota=20% TasksMax=40 AllowedCPUs=0-1")
	shows(96, "8388608", "20000 100000", "40", "0-1", "200000000 40 0-1")
	_, code = m.try("docker exec web " + takes(150))
	assert.Equal(m.t, code, 137, "150 MB in a container that may have 96")
	m.sh("docker update --cpus 1 web")
	shows(96, "8388608", "100000 100000", "40", "0-1", "1000000000 40 0-1")
	assert.Equal(m.t, m.inspect("web", ".State.Running"), "true")
	m.sh("docker rm --force web")
}
