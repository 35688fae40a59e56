//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// forwarded are writers with a log driver. Each goes as fast as it can until it has written so many thousand lines that the test still
// fits into memory, and then slowly. The journal is slower than a file by far,
// and throws away the oldest when it is full.
func forwarded(thousands int) []writer {
	return []writer{
		{
			name: "to-json-file", stderr: true, args: []string{"--interactive", "--log-driver", "json-file"},
			script: fmt.Sprintf(`while [ -z "$stop" ]; do i=$((i + 1)); echo $i; echo $i >&2; [ $i -lt %d000 ] || read -t 0.01 nothing; done`, thousands),
		},
		{
			name: "to-many-files", args: []string{"--interactive", "--log-driver", "json-file", "--log-opt", "max-size=1m", "--log-opt", "max-file=10000"},
			script: fmt.Sprintf(`n=10000; while [ -z "$stop" ]; do seq $((i + 1)) $((i + n)); i=$((i + n)); [ $i -lt %d000 ] || n=10; read -t 0.1 nothing; done`, 2*thousands),
		},
		{
			name: "to-journald", stderr: true, args: []string{"--interactive", "--log-driver", "journald"},
			script: fmt.Sprintf(`while [ -z "$stop" ]; do i=$((i + 1)); echo $i; echo $i >&2; [ $((i %% 200)) -gt 0 ] || read -t 0.05 nothing; [ $i -lt %d000 ] || read -t 0.01 nothing; done`, min(thousands/10, 60)),
		},
	}
}

// TestLogDriversExactlyOnce kills lrd while containers write to their log drivers: every line is
// once in the store, once in the file, once in the journal.
func TestLogDriversExactlyOnce(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.exec("mkdir", truth)
	writers := forwarded(rounds(t, 200, 3000))
	for _, w := range writers {
		w.start(l)
	}
	for range rounds(t, 6, 100) {
		time.Sleep(rand.N(150 * time.Millisecond))
		l.kill9()
	}
	l.restart()
	l.stop()
	time.Sleep(time.Second / 2)
	l.start()
	for _, w := range writers {
		l.docker("stop", "--time", "100", w.name)
		written, err := strconv.Atoi(strings.TrimSpace(l.readFile(truth + "/" + w.name)))
		assert.NilError(t, err)
		t.Logf("%s: %d lines", w.name, written)
		want := map[string]int{"stdout": written, "stderr": 0}
		if w.stderr {
			want["stderr"] = written
		}
		stdout, stderr := l.logged(w.name)
		assert.DeepEqual(t, map[string]int{"stdout": stdout, "stderr": stderr}, want)
		var got map[string]int
		if strings.HasSuffix(w.name, "journald") {
			l.eventually(time.Minute, w.name+" is forwarded", func() bool {
				got = l.journalLines(w.name)
				return got["stdout"] >= want["stdout"] && got["stderr"] >= want["stderr"]
			})
		} else {
			l.eventually(time.Minute, w.name+" is forwarded", func() bool { return l.jsonHas(w.name, want) })
			got = l.jsonLines(w.name)
		}
		assert.DeepEqual(t, got, want)
	}
}

// jsonHas says whether a line of that number of each stream is in the file of the driver json-file, or in the one before it:
// from then on the files are not turned over any more.
func (l *lab) jsonHas(name string, numbers map[string]int) bool {
	l.t.Helper()
	path := l.path(l.inspect(name).LogPath)
	var text []byte
	for _, file := range []string{path, path + ".1"} {
		data, err := os.ReadFile(file)
		if !errors.Is(err, fs.ErrNotExist) { // one may be away while they are turned over
			assert.NilError(l.t, err)
		}
		text = append(text, data...)
	}
	for stream, n := range numbers {
		if n > 0 && !bytes.Contains(text, fmt.Appendf(nil, `{"log":"%d\n","stream":%q`, n, stream)) {
			return false
		}
	}
	return true
}

// jsonLines checks that the files of the driver json-file hold numbered lines, and tells how many of each stream. For when
// nothing is written any more.
func (l *lab) jsonLines(name string) map[string]int {
	l.t.Helper()
	path := l.inspect(name).LogPath
	var files []string
	for n := 1; ; n++ {
		turned := l.path(fmt.Sprintf("%s.%d", path, n))
		if _, err := os.Stat(turned); err != nil {
			break
		}
		files = append([]string{turned}, files...)
	}
	counts := map[string]int{"stdout": 0, "stderr": 0}
	for _, file := range append(files, l.path(path)) {
		f, err := os.Open(file)
		assert.NilError(l.t, err)
		in := bufio.NewReader(f)
		for {
			line, err := in.ReadBytes('\n')
			if err == io.EOF { // a line that is being written
				break
			}
			assert.NilError(l.t, err)
			var e struct{ Log, Stream string }
			assert.NilError(l.t, json.Unmarshal(line, &e), "%s: %q", file, line)
			counts[e.Stream]++
			assert.Equal(l.t, e.Log, strconv.Itoa(counts[e.Stream])+"\n", file)
		}
		assert.NilError(l.t, f.Close())
	}
	return counts
}

// journalLines checks that the journal has numbered lines of a container, and tells how many of each stream.
func (l *lab) journalLines(name string) map[string]int {
	l.t.Helper()
	counts := map[string]int{}
	// The tag tells a container's lines from what systemd says of it. Not _COMM, which the journal finds out later: of a daemon
	// that was killed meanwhile, not at all.
	tag := "SYSLOG_IDENTIFIER=" + l.inspect(name).ID[:12]
	for stream, priority := range map[string]string{"stdout": "6", "stderr": "3"} {
		text := l.journal("CONTAINER_NAME="+name, tag, "PRIORITY="+priority)
		if text != "" {
			text += "\n"
		}
		counts[stream] = checkCount(l.t, strings.NewReader(text))
	}
	return counts
}

// TestLogDrivers is what users of log drivers see.
func TestLogDrivers(t *testing.T) {
	t.Parallel()
	l := boot(t)

	t.Run("refusals", func(t *testing.T) {
		for _, c := range []struct {
			args []string
			want string
		}{
			{[]string{"--log-driver", "gelf"}, "logger: no log driver named 'gelf' is registered"},
			{[]string{"--log-driver", "json-file", "--log-opt", "max-sise=1m"}, "unknown log opt 'max-sise' for json-file log driver"},
			{[]string{"--log-driver", "json-file", "--log-opt", "max-file=0"}, "max-file cannot be less than 1"},
			{[]string{"--log-opt", "labels=x"}, "unknown log opt 'labels' for local log driver"},
		} {
			r := l.tryDocker(append(append([]string{"create"}, c.args...), "busybox", "true")...)
			assert.Check(t, r.code == 1 && strings.Contains(r.stderr, c.want), "%v: %s", c.args, r)
		}
	})

	t.Run("json-file", func(t *testing.T) {
		l.docker("run", "--name", "file", "--network", "none", "--log-driver", "json-file", "--log-opt", "tag={{.ImageName}}/{{.Name}}",
			"--log-opt", "labels=team", "--label", "team=core & more", "busybox", "sh", "-c", `echo out; printf '<half>'`)
		path := l.inspect("file").LogPath
		assert.Equal(t, filepath.Base(path), l.inspect("file").ID+"-json.log")
		attrs := `"attrs":{"tag":"busybox/file","team":"core \u0026 more"},"time":"20`
		want := []string{`{"log":"out\n","stream":"stdout",` + attrs, `{"log":"\u003chalf\u003e","stream":"stdout",` + attrs}
		var got []string
		l.eventually(time.Minute, "the file is written", func() bool {
			text, err := os.ReadFile(l.path(path))
			got = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
			return err == nil && strings.HasSuffix(string(text), "\n") && len(got) == len(want)
		})
		for i := range want {
			assert.Check(t, strings.HasPrefix(got[i], want[i]) && strings.HasSuffix(got[i], `Z"}`), "%s", got[i])
		}
		// When the first lines were written is known to some milliseconds only, and --details says so.
		details := regexp.MustCompile(`written-after=[^, ]*,`).ReplaceAllString(l.docker("logs", "--details", "file"), "")
		assert.Equal(t, details, "tag=busybox%2Ffile,team=core+%26+more out\ntag=busybox%2Ffile,team=core+%26+more <half>")
		l.docker("rm", "file")
	})

	t.Run("journald", func(t *testing.T) {
		l.docker("run", "--rm", "--name", "short", "--network", "none", "--log-driver", "journald", "--log-opt", "tag=tagged", "busybox", "sh", "-c", "echo out; echo err >&2")
		// The container is gone, and its removal has waited for the journal's having been told.
		assert.Equal(t, l.journal("CONTAINER_NAME=short", "SYSLOG_IDENTIFIER=tagged", "PRIORITY=6"), "out")
		assert.Equal(t, l.journal("CONTAINER_NAME=short", "SYSLOG_IDENTIFIER=tagged", "PRIORITY=3"), "err")
	})

	t.Run("none", func(t *testing.T) {
		assert.Equal(t, l.docker("run", "--name", "quiet", "--network", "none", "--log-driver", "none", "busybox", "echo", "attached"), "attached")
		r := l.tryDocker("logs", "quiet")
		assert.Assert(t, r.code == 1 && strings.Contains(r.stderr, "configured logging driver does not support reading"), "%s", r)
		l.docker("rm", "quiet")
	})

	t.Run("syslog that goes and comes back", func(t *testing.T) { l.in(t).syslogGoneAndBack(t) })
	t.Run("fluentd that goes and comes back", func(t *testing.T) { l.in(t).fluentdGoneAndBack(t) })

	t.Run("default", func(t *testing.T) {
		old := l.docker("create", "busybox", "true")
		l.config("log-driver = \"json-file\"\n[log-opts]\nmax-size = \"1m\"\nmax-file = 3\n")
		assert.NilError(t, l.reload())
		c := l.inspect(l.docker("create", "--log-opt", "max-file=5", "busybox", "true"))
		assert.Equal(t, c.HostConfig.LogConfig.Type, "json-file")
		assert.DeepEqual(t, c.HostConfig.LogConfig.Config, map[string]string{"max-size": "1m", "max-file": "5"})
		assert.Equal(t, l.inspect(old).HostConfig.LogConfig.Type, "local")
		c = l.inspect(l.docker("create", "--log-driver", "journald", "busybox", "true"))
		assert.Equal(t, len(c.HostConfig.LogConfig.Config), 0)
		assert.Equal(t, l.docker("info", "--format", "{{.LoggingDriver}} {{.Plugins.Log}}"), "json-file [fluentd journald json-file local none syslog]")
		l.config("log-driver = \"journald\"\n[log-opts]\nmax-size = \"1m\"\n")
		r := l.tryExec("lrd", "reload")
		assert.Assert(t, r.code == 1 && strings.Contains(r.stderr, "unknown log opt 'max-size' for journald log driver"), "%s", r)
	})
}

// syslogGoneAndBack: a container writes on while its syslog server is away, and lrd is restarted meanwhile.
func (l *lab) syslogGoneAndBack(t *testing.T) {
	const socket = "/run/syslog-test"
	serve := func() (net.Listener, <-chan string) {
		server, err := net.Listen("unix", l.path(socket))
		assert.NilError(t, err)
		lines := make(chan string, 1000)
		go func() {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			defer conn.Close() // nothing was written
			for in := bufio.NewScanner(conn); in.Scan(); {
				lines <- in.Text()
			}
			close(lines)
		}()
		return server, lines
	}
	server, lines := serve()
	l.docker("run", "--detach", "--interactive", "--name", "sys", "--network", "none", "--log-driver", "syslog", "--log-opt", "syslog-address=unix://"+socket, "--log-opt", "tag={{.Name}}",
		"busybox", "sh", "-c", `i=0; while [ $i -lt 300 ]; do i=$((i + 1)); echo line $i; [ $i -ne 100 ] || read line; done; read line`)
	first := <-lines
	assert.Assert(t, is.Contains(first, " sys["))
	assert.Assert(t, strings.HasPrefix(first, "<30>") && strings.HasSuffix(first, "]: line 1"), first)
	for n := 2; n <= 100; n++ {
		assert.Assert(t, strings.HasSuffix(<-lines, fmt.Sprintf("]: line %d", n)))
	}
	assert.NilError(t, server.Close())
	l.kill9() // the connection goes with it
	attach := l.dockerCmd("attach", "sys")
	attach.Stdin = strings.NewReader("go on\n")
	assert.NilError(t, attach.Start())
	l.eventually(time.Minute, "the container is held up", func() bool { return strings.Contains(l.docker("logs", "--tail", "1", "sys"), "line 300") })
	server, lines = serve()
	defer server.Close() // nothing was written
	seen := map[int]bool{}
	for !seen[300] {
		line := <-lines
		n, err := strconv.Atoi(line[strings.LastIndex(line, " ")+1:])
		assert.NilError(t, err)
		seen[n] = true
	}
	for n := 101; n <= 300; n++ {
		assert.Assert(t, seen[n], "line %d", n)
	}
	l.docker("rm", "--force", "sys")
	_ = attach.Wait()
}
