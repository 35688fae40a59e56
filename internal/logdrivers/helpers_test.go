package logdrivers

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"lrd/internal/logopts"
	"lrd/internal/output"
)

var discard = slog.New(slog.DiscardHandler)

func readFile(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	assert.NilError(t, err)
	defer f.Close() // it was only read
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		r, err = gzip.NewReader(f)
		assert.NilError(t, err)
	}
	data, err := io.ReadAll(r)
	assert.NilError(t, err)
	return string(data)
}

// startJournal is a journal that only listens: a socket that outlives the daemons, and a file with what it was told. The
// function that it returns ends it, once all is read.
func startJournal(t *testing.T, dir string) (stop func()) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "journal")})
	assert.NilError(t, err)
	told, err := os.Create(filepath.Join(dir, "told"))
	assert.NilError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<20)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if done, ok := strings.CutPrefix(string(buf[:n]), journalSync); ok {
				if err := os.WriteFile(done, nil, 0o600); err != nil {
					panic(err)
				}
				continue
			}
			if _, err := told.WriteString(strconv.Quote(string(buf[:n])) + "\n"); err != nil {
				panic(err)
			}
		}
	}()
	end := sync.OnceFunc(func() {
		assert.Check(t, syncTold(dir))
		_ = conn.Close()
		<-done
		_ = told.Close()
	})
	t.Cleanup(end)
	return end
}

// journalSync begins a message that is none, but asks for a file of the name that follows, once all that was sent before is read.
const journalSync = "sync "

// useJournal has the journal of startJournal in dir stand for the machine's.
func (d *Drivers) useJournal(dir string) {
	d.journal.socket = filepath.Join(dir, "journal")
	d.journal.sync = func(context.Context) error { return syncTold(dir) }
	d.journal.last = func(_ context.Context, id, epoch string) (int64, bool, error) { return lastTold(dir, id, epoch) }
}

// syncTold returns when the journal has taken in what waits in its socket, as `journalctl --sync` does.
func syncTold(dir string) error {
	conn, err := net.Dial("unixgram", filepath.Join(dir, "journal"))
	if err != nil {
		return err
	}
	defer conn.Close()
	f, err := os.CreateTemp(dir, "sync")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing was written
	defer f.Close()
	done := f.Name() + ".done"
	if _, err := io.WriteString(conn, journalSync+done); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if os.Remove(done) == nil {
			return nil
		}
	}
	return errors.New("the journal does not read")
}

// told is what the journal was told, an entry each.
func told(dir string) ([]map[string]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "told"))
	if err != nil {
		return nil, err
	}
	var all []map[string]string
	for line := range strings.Lines(string(data)) {
		text, err := strconv.Unquote(strings.TrimSuffix(line, "\n"))
		if err != nil {
			break // it is being written
		}
		e := map[string]string{}
		for field := range strings.Lines(text) {
			k, v, _ := strings.Cut(strings.TrimSuffix(field, "\n"), "=")
			e[k] = v
		}
		all = append(all, e)
	}
	return all, nil
}

// lastTold is what the journal answers to a daemon.
func lastTold(dir, id, epoch string) (ordinal int64, whole bool, err error) {
	all, err := told(dir)
	if err != nil || len(all) == 0 {
		return 0, true, err
	}
	last := all[len(all)-1]
	if last[fieldFullID] != id || last[fieldEpoch] != epoch {
		return 0, true, fmt.Errorf("the journal has %v", last)
	}
	ordinal, err = strconv.ParseInt(last[fieldOrdinal], 10, 64)
	return ordinal, true, err
}

// readTold are the lines that the journal was told, by stream.
func readTold(t *testing.T, dir string) map[string][]string {
	t.Helper()
	all, err := told(dir)
	assert.NilError(t, err)
	var lines joined
	for i, e := range all {
		assert.Equal(t, e[fieldOrdinal], strconv.Itoa(i+1))
		stream, text := "stdout", e["MESSAGE"]
		if e["PRIORITY"] == "3" {
			stream = "stderr"
		}
		if e[fieldPartial] != "true" {
			text += "\n"
		}
		lines.add(stream, text)
	}
	return lines.lines
}

// container is a store that a test writes to, and its forwarder.
type container struct {
	t       *testing.T
	dir     string
	log     *output.Log
	stdout  *os.File
	drivers *Drivers
	f       *Forwarder
	o       Options
}

func newContainer(t *testing.T, driver string, opts map[string]string) *container {
	t.Helper()
	return newContainerIn(t, t.TempDir(), driver, opts, output.Options{})
}

func newContainerIn(t *testing.T, dir, driver string, opts map[string]string, store output.Options) *container {
	t.Helper()
	assert.NilError(t, logopts.Validate(driver, opts))
	log, err := output.Open(filepath.Join(t.TempDir(), "output"), store)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, log.Close()) })
	c := &container{t: t, dir: dir, log: log, drivers: New(), o: testOptions(driver, dir, opts)}
	c.drivers.useJournal(dir)
	r, w, err := os.Pipe()
	assert.NilError(t, err)
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	// A pipe that is open for reading and writing, as the store wants it.
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", r.Fd()), os.O_RDWR|0o4000, 0)
	assert.NilError(t, err)
	assert.NilError(t, log.Drain(output.Stdout, f, output.FIFO))
	c.stdout = w
	return c
}

func (c *container) start() {
	c.t.Helper()
	var err error
	c.f, err = c.drivers.Start(c.log, c.o)
	assert.NilError(c.t, err)
	c.t.Cleanup(c.f.Stop)
}

// write writes as the container, and waits until it is in the store.
func (c *container) write(text string) {
	c.t.Helper()
	want := c.stored() + int64(len(text))
	_, err := c.stdout.WriteString(text)
	assert.NilError(c.t, err)
	for deadline := time.Now().Add(time.Minute); c.stored() < want; time.Sleep(time.Millisecond) {
		assert.Assert(c.t, time.Now().Before(deadline), "the store does not get it")
	}
}

func (c *container) stored() (n int64) { return c.log.Stats().Streams[0].Bytes }

// wait waits until all is forwarded.
func (c *container) wait() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	assert.NilError(c.t, c.f.Wait(ctx))
}
