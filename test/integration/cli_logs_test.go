//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestCLILogs(t *testing.T) {
	t.Parallel()
	l := boot(t)

	l.clients("tail and streams", func(t *testing.T, l *lab) {
		l.docker("run", "--name", "ll", "busybox", "sh", "-c", "seq 1 1000; seq 1 5 >&2")
		out, errs := l.bytesOf(nil, "logs", "ll")
		assert.Equal(t, checkCount(t, bytes.NewReader(out)), 1000)
		assert.Equal(t, string(errs), "1\n2\n3\n4\n5\n")
		out, errs = l.bytesOf(nil, "logs", "--tail", "0", "ll")
		assert.Equal(t, len(out)+len(errs), 0)
		out, errs = l.bytesOf(nil, "logs", "--tail", "3", "ll")
		assert.Equal(t, strings.Count(string(out)+string(errs), "\n"), 3, "%s%s", out, errs)
		out, _ = l.bytesOf(nil, "logs", "--tail", "all", "ll")
		assert.Equal(t, checkCount(t, bytes.NewReader(out)), 1000)
		l.refused(1, []string{"No such container: nobody"}, "logs", "nobody")
	})

	l.clients("bytes", func(t *testing.T, l *lab) {
		// Neither UTF-8 nor text: an invalid sequence, NUL, every byte; and a last line without its end.
		l.docker("run", "--name", "bytes", "busybox", "sh", "-c", `printf '\377\376\000\001 \303\050 \200\n'
			i=0; while [ $i -lt 256 ]; do printf "\\$(printf %03o $i)"; i=$((i+1)); done; printf 'no end'`)
		want := []byte("\xff\xfe\x00\x01 \xc3\x28 \x80\n")
		for i := range 256 {
			want = append(want, byte(i))
		}
		want = append(want, "no end"...)
		out, errs := l.bytesOf(nil, "logs", "bytes")
		assert.Assert(t, bytes.Equal(out, want), "%q", out)
		assert.Equal(t, len(errs), 0)
	})

	l.clients("times", func(t *testing.T, l *lab) {
		// A line comes when the one before it is in the log: so each has a time of its own.
		l.docker("run", "--detach", "--name", "tm", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; until [ -e /go$i ]; do usleep 10000; done; done")
		root := fmt.Sprintf("/proc/%d/root", l.inspect("tm").State.Pid)
		for i := 1; i <= 5; i++ {
			l.said("tm", fmt.Sprint(i))
			l.exec("touch", fmt.Sprint(root, "/go", i))
		}
		lines := strings.Split(l.docker("logs", "--timestamps", "tm"), "\n")
		assert.Equal(t, len(lines), 5)
		var times []string
		var last time.Time
		for i, line := range lines {
			stamp, text, _ := strings.Cut(line, " ")
			at, err := time.Parse(time.RFC3339Nano, stamp)
			assert.NilError(t, err)
			assert.Equal(t, text, fmt.Sprint(i+1))
			assert.Check(t, at.After(last))
			last, times = at, append(times, stamp)
		}
		assert.Equal(t, l.docker("logs", "--since", times[2], "tm"), "3\n4\n5")
		assert.Equal(t, l.docker("logs", "--until", times[2], "tm"), "1\n2\n3")
		assert.Equal(t, l.docker("logs", "--since", times[1], "--until", times[3], "tm"), "2\n3\n4")
		assert.Equal(t, l.docker("logs", "--since", "1h", "--tail", "2", "tm"), "4\n5")
		assert.Equal(t, l.docker("logs", "--until", "1h", "tm"), "")
	})

	l.clients("follow", func(t *testing.T, l *lab) {
		l.docker("run", "--detach", "--name", "ff", "busybox", "sh", "-c",
			"i=0; trap 'end=1' TERM; while [ -z \"$end\" ]; do i=$((i+1)); echo $i; sleep 0.01; done; echo $i >&2; exit 2")
		cmd := l.dockerCmd("logs", "--follow", "ff")
		var out, errs growing
		cmd.Stdout, cmd.Stderr = &out, &errs
		assert.NilError(t, cmd.Start())
		l.eventually(30*time.Second, "fifty lines", func() bool { return strings.Count(out.String(), "\n") > 50 })
		l.docker("stop", "ff")
		assert.NilError(t, cmd.Wait(), "it ends with the container, and its exit code is not the container's")
		assert.Equal(t, fmt.Sprint(checkCount(t, strings.NewReader(out.String()))), strings.TrimSpace(errs.String()))
		// Of a container that has ended, it ends at once.
		tail, tailErrs := l.bytesOf(nil, "logs", "--follow", "--tail", "4", "ff")
		assert.Equal(t, strings.Count(string(tail)+string(tailErrs), "\n"), 4, "of both streams, as they came")
	})

	l.newest("terminal", func(t *testing.T, l *lab) {
		l.docker("run", "--tty", "--name", "tt", "busybox", "sh", "-c", "echo one; echo two >&2")
		out, errs := l.bytesOf(nil, "logs", "tt")
		assert.Equal(t, string(out), "one\r\ntwo\r\n")
		assert.Equal(t, string(errs), "")
	})

	l.newest("large lines", func(t *testing.T, l *lab) {
		l.docker("run", "--name", "large", "busybox", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end")
		out, _ := l.bytesOf(nil, "logs", "large")
		assert.Equal(t, len(out), 3000000+1+4)
		out, _ = l.bytesOf(nil, "logs", "--tail", "1", "large")
		assert.Equal(t, string(out), "end\n")
	})
}

func TestCLIList(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.docker("run", "--detach", "--name", "up", "--label", "color=red", "--label", "round", "busybox", "sleep", "1000")
	l.tryDocker("run", "--name", "seven", "--label", "color=blue", "busybox", "sh", "-c", "exit 7")
	l.docker("create", "--name", "fresh", "--volume", "data:/data", "busybox")

	for client, l := range map[string]*lab{"new": l, "old": l.old()} {
		t.Run("ps/"+client, func(t *testing.T) {
			l := l.in(t)
			for _, c := range []struct {
				want string
				args []string
			}{
				{"up", []string{}},
				{"fresh seven up", []string{"--all"}},
				{"seven", []string{"--all", "--filter", "status=exited"}},
				{"fresh", []string{"--all", "--filter", "status=created"}},
				{"fresh seven", []string{"--filter", "status=created", "--filter", "status=exited"}},
				{"seven up", []string{"--all", "--filter", "label=color"}},
				{"seven", []string{"--all", "--filter", "exited=7"}},
				{"up", []string{"--all", "--filter", "label=color=red"}},
				{"up", []string{"--all", "--filter", "name=^up$"}},
				{"fresh", []string{"--last", "1"}},
				{"fresh", []string{"--all", "--filter", "volume=data"}},
				{"", []string{"--all", "--filter", "name=nobody"}},
				{"fresh seven up", []string{"--all", "--filter", "ancestor=busybox"}},
				{"up", []string{"--all", "--filter", "before=seven"}},
				{"fresh", []string{"--all", "--filter", "since=seven"}},
			} {
				args := append([]string{"ps", "--format", "{{.Names}}"}, c.args...)
				r := l.tryDocker(args...)
				assert.Check(t, is.Equal(strings.Join(strings.Fields(r.stdout), " "), c.want), "docker %s: %s", strings.Join(args, " "), r)
			}
			l.refused(1, []string{"nonsense"}, "ps", "--filter", "nonsense=1")
			l.refused(1, []string{"nonsense"}, "ps", "--filter", "status=nonsense")
			line := l.docker("ps", "--all", "--filter", "name=seven", "--format", "{{.Image}}|{{.Command}}|{{.Status}}|{{.Labels}}|{{.Ports}}")
			assert.Check(t, is.Regexp(`^busybox\|"sh -c 'exit 7'"\|Exited \(7\) .* ago\|color=blue\|$`, line))
			assert.Check(t, is.Regexp(`^Up `, l.docker("ps", "--format", "{{.Status}}")))
			assert.Check(t, is.Regexp(`virtual`, l.docker("ps", "--size")))
		})
	}

	l.newest("events", func(t *testing.T, l *lab) {
		since := fmt.Sprintf("%.9f", float64(time.Now().Add(-time.Millisecond).UnixMicro())/1e6)
		id := l.docker("run", "--detach", "--name", "ev", "--label", "which=this", "busybox", "sh", "-c", "exit 9")
		assert.Equal(t, l.docker("wait", "ev"), "9")
		l.docker("rm", "ev")
		args := []string{"events", "--since", since, "--until", fmt.Sprint(time.Now().Unix() + 1), "--format", "{{.Action}}"}
		seen := strings.Fields(l.docker(append(args, "--filter", "container="+id)...))
		assert.DeepEqual(t, seen, []string{"create", "start", "die", "destroy"})
		seen = strings.Fields(l.docker(append(args, "--filter", "event=die", "--filter", "label=which=this")...))
		assert.DeepEqual(t, seen, []string{"die"})
		assert.Equal(t, l.docker("events", "--since", since, "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "event=die", "--filter", "type=container",
			"--format", `{{.Actor.Attributes.exitCode}} {{.Actor.Attributes.name}} {{.Actor.Attributes.image}}`), "9 ev busybox")
		l.kill9()
		assert.Equal(t, l.docker("events", "--since", since, "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "event=destroy", "--format", "{{.Actor.ID}}"), id, "after a crash")

		// And live.
		cmd := l.dockerCmd("events", "--filter", "event=start", "--format", "{{.Actor.Attributes.name}}")
		var out growing
		cmd.Stdout = &out
		assert.NilError(t, cmd.Start())
		n := 0
		l.eventually(30*time.Second, "a live event", func() bool {
			n++
			l.docker("run", "--rm", "--name", fmt.Sprint("live", n), "busybox", "true")
			return strings.Contains(out.String(), "live")
		})
		assert.NilError(t, cmd.Process.Kill())
		_ = cmd.Wait()
	})

	t.Run("system", func(t *testing.T) {
		for client, l := range map[string]*lab{"new": l, "old": l.old()} {
			l := l.in(t)
			assert.Equal(t, l.docker("info", "--format", "{{.LiveRestoreEnabled}} {{.CgroupDriver}} {{.CgroupVersion}} {{.OSType}} {{.Driver}}"), "true systemd 2 linux overlay", client)
			// A lab has no controllers of control groups, and lrd says what follows from that, and nothing else.
			for _, warning := range strings.Split(l.tryDocker("info").stderr, "\n") {
				assert.Check(t, is.Regexp(`^(|WARNING: No (memory limit|swap limit|kernel memory|kernel memory TCP|oom kill disable|cpu cfs quota|cpu cfs period|cpu shares|cpuset|pids limit|blkio .*) support)$`, warning))
			}
			assert.Check(t, is.Contains(l.docker("version"), "lrd"))
			assert.Check(t, l.docker("version", "--format", "{{.Server.Version}}") != "")
			assert.Equal(t, l.docker("version", "--format", "{{.Server.MinAPIVersion}} {{.Server.Os}}"), "1.24 linux")
		}
	})
}
