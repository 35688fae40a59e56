package output

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// fullLimit is how large a file can get before the "disk" is "full".
const fullLimit = 100_000

// TestFull: a store that cannot be written holds the writer back, complains
// once, and goes on by itself.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	var pipes [2]*os.File
	for i, s := range kept {
		path := filepath.Join(dir, s.String())
		assert.NilError(t, unix.Mkfifo(path, 0o600))
		f, err := openFIFO(path)
		assert.NilError(t, err)
		defer f.Close()
		pipes[i] = f
	}
	cmd, in, out := spawn(t, "full", dir)
	for out.Scan() && out.Text() != "ready" {
	}
	want := strings.Repeat("0123456789abcde\n", 20_000) // 320 kB, more than limit and pipe together
	written := make(chan error, 1)
	go func() {
		_, err := pipes[0].WriteString(want)
		written <- err
	}()
	file := filepath.Join(dir, "log", "stdout.0000000000000000")
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if fi, err := os.Stat(file); err != nil || fi.Size() < fullLimit {
			return poll.Continue("not full yet")
		}
		return poll.Success()
	}, poll.WithTimeout(10*time.Second), poll.WithDelay(5*time.Millisecond))
	// Several tries later nothing has changed, and the other stream still goes.
	write(t, pipes[1], "still here\n")
	time.Sleep(100 * time.Millisecond)
	select {
	case err := <-written:
		t.Fatal("the writer was not held back: ", err)
	default:
	}
	fi, err := os.Stat(file)
	assert.NilError(t, err)
	assert.Equal(t, fi.Size(), int64(fullLimit))
	assert.Equal(t, content(t, filepath.Join(dir, "log"), Stderr), "still here\n")

	write(t, in, "space\n")
	assert.NilError(t, <-written)
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if fi, err := os.Stat(file); err != nil || fi.Size() < int64(len(want)) {
			return poll.Continue("not all there")
		}
		return poll.Success()
	}, poll.WithTimeout(10*time.Second), poll.WithDelay(5*time.Millisecond))
	assert.NilError(t, in.Close())
	var said []string
	for out.Scan() {
		said = append(said, out.Text())
	}
	assert.NilError(t, cmd.Wait())
	assert.Equal(t, len(said), 2, strings.Join(said, "\n"))
	assert.Assert(t, strings.Contains(said[0], "file too large"), said[0])
	assert.Assert(t, strings.Contains(said[1], "written again"), said[1])
	assert.Equal(t, content(t, filepath.Join(dir, "log"), Stdout), want)
}
