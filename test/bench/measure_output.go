package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// shape is a way of writing.
type shape struct {
	name  string
	line  int
	chunk int
	at    int   // how many containers at once
	part  int64 // of the bytes: slow ones are given less
}

var shapes = []shape{
	{name: "100-byte lines, 4 KiB a write", line: 100, chunk: 4096, at: 1, part: 1},
	{name: "1 KiB lines, 64 KiB a write", line: 1024, chunk: 64 << 10, at: 1, part: 1},
	{name: "20-byte lines, 4 KiB a write", line: 20, chunk: 4096, at: 1, part: 4},
	{name: "100-byte lines, one a write", line: 100, chunk: 100, at: 1, part: 4},
	{name: "8 containers, 100-byte lines", line: 100, chunk: 4096, at: 8, part: 1},
}

func (s shape) args(bytes int64) []string {
	return []string{"-bytes", strconv.FormatInt(bytes/int64(s.at), 10), "-line", strconv.Itoa(s.line), "-chunk", strconv.Itoa(s.chunk)}
}

// output measures how output gets into logs, and out again.
func (b *bench) output() error {
	for i, s := range shapes {
		bytes := b.scale.Bytes / s.part
		err := b.each(b.engines, func(e *engine) error {
			bytes := bytes / e.part
			if err := b.warm(bytes); err != nil {
				return err
			}
			w, err := b.written(e, s, bytes)
			if err != nil {
				return err
			}
			b.wrote(e.name, s, bytes, w)
			if i == 0 {
				if err := b.readBack(e, bytes); err != nil {
					return err
				}
			}
			return e.clean()
		})
		if err != nil {
			return err
		}
		if s.at > 1 {
			continue
		}
		for range b.scale.Rounds {
			if err := b.warm(bytes); err != nil {
				return err
			}
			out, err := b.lab.exec(append([]string{"/usr/local/bin/bench", "splice", "/var/lib/lrd/spliced"}, s.args(bytes)...)...)
			if err != nil {
				return err
			}
			var w written
			if _, err := fmt.Sscan(out, &w.stored, &w.processor); err != nil {
				return err
			}
			b.wrote(bare, s, bytes, w)
		}
	}
	return nil
}

// warm uses as much memory as is about to be written, and gives it back. In a virtual machine the first use of a page costs what the
// host takes to find one, which would be measured with some and not with others.
func (b *bench) warm(bytes int64) (err error) {
	path := filepath.Join(b.lab.root, "var/lib/warm")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	lot := make([]byte, 1<<20)
	for left := bytes; left > 0; left -= int64(len(lot)) {
		if _, err := f.Write(lot); err != nil {
			return err
		}
	}
	return nil
}

// bare is the splice loop, in the table.
const bare = "bare splice"

// written is how it went: seconds from the go-ahead on.
type written struct {
	stored    float64 // until the last byte is in the log
	released  float64 // until the last container's last write(2) has returned; 0 is not measured
	processor float64 // processor seconds of everything but the containers
}

func (b *bench) wrote(engine string, s shape, bytes int64, w written) {
	b.table.add("Output, MB/s: "+s.name, engine, float64(bytes)/1e6/w.stored, more)
	if w.released > 0 {
		b.table.add("The container gets rid of it, MB/s: "+s.name, engine, float64(bytes)/1e6/w.released, more)
	}
	b.table.add("Processor seconds beside the container, per GiB: "+s.name, engine, w.processor/float64(bytes)*(1<<30), less)
}

// written runs containers that write so many bytes in all.
func (b *bench) written(e *engine, s shape, bytes int64) (w written, err error) {
	truth := filepath.Join(b.lab.root, "run/truth")
	if err := errors.Join(os.RemoveAll(truth), os.MkdirAll(truth, 0o755)); err != nil {
		return w, err
	}
	var ahead []*os.File
	defer func() {
		for _, f := range ahead {
			err = errors.Join(err, f.Close())
		}
	}()
	var logs []string
	for n := range s.at {
		if err := aheadFIFO(filepath.Join(truth, name(n)+".go")); err != nil {
			return w, err
		}
		args := append([]string{"run", "--detach", "--network", "none", "--name", name(n), "--volume", "/run/truth:/truth"}, e.log...)
		args = append(args, "bench", "/bin/bench", "write", "-go", "/truth/"+name(n)+".go", "-note", "/truth/"+name(n))
		id, err := e.do(append(args, s.args(bytes)...)...)
		if err != nil {
			return w, err
		}
		f, err := awaitWriter(b.ctx, filepath.Join(truth, name(n)+".go"))
		if err != nil {
			return w, err
		}
		ahead = append(ahead, f)
		path, err := e.logFile(id)
		if err != nil {
			return w, err
		}
		logs = append(logs, path)
	}
	time.Sleep(afterStart)
	before, err := b.lab.processor()
	if err != nil {
		return w, err
	}
	began := time.Now()
	for _, f := range ahead {
		if _, err := f.Write([]byte{1}); err != nil {
			return w, err
		}
	}
	for n := range s.at {
		var note noted
		if note, err = b.stored(logs[n], filepath.Join(truth, name(n))); err != nil {
			return w, err
		}
		w.released = max(w.released, note.Ended.Sub(began).Seconds())
		w.processor -= note.Processor.Seconds()
	}
	w.stored = time.Since(began).Seconds()
	after, err := b.lab.processor()
	if err != nil {
		return w, err
	}
	w.processor += (after - before).Seconds()
	// What is in the file is what the engine tells.
	for n := range s.at {
		if out, err := e.do("logs", "--tail", "1", name(n)); err != nil || out != last {
			return w, fmt.Errorf("docker logs --tail 1 gave %q: %w", out, err)
		}
	}
	return w, nil
}

// afterStart lets what an engine does behind a start be over before anything is measured.
const afterStart = 300 * time.Millisecond

// stored waits until the last line is in a log, and for the writer's note.
func (b *bench) stored(log, note string) (n noted, err error) {
	tail := make([]byte, 512)
	for b.ctx.Err() == nil {
		f, err := os.Open(log)
		if err != nil {
			return n, err
		}
		fi, err := f.Stat()
		if err != nil {
			return n, errors.Join(err, f.Close())
		}
		got, err := f.ReadAt(tail, max(0, fi.Size()-int64(len(tail))))
		if err = errors.Join(f.Close(), ignoreEOF(err)); err != nil {
			return n, err
		}
		text, err := os.ReadFile(note)
		if err == nil && bytes.Contains(tail[:got], []byte(last)) {
			return n, json.Unmarshal(text, &n)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return n, context.Cause(b.ctx)
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func name(n int) string { return fmt.Sprint("writer-", n) }

// readBack reads a log of that many bytes.
func (b *bench) readBack(e *engine, bytes int64) error {
	cmd := e.command("logs", name(0))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, out)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return err
	}
	if n < bytes {
		return fmt.Errorf("docker logs gave %d bytes", n)
	}
	b.table.add("docker logs of all of it, MB/s", e.name, float64(n)/1e6/time.Since(began).Seconds(), more)
	began = time.Now()
	tail, err := e.do("logs", "--tail", "10", name(0))
	if err != nil {
		return err
	}
	if strings.Count(tail, "\n") != 9 {
		return fmt.Errorf("docker logs --tail 10 gave %q", tail)
	}
	b.table.add("docker logs --tail 10 of it, ms", e.name, milliseconds(time.Since(began)), less)
	return nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
