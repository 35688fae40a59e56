package logdrivers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"lrd/internal/logopts"
	"lrd/internal/output"
)

const testID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// child is the daemon: it drains and forwards until its standard input ends, or until it is killed.
func child(driver, dir string) int {
	if err := daemon(driver, dir); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

func daemon(driver, dir string) error {
	log, err := output.Open(filepath.Join(dir, "output"), output.Options{})
	if err != nil {
		return err
	}
	d := New()
	d.useJournal(dir)
	var opts map[string]string
	if err := json.Unmarshal([]byte(os.Getenv("LRD_LOGDRIVERS_TEST_OPTS")), &opts); err != nil {
		return err
	}
	f, err := d.Start(log, testOptions(driver, dir, opts))
	if err != nil {
		return err
	}
	for _, s := range []output.Stream{output.Stdout, output.Stderr} {
		fifo, err := os.OpenFile(filepath.Join(dir, s.String()), os.O_RDWR|unix.O_NONBLOCK, 0)
		if err == nil {
			err = log.Drain(s, fifo, output.FIFO)
		}
		if err != nil {
			return err
		}
	}
	if err := log.BeginRun(); err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	if err := log.EndRun(context.Background()); err != nil {
		return err
	}
	if err := f.Wait(context.Background()); err != nil {
		return err
	}
	f.Stop()
	return log.Close()
}

func testOptions(driver, dir string, opts map[string]string) Options {
	return Options{
		Driver: driver, Dir: dir, Log: discard,
		Info: logopts.Info{ContainerID: testID, ContainerName: "/web", ContainerImageName: "busybox", Config: opts, DaemonName: "lrd"},
	}
}

// TestKill kills a daemon that forwards under load again and again, at random moments: every line is once
// in the store, and once at the target.
func TestKill(t *testing.T) {
	for _, c := range []struct {
		name, driver string
		opts         map[string]string
		read         func(t *testing.T, dir string) map[string][]string
	}{
		{"json-file", logopts.JSONFile, map[string]string{"tag": "{{.Name}}"}, readJSONFiles},
		{"json-file, turned over", logopts.JSONFile, map[string]string{"max-size": "200k", "max-file": "100000"}, readJSONFiles},
		{"json-file, compressed", logopts.JSONFile, map[string]string{"max-size": "300k", "max-file": "100000", "compress": "true"}, readJSONFiles},
		{"journald", logopts.Journald, nil, readTold},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			journal := startJournal(t, dir)
			stop := make(chan struct{})
			var finished []func() int
			for _, s := range []string{"stdout", "stderr"} {
				assert.NilError(t, unix.Mkfifo(filepath.Join(dir, s), 0o600))
				f, err := os.OpenFile(filepath.Join(dir, s), os.O_RDWR, 0)
				assert.NilError(t, err)
				t.Cleanup(func() { _ = f.Close() })
				finished = append(finished, numbering(f, stop))
			}
			rounds := 6
			if os.Getenv("LRD_SOAK") != "" {
				rounds = 200
			}
			for range rounds {
				cmd, _, out := spawn(t, c.driver, dir, c.opts)
				if rand.IntN(5) > 0 {
					for out.Scan() && out.Text() != "ready" {
						assert.Assert(t, !strings.HasPrefix(out.Text(), "error:"), out.Text())
					}
				}
				time.Sleep(rand.N(15 * time.Millisecond))
				assert.NilError(t, cmd.Process.Kill())
				_ = cmd.Wait()
			}
			cmd, in, out := spawn(t, c.driver, dir, c.opts)
			for out.Scan() && out.Text() != "ready" {
				assert.Assert(t, !strings.HasPrefix(out.Text(), "error:"), out.Text())
			}
			close(stop)
			var want []int
			for _, f := range finished {
				want = append(want, f())
			}
			assert.NilError(t, in.Close())
			for out.Scan() {
				t.Log(out.Text())
			}
			assert.NilError(t, cmd.Wait())
			journal()

			got := c.read(t, dir)
			for i, s := range []string{"stdout", "stderr"} {
				for n, line := range got[s] {
					if line != numbered(n) {
						t.Fatalf("%s: line %d of %d reads %q", s, n, len(got[s]), line)
					}
				}
				assert.Equal(t, len(got[s]), want[i], s)
				t.Logf("%s: %d lines", s, want[i])
			}
		})
	}
}

func spawn(t *testing.T, driver, dir string, opts map[string]string) (*exec.Cmd, io.WriteCloser, *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	assert.NilError(t, err)
	text, err := json.Marshal(opts)
	assert.NilError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "LRD_LOGDRIVERS_TEST_DRIVER="+driver, "LRD_LOGDRIVERS_TEST_DIR="+dir, "LRD_LOGDRIVERS_TEST_OPTS="+string(text))
	in, err := cmd.StdinPipe()
	assert.NilError(t, err)
	stdout, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd, in, bufio.NewScanner(stdout)
}

// numbered is line n, without its newline; every 500th is longer than a piece.
func numbered(n int) string {
	if n%500 == 499 {
		return fmt.Sprintf("%d %s", n, strings.Repeat("long ", 2*pieceSize/5))
	}
	return fmt.Sprintf("%d %s", n, strings.Repeat("<>", n%40))
}

// numbering writes numbered lines in pieces, not faster than a test can check, until stop. The function that it returns waits for that, and
// tells how many lines there are.
func numbering(w io.Writer, stop <-chan struct{}) (finished func() int) {
	done := make(chan int, 1)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			case <-time.After(time.Millisecond):
			}
			var b bytes.Buffer
			for range 1 + rand.IntN(200) {
				b.WriteString(numbered(n) + "\n")
				n++
			}
			for p := b.Bytes(); len(p) > 0; {
				k, err := w.Write(p[:min(len(p), 1+rand.IntN(4096))])
				if err != nil {
					panic(err)
				}
				p = p[k:]
			}
		}
	}()
	return func() int { return <-done }
}

// readJSONFiles reads all that the driver json-file has written, by stream.
func readJSONFiles(t *testing.T, dir string) map[string][]string {
	t.Helper()
	base := filepath.Join(dir, testID+"-json.log")
	var files []string
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s.%d", base, n)
		if _, err := os.Stat(name + ".gz"); err == nil {
			files = append(files, name+".gz")
		} else if _, err := os.Stat(name); err == nil {
			files = append(files, name)
		} else {
			break
		}
	}
	slices.Reverse(files)
	t.Logf("%d files", len(files)+1)
	var lines joined
	for _, name := range append(files, base) {
		for text := range strings.Lines(readFile(t, name)) {
			var e struct{ Log, Stream string }
			assert.NilError(t, json.Unmarshal([]byte(text), &e), "%s: %q", name, text)
			lines.add(e.Stream, e.Log)
		}
	}
	return lines.lines
}

// joined puts lines together that came in pieces.
type joined struct {
	open  map[string]string
	lines map[string][]string
}

func (j *joined) add(stream, text string) {
	if j.open == nil {
		j.open, j.lines = map[string]string{}, map[string][]string{}
	}
	j.open[stream] += text
	if line, ok := strings.CutSuffix(j.open[stream], "\n"); ok {
		j.lines[stream] = append(j.lines[stream], line)
		j.open[stream] = ""
	}
}
