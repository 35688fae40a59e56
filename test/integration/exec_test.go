//go:build integration

package integration

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// box starts a container that stays until it is told to go.
func (l *lab) box(args ...string) {
	l.t.Helper()
	l.docker(append(append([]string{"run", "--detach", "--init=false", "--network", "none", "--name", "box"}, args...), "busybox", "sleep", "100000")...)
}

// TestExec is what a script does with docker exec, through both clients.
func TestExec(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.box("--env", "OWN=1", "--user", "www", "--workdir", "/tmp")
	for _, l := range []*lab{l, l.old()} {
		for _, tc := range []struct {
			args   []string
			code   int
			stdout string
			stderr string
		}{
			{[]string{"box", "echo", "hello"}, 0, "hello", ""},
			{[]string{"box", "sh", "-c", "echo out; echo err >&2; exit 7"}, 7, "out", "err"},
			{[]string{"box", "sh", "-c", "kill -9 $$"}, 137, "", ""},
			{[]string{"box", "nosuch"}, 127, `exec: "nosuch": executable file not found in $PATH`, ""},
			{[]string{"box", "/nosuch"}, 127, `exec: "/nosuch": no such file or directory`, ""},
			{[]string{"box", "/etc/passwd"}, 126, `exec: "/etc/passwd": permission denied`, ""},
			{[]string{"--user", "nobodyatall", "box", "true"}, 126, "unable to find user nobodyatall", ""},
			{[]string{"--workdir", "/nosuch", "box", "true"}, 127, "/nosuch", ""},
			// What is not said is the container's.
			{[]string{"box", "sh", "-c", "id -u; pwd; echo $OWN $HOME"}, 0, "33\n/tmp\n1 /var", ""},
			{[]string{"--user", "nobody", "--workdir", "/home", "--env", "OWN=2", "--env", "MORE=3", "box", "sh", "-c", "id -u; pwd; echo $OWN $MORE $HOME"}, 0, "65534\n/home\n2 3 /home", ""},
			{[]string{"--user", "5:6", "box", "sh", "-c", "id -u; id -g"}, 0, "5\n6", ""},
			{[]string{"--user", "root", "box", "sh", "-c", "grep CapEff /proc/self/status"}, 0, "CapEff:\t00000000a80425fb", ""},
			// It is where the container is.
			{[]string{"box", "sh", "-c", "grep ^0: /proc/self/cgroup; ls -l /proc/1/ns/pid >/dev/null 2>&1; ps | grep -c 'slee[p]'"}, 0, "0::/\n1", ""},
		} {
			r := l.tryDocker(append([]string{"exec"}, tc.args...)...)
			assert.Equal(t, r.code, tc.code, "exec %q: %s", tc.args, r)
			assert.Assert(t, is.Contains(r.stdout, tc.stdout), "exec %q: %s", tc.args, r)
			assert.Assert(t, is.Contains(r.stderr, tc.stderr), "exec %q: %s", tc.args, r)
		}
		own := l.docker("exec", "--user", "root", "box", "grep", "CapBnd", "/proc/self/status")
		all := l.docker("exec", "--user", "root", "--privileged", "box", "grep", "CapBnd", "/proc/self/status")
		assert.Assert(t, own < all, "%s, privileged %s", own, all)

		// Fast and without a word, many times: an end that comes before the client is there.
		for range 20 {
			l.docker("exec", "box", "true")
		}
	}
	l.eventually(30*time.Second, "no unit of a command is left", func() bool {
		return l.exec("sh", "-c", "systemctl list-units --all --plain --no-legend 'lrd-exec-*'") == ""
	})
	l.docker("rm", "--force", "box")
	l.assertClean()
}

// TestExecInput: what goes in comes out, and its end is an end.
func TestExecInput(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.box()
	big := make([]byte, 30<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(big)
	want := sha256.Sum256(big)
	for _, l := range []*lab{l, l.old()} {
		for _, there := range []string{"sha256sum", "cat"} {
			cmd := l.dockerCmd("exec", "-i", "box", there)
			cmd.Stdin = bytes.NewReader(big)
			out, err := cmd.Output()
			assert.NilError(t, err, there)
			if there == "cat" {
				assert.Equal(t, sha256.Sum256(out), want)
			} else {
				assert.Equal(t, strings.Fields(string(out))[0], fmt.Sprintf("%x", want))
			}
		}
		// Input that is not asked for has ended.
		cmd := l.dockerCmd("exec", "box", "wc", "-c")
		cmd.Stdin = strings.NewReader("nobody reads this")
		out, err := cmd.Output()
		assert.NilError(t, err)
		assert.Equal(t, strings.TrimSpace(string(out)), "0")
	}
	// A client that is gone has ended its input, too.
	cmd := l.dockerCmd("exec", "-i", "box", "sh", "-c", "echo ready; cat; echo end >/ended")
	in, err := cmd.StdinPipe()
	assert.NilError(t, err)
	stdout, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	_, err = stdout.Read(make([]byte, 100))
	assert.NilError(t, err)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	_ = in.Close()
	l.eventually(20*time.Second, "the command reads the end of its input", func() bool {
		return l.tryDocker("exec", "box", "test", "-e", "/ended").code == 0
	})
	l.docker("rm", "--force", "box")
	l.assertClean()
}

// TestExecInTerminal is a person with a shell in a container that runs something else.
func TestExecInTerminal(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.box()
	for _, l := range []*lab{l, l.old()} {
		tm := l.atTerminal("exec", "-it", "box", "sh")
		tm.shell("")
		tm.shell("until [ \"$(stty size)\" = '24 80' ]; do usleep 10000; done")
		tm.resize(40, 132)
		tm.shell("until [ \"$(stty size)\" = '40 132' ]; do usleep 10000; done")
		tm.shell("[ $TERM = xterm ]; echo term''=$? >/dev/tty")
		tm.sleeps(l, 1000)
		tm.send("\x03")
		tm.shell("echo code=$?.")
		tm.losesJob(l)
		assert.Equal(t, len(l.inspect("box").ExecIDs), 1)
		tm.send("exit 9\r")
		assert.Equal(t, tm.wait(), 9)
		assert.Equal(t, len(l.inspect("box").ExecIDs), 0)

		// Keys of the person's own leave it alone.
		tm = l.atTerminal("exec", "-it", "--detach-keys", "ctrl-x,q", "box", "sh", "-c", "trap '' HUP; echo up; until [ -e /go ]; do usleep 10000; done; rm /go")
		tm.expect("up")
		tm.send("\x18q")
		tm.wait()
		tm.expect("read escape sequence")
		assert.Equal(t, len(l.inspect("box").ExecIDs), 1)
		l.docker("exec", "box", "touch", "/go")
		l.eventually(20*time.Second, "what was left alone ends", func() bool { return len(l.inspect("box").ExecIDs) == 0 })
	}
	l.docker("rm", "--force", "box")
	l.assertClean()
}

// TestExecRefused: where there is nothing to execute a command in.
func TestExecRefused(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.box()
	c := l.client()
	id := l.inspect("box").ID
	made, err := c.ExecCreate(t.Context(), "box", client.ExecCreateOptions{Cmd: []string{"true"}})
	assert.NilError(t, err)

	l.docker("pause", "box")
	r := l.tryDocker("exec", "box", "true")
	assert.Equal(t, r.code, 1)
	assert.Assert(t, is.Contains(r.stderr, "container "+id+" is paused, unpause the container before exec"))
	_, err = c.ExecStart(t.Context(), made.ID, client.ExecStartOptions{Detach: true})
	assert.ErrorContains(t, err, "is paused")
	l.docker("unpause", "box")

	_, err = c.ExecStart(t.Context(), made.ID, client.ExecStartOptions{Detach: true})
	assert.NilError(t, err)
	_, err = c.ExecStart(t.Context(), made.ID, client.ExecStartOptions{Detach: true})
	assert.ErrorContains(t, err, "exec command "+made.ID+" ")

	l.docker("kill", "box")
	r = l.tryDocker("exec", "box", "true")
	assert.Equal(t, r.code, 1)
	assert.Assert(t, is.Contains(r.stderr, "container "+id+" is not running"))
	r = l.tryDocker("exec", "nosuch", "true")
	assert.Assert(t, is.Contains(r.stderr, "No such container: nosuch"))
	l.docker("rm", "box")
	l.assertClean()
}

// TestExecOutlivesTheDaemon is promise 3 for commands in containers: they go on
// over everything that happens to lrd, and their exit codes are known also if
// they end while it is away.
func TestExecOutlivesTheDaemon(t *testing.T) {
	t.Parallel()
	l := boot(t)
	for _, away := range leaves {
		t.Run(away.name, func(t *testing.T) {
			l := l.in(t)
			l.box()
			l.exec("mkdir", "-p", truth)
			c := l.client()
			// started is a command that waits for its file, and then exits with its number.
			started := func(code int, o client.ExecCreateOptions, detach bool) string {
				o.Cmd = []string{"sh", "-c", fmt.Sprintf("trap '' HUP; until [ -e /go%d ]; do usleep 10000; done; [ %d = 9 ] && kill -9 $$; exit %d", code, code, code)}
				made, err := c.ExecCreate(t.Context(), "box", o)
				assert.NilError(t, err)
				if detach {
					_, err = c.ExecStart(t.Context(), made.ID, client.ExecStartOptions{Detach: true})
					assert.NilError(t, err)
					return made.ID
				}
				a, err := c.ExecAttach(t.Context(), made.ID, client.ExecAttachOptions{TTY: o.TTY})
				assert.NilError(t, err)
				t.Cleanup(func() { a.Close() })
				return made.ID
			}
			attached := client.ExecCreateOptions{AttachStdin: true, AttachStdout: true, AttachStderr: true}
			ids := map[int]string{ // by exit code
				4: started(4, client.ExecCreateOptions{}, true),
				5: started(5, attached, false),
				6: started(6, client.ExecCreateOptions{}, true),
				7: started(7, attached, false),
				9: started(9, attached, false),
			}
			tty := attached
			tty.TTY = true
			ids[8] = started(8, tty, false)
			inspect := func(code int) client.ExecInspectResult {
				e, err := c.ExecInspect(t.Context(), ids[code], client.ExecInspectOptions{})
				assert.NilError(t, err, "exec of exit code %d", code)
				return e
			}
			for code := range ids {
				assert.Assert(t, inspect(code).Running, "%d", code)
			}
			pid := inspect(4).PID
			root := fmt.Sprintf("/proc/%d/root", l.inspect("box").State.Pid)

			// Some end while lrd is away: as soon as it has gone, before it is back.
			l.exec("sh", "-c", fmt.Sprintf("touch %s/go6 %s/go7 %s/go9", root, root, root)+"; true &")
			away.do(l)
			for _, code := range []int{6, 7, 9} {
				l.eventually(20*time.Second, "the end is known", func() bool { return !inspect(code).Running })
			}
			assert.Equal(t, inspect(6).ExitCode, 6)
			assert.Equal(t, inspect(7).ExitCode, 7)
			assert.Equal(t, inspect(9).ExitCode, 137)
			assert.Assert(t, inspect(4).Running)
			assert.Equal(t, inspect(4).PID, pid)

			// One that ends for certain while it is away.
			l.stop()
			l.exec("touch", root+"/go5")
			l.exec("sh", "-c", fmt.Sprintf("while systemctl is-active --quiet 'lrd-exec-%s.service' && systemctl show -p SubState --value lrd-exec-%s.service | grep -q running; do sleep 0.05; done", ids[5], ids[5]))
			l.start()
			l.eventually(20*time.Second, "the end is known", func() bool { return !inspect(5).Running })
			assert.Equal(t, inspect(5).ExitCode, 5)

			// The others end under the daemon that came after.
			for _, code := range []int{4, 8} {
				l.exec("touch", fmt.Sprintf("%s/go%d", root, code))
				l.eventually(20*time.Second, "the end is known", func() bool { return !inspect(code).Running })
				assert.Equal(t, inspect(code).ExitCode, code)
			}
			assert.Equal(t, l.inspect("box").State.Status, container.StateRunning)
			l.docker("rm", "--force", "box")
			l.assertClean()
		})
	}
}

// TestExecStartKilled: a client whose command is being started when lrd is killed gets all of it, or is cut and nothing was executed.
func TestExecStartKilled(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.box()
	c := l.client()
	whole := 0
	for i := range rounds(t, 6, 200) {
		made, err := c.ExecCreate(t.Context(), "box", client.ExecCreateOptions{
			Cmd: []string{"sh", "-c", fmt.Sprintf("echo once >>/ran%d; echo hello; exit 7", i)}, AttachStdout: true, AttachStderr: true,
		})
		assert.NilError(t, err)
		got := make(chan string, 1)
		go func() {
			time.Sleep(rand.N(150 * time.Millisecond)) // kill9 takes a moment too
			a, err := c.ExecAttach(t.Context(), made.ID, client.ExecAttachOptions{})
			if err != nil {
				got <- ""
				return
			}
			defer a.Close()
			raw, _ := io.ReadAll(a.Reader)
			got <- multiplexed(raw)
		}()
		l.kill9()
		text := <-got
		var e client.ExecInspectResult
		l.eventually(20*time.Second, "the command is over", func() bool {
			e, err = c.ExecInspect(t.Context(), made.ID, client.ExecInspectOptions{})
			return err == nil && !e.Running
		})
		ran := l.docker("exec", "box", "sh", "-c", fmt.Sprintf("cat /ran%d 2>/dev/null; true", i))
		if text == "" {
			assert.Equal(t, ran, "", "round %d: its client was cut, and it was executed; exit code %d", i, e.ExitCode)
			continue
		}
		whole++
		assert.Assert(t, text == "hello\n" || text == "hello\nhello\n", "round %d: %q", i, text) // a SIGKILL may double what was in flight
		assert.Equal(t, e.ExitCode, 7, "round %d", i)
		assert.Equal(t, ran, "once", "round %d", i)
	}
	t.Logf("%d of the clients were there to the end", whole)
	l.docker("rm", "--force", "box")
	l.assertClean()
}

// multiplexed is standard output in what the client of a connection taken over was sent. A SIGKILL may double what was in flight: here
// that may be the head of the response.
func multiplexed(raw []byte) string {
	for bytes.HasPrefix(raw, []byte("HTTP/1.1 101 ")) {
		_, raw, _ = bytes.Cut(raw, []byte("\r\n\r\n"))
	}
	var stdout bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, io.Discard, bytes.NewReader(raw)); err != nil {
		return fmt.Sprintf("%q: %s", raw, err)
	}
	return stdout.String()
}

// TestExecEndsWithItsContainer: a command has no life of its own, also if it
// shares the host's process IDs, and whoever waits for it is told.
func TestExecEndsWithItsContainer(t *testing.T) {
	t.Parallel()
	l := boot(t)
	for _, args := range [][]string{nil, {"--pid", "host"}, {"--restart", "always"}} {
		l.box(args...)
		ended := make(chan int, 1)
		cmd := l.dockerCmd("exec", "box", "sh", "-c", "echo up; sleep 100000")
		stdout, err := cmd.StdoutPipe()
		assert.NilError(t, err)
		assert.NilError(t, cmd.Start())
		_, err = stdout.Read(make([]byte, 10))
		assert.NilError(t, err)
		l.docker("exec", "--detach", "box", "sleep", "100001")
		go func() {
			_ = cmd.Wait()
			ended <- cmd.ProcessState.ExitCode()
		}()
		assert.Equal(t, len(l.inspect("box").ExecIDs), 2)
		l.docker("kill", "box")
		select {
		case code := <-ended:
			assert.Equal(t, code, 137, "%v", args)
		case <-time.After(commandTimeout):
			t.Fatalf("%v: the client of the exec was not told", args)
		}
		l.docker("rm", "--force", "box")
		l.assertClean()
		assert.Equal(t, l.tryExec("pgrep", "-f", "sleep 10000[01]").stdout, "", "%v", args)
	}
}

// TestExecEvents: what is told of a command in a container.
func TestExecEvents(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.box()
	since := fmt.Sprint(time.Now().Unix() - 1)
	assert.Equal(t, l.tryDocker("exec", "box", "sh", "-c", "exit 3").code, 3)
	told := l.docker("events", "--since", since, "--until", fmt.Sprint(time.Now().Unix()+1), "--filter", "event=exec_create", "--filter", "event=exec_start",
		"--filter", "event=exec_die", "--format", `{{.Action}} {{.Actor.Attributes.exitCode}}`)
	assert.Equal(t, told, "exec_create: sh -c exit 3 <no value>\nexec_start: sh -c exit 3 <no value>\nexec_die 3")
}
