package output

import (
	"errors"
	"fmt"
	"io"
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
	}, poll.WithTimeout(time.Minute), poll.WithDelay(5*time.Millisecond))
	// Several tries later nothing has changed, and the other stream still goes.
	write(t, pipes[1], "still here\n")
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if content(t, filepath.Join(dir, "log"), Stderr) != "still here\n" {
			return poll.Continue("the other stream stands still")
		}
		return poll.Success()
	}, poll.WithTimeout(time.Minute), poll.WithDelay(5*time.Millisecond))
	time.Sleep(100 * time.Millisecond)
	select {
	case err := <-written:
		t.Fatal("the writer was not held back: ", err)
	default:
	}
	fi, err := os.Stat(file)
	assert.NilError(t, err)
	assert.Equal(t, fi.Size(), int64(fullLimit))

	write(t, in, "space\n")
	assert.NilError(t, <-written)
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if fi, err := os.Stat(file); err != nil || fi.Size() < int64(len(want)) {
			return poll.Continue("not all there")
		}
		return poll.Success()
	}, poll.WithTimeout(time.Minute), poll.WithDelay(5*time.Millisecond))
	assert.NilError(t, in.Close())
	var said []string
	for out.Scan() {
		said = append(said, out.Text())
	}
	assert.NilError(t, cmd.Wait())
	assert.Equal(t, len(said), 4, strings.Join(said, "\n"))
	assert.Assert(t, strings.Contains(said[0], "file too large"), said[0])
	assert.Equal(t, said[1], "incident full stdout 0")
	assert.Assert(t, strings.Contains(said[2], "written again"), said[2])
	assert.Equal(t, said[3], "incident resumed stdout 0")
	assert.Equal(t, content(t, filepath.Join(dir, "log"), Stdout), want)
}

// TestDrop: with OnFullDrop the container goes on while the store cannot be
// written, and what is missing is counted exactly, in the log and to the owner.
func TestDrop(t *testing.T) {
	dir := t.TempDir()
	out, err := keepFIFO(dir, Stdout)
	assert.NilError(t, err)
	defer out.Close()
	errs, err := keepFIFO(dir, Stderr)
	assert.NilError(t, err)
	defer errs.Close()
	cmd, in, said := spawn(t, "drop", dir)
	for said.Scan() && said.Text() != "ready" {
	}
	line := strings.Repeat("0123456789abcde\n", 64)
	var wrote int64
	for range 400 { // 400 kB, four times what there is room for
		_, err := out.WriteString(line)
		assert.NilError(t, err)
		wrote += int64(len(line))
	}
	write(t, in, "space\n")
	for said.Scan() && !strings.HasPrefix(said.Text(), "incident resumed") {
	}
	write(t, out, "\nback again\n")
	wrote += int64(len("\nback again\n"))
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if strings.HasSuffix(content(t, filepath.Join(dir, "log"), Stdout), "\nback again\n") {
			return poll.Success()
		}
		return poll.Continue("not there yet")
	}, poll.WithTimeout(time.Minute))
	assert.NilError(t, in.Close())
	assert.NilError(t, cmd.Wait())

	l := opened(t, filepath.Join(dir, "log"), Options{})
	r, err := l.Lines(LinesOptions{Stdout: true, Tail: -1})
	assert.NilError(t, err)
	var kept, dropped, notices int64
	for {
		c, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		assert.NilError(t, err)
		if !c.Notice {
			kept += int64(len(c.Data))
			continue
		}
		notices++
		var n int64
		_, err = fmt.Sscanf(string(c.Data), "lrd: %d bytes of stdout were dropped between 2", &n)
		assert.NilError(t, err, "%q", c.Data)
		dropped += n
	}
	assert.Assert(t, notices > 0 && notices < 10, "%d notices", notices)
	// Where a line is torn by what was dropped, it is given with a newline that is not its own.
	assert.Assert(t, kept+dropped >= wrote && kept+dropped <= wrote+notices, "%d + %d of %d bytes", kept, dropped, wrote)
	assert.Equal(t, l.state().ends[0]+dropped, wrote)
	assert.Assert(t, dropped > 100_000, "%d bytes were dropped", dropped)
}
