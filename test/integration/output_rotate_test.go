//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// TestOutputKept is about what is kept of a container's output, and what is not: rotation, a full disk, a log that
// somebody has cut.
func TestOutputKept(t *testing.T) {
	t.Parallel()
	l := boot(t)
	l.exec("mkdir", truth)
	for name, test := range map[string]func(*testing.T, *lab){
		"rotation":   testRotation,
		"full block": testFullBlock,
		"full drop":  testFullDrop,
		"cut":        testCutLog,
		"options":    testLogOptions,
	} {
		t.Run(name, func(t *testing.T) {
			mine := *l
			mine.t = t
			test(t, &mine)
		})
	}
	l.assertClean()
}

// store is where the output of a container is.
func (l *lab) store(name string) string {
	return "/var/lib/lrd/containers/" + l.inspect(name).ID + "/output"
}

// pacedReader is a client at `docker logs --follow`.
type pacedReader struct {
	cmd  *exec.Cmd
	seen chan count
}

// follow starts one that rests before each 64 KiB that it reads.
func (l *lab) readPaced(name string, rest time.Duration, args ...string) *pacedReader {
	l.t.Helper()
	f := &pacedReader{cmd: l.dockerCmd(append(append([]string{"logs", "--follow"}, args...), name)...), seen: make(chan count, 1)}
	out, err := f.cmd.StdoutPipe()
	assert.NilError(l.t, err)
	assert.NilError(l.t, f.cmd.Start())
	go func() { f.seen <- countLines(slowly{out, rest}) }()
	return f
}

func (f *pacedReader) end(l *lab) int {
	l.t.Helper()
	seen := <-f.seen
	assert.NilError(l.t, seen.err)
	assert.NilError(l.t, f.cmd.Wait())
	return seen.last
}

type slowly struct {
	io.Reader
	rest time.Duration
}

func (s slowly) Read(p []byte) (int, error) {
	time.Sleep(s.rest)
	return s.Reader.Read(p)
}

// testRotation: a log turns over all the time while three clients are at different places of it, and the daemon is
// restarted. Each of them sees every line once; what is kept are the last ones.
func testRotation(t *testing.T, l *lab) {
	last := rounds(t, 300_000, 20_000_000)
	l.docker("run", "--detach", "--name", "rotated", "--network", "none", "--volume", truth+":/truth",
		"--log-opt", "max-size=64k", "--log-opt", "max-file=3", "busybox", "sh", "-c",
		fmt.Sprintf("until [ -e /truth/go ]; do usleep 1000; done; seq %d; until [ -e /truth/end ]; do usleep 1000; done", last))
	readers := []*pacedReader{
		l.readPaced("rotated", 0), l.readPaced("rotated", time.Millisecond), l.readPaced("rotated", 10*time.Millisecond),
	}
	l.streams(len(readers)) // where they begin is the beginning, as nothing is written yet
	l.writeFile(truth+"/go", "")
	for range rounds(t, 3, 30) {
		l.restart() // and not SIGKILL, which may double a piece for a client, though not in the log
	}
	l.writeFile(truth+"/end", "")
	assert.Equal(t, l.docker("wait", "rotated"), "0")
	for _, r := range readers {
		assert.Equal(t, r.end(l), last)
	}
	dir := l.store("rotated")
	// For ten seconds after the restart more is kept, for clients that come back.
	l.eventually(40*time.Second, "no more than three segments are left, compressed but one", func() bool {
		files := strings.Fields(l.exec("ls", dir))
		packed := 0
		for _, f := range files {
			if strings.HasSuffix(f, ".zst") {
				packed++
			}
		}
		return len(files) == 7 && packed == 2 // three of each stream that there is, and an empty one
	})
	lines := strings.Split(l.docker("logs", "rotated"), "\n")
	assert.Assert(t, len(lines) > 1000, "%d lines", len(lines))
	for i, line := range lines {
		assert.Equal(t, line, strconv.Itoa(last-len(lines)+1+i))
	}
	assert.Equal(t, l.docker("logs", "--tail", "2", "rotated"), fmt.Sprintf("%d\n%d", last-1, last))
	l.docker("rm", "rotated")
}

// small mounts a file system of that size as the disk of a created container's log.
func (l *lab) small(name, size string) (dir string) {
	l.t.Helper()
	dir = l.store(name)
	l.exec("mkdir", "-p", dir)
	l.exec("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir)
	return dir
}

// removeSmall removes a container whose log is on a disk of its own, which the daemon has open.
func (l *lab) removeSmall(name, dir string) {
	l.t.Helper()
	l.exec("umount", "--lazy", dir)
	l.docker("rm", "--force", name)
}

func (l *lab) told(name string, since time.Time, action string) string {
	return l.docker("events", "--since", strconv.FormatInt(since.Unix(), 10), "--until", strconv.FormatInt(time.Now().Unix()+1, 10),
		"--filter", "container="+name, "--filter", "event="+action, "--format", "{{json .Actor.Attributes}}")
}

// testFullBlock: a container whose log's disk is full waits, loses nothing, and goes on by itself.
func testFullBlock(t *testing.T, l *lab) {
	const last = 500_000 // 3.4 MB
	begin := time.Now()
	l.docker("create", "--name", "blocked", "--network", "none", "--log-opt", "max-size=-1", "busybox", "seq", strconv.Itoa(last))
	dir := l.small("blocked", "1m")
	l.docker("start", "blocked")
	l.eventually(20*time.Second, "the disk is full", func() bool { return strings.Contains(l.told("blocked", begin, "output_full"), "no space left") })
	assert.Equal(t, string(l.inspect("blocked").State.Status), "running")
	l.restart() // a daemon that finds the disk full comes up as well
	assert.Equal(t, string(l.inspect("blocked").State.Status), "running")
	l.exec("mount", "-o", "remount,size=16m", dir)
	assert.Equal(t, l.docker("wait", "blocked"), "0")
	assert.Equal(t, checkCount(t, strings.NewReader(l.docker("logs", "blocked")+"\n")), last)
	l.removeSmall("blocked", dir)
}

// testFullDrop: with on-full=drop it does not wait, and the log says what is missing.
func testFullDrop(t *testing.T, l *lab) {
	const last = 500_000
	begin := time.Now()
	l.docker("create", "--name", "dropping", "--network", "none", "--volume", truth+":/truth", "--log-opt", "max-size=-1", "--log-opt", "on-full=drop",
		"busybox", "sh", "-c", fmt.Sprintf("seq %d; touch /truth/written; until [ -e /truth/more ]; do usleep 1000; done; echo; echo more", last))
	dir := l.small("dropping", "1m")
	l.docker("start", "dropping")
	l.eventually(20*time.Second, "the container has written all", func() bool { return l.tryExec("test", "-e", truth+"/written").code == 0 })
	l.exec("mount", "-o", "remount,size=16m", dir)
	l.eventually(20*time.Second, "the log is written again", func() bool { return l.told("dropping", begin, "output_resumed") != "" })
	l.writeFile(truth+"/more", "")
	assert.Equal(t, l.docker("wait", "dropping"), "0")
	var kept, dropped, notices int
	in := bufio.NewScanner(strings.NewReader(l.docker("logs", "dropping")))
	var line string
	for in.Scan() {
		line = in.Text()
		var n int
		if _, err := fmt.Sscanf(line, "lrd: %d bytes of stdout were dropped between 2", &n); err == nil {
			dropped += n
			notices++
		} else {
			kept += len(line) + 1
		}
	}
	assert.Equal(t, line, "more")
	assert.Assert(t, notices > 0 && dropped > 1<<20, "%d notices of %d bytes", notices, dropped)
	wrote := len("\nmore\n")
	for n, digits := 1, 1; n <= last; n, digits = n*10, digits+1 {
		wrote += (min(last, n*10-1) - n + 1) * (digits + 1)
	}
	// A line that is torn by what is missing is shown with an end of its own.
	assert.Assert(t, kept+dropped >= wrote && kept+dropped <= wrote+notices, "%d bytes kept, %d dropped, %d written", kept, dropped, wrote)
	assert.Assert(t, strings.Contains(l.told("dropping", begin, "output_dropped"), `"bytes":"`))
	l.removeSmall("dropping", dir)
}

// testCutLog: a log that somebody has cut is shown up to there, and says so; from its end as well.
func testCutLog(t *testing.T, l *lab) {
	const last = 50_000
	l.docker("run", "--name", "cut", "--network", "none", "--log-opt", "max-size=64k", "--log-opt", "compress=false", "busybox", "seq", strconv.Itoa(last))
	dir := l.store("cut")
	l.stop()
	files := strings.Fields(l.exec("sh", "-c", "ls "+dir+"/stdout.*"))
	assert.Assert(t, len(files) > 3, "%v", files)
	l.exec("truncate", "--size", "1000", files[len(files)/2])
	l.start()
	r := l.tryDocker("logs", "cut")
	assert.Assert(t, strings.Contains(r.stderr, "lrd: cannot read output in "+filepath.Dir(dir)), "%s", r.stderr)
	first := checkFrom(t, r.stdout)
	assert.Assert(t, first < last/2, "from %d on", first)
	assert.Equal(t, l.docker("logs", "--tail", "1", "cut"), strconv.Itoa(last))
	l.docker("rm", "cut")
}

// checkFrom checks that numbered lines follow on one another, the last of which may be cut, and returns the first.
func checkFrom(t *testing.T, out string) (first int) {
	t.Helper()
	lines := strings.Split(out, "\n")
	first, err := strconv.Atoi(lines[0])
	assert.NilError(t, err)
	for i, line := range lines[:len(lines)-1] {
		assert.Equal(t, line, strconv.Itoa(first+i))
	}
	return first
}

// testLogOptions: what is wrong with a log option is said when the container is created.
func testLogOptions(t *testing.T, l *lab) {
	for opt, says := range map[string]string{
		"max-size=much":        "max-size",
		"max-file=0":           "max-file",
		"mode=fast":            "blocking or non-blocking",
		"on-full=panic":        "block or drop",
		"max-buffer-size=1m":   "mode=non-blocking",
		"max-bufer-size=1m":    "unknown log opt",
		"compress=no-way":      "true or false",
		"max-size=-1 mode=abc": "non-blocking",
	} {
		args := []string{"create"}
		for o := range strings.FieldsSeq(opt) {
			args = append(args, "--log-opt", o)
		}
		r := l.tryDocker(append(args, "busybox")...)
		assert.Assert(t, r.code == 1 && strings.Contains(r.stderr, says), "%s: %s", opt, r)
	}
	// A container that must never be held back has pipes of the size that its creator has said.
	l.docker("run", "--name", "buffered", "--network", "none", "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=256k", "busybox", "echo", "hi")
	assert.Equal(t, l.docker("logs", "buffered"), "hi")
	l.docker("rm", "buffered")
}

// TestTailOfALargeLog: the last lines of a log are found in no time however long it is, also in compressed segments.
func TestTailOfALargeLog(t *testing.T) {
	t.Parallel()
	l := boot(t)
	size := rounds(t, 40, 10<<10) // MiB
	l.docker("run", "--detach", "--name", "large", "--network", "none", "--log-opt", "max-size=16m", "--log-opt", "max-file=10000", "busybox", "sh", "-c",
		fmt.Sprintf("yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 1048576 >/piece; "+
			"i=0; while [ $i -lt %d ]; do cat /piece; i=$((i + 1)); done; echo; seq 5", size))
	l.eventually(time.Hour, "the log is not written", func() bool { return !l.inspect("large").State.Running })
	at := time.Now()
	got := l.docker("logs", "--tail", "3", "large")
	took := time.Since(at)
	assert.Equal(t, got, "3\n4\n5")
	at = time.Now()
	many, _ := l.bytesOf(nil, "logs", "--tail", "200000", "large")
	assert.Equal(t, bytes.Count(many, []byte("\n")), 200_000)
	t.Logf("%d MiB: --tail 3 in %s, --tail 200000 in %s", size, took, time.Since(at))
	l.docker("rm", "large")
	l.assertClean()
}
