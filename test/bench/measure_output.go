package main

import (
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
	at    int // how many containers at once
	part  int // of the bytes: slow ones are given less
}

var shapes = []shape{
	{name: "100-byte lines, 4 KiB a write", line: 100, chunk: 4096, at: 1, part: 1},
	{name: "1 KiB lines, 64 KiB a write", line: 1024, chunk: 64 << 10, at: 1, part: 1},
	{name: "20-byte lines, 4 KiB a write", line: 20, chunk: 4096, at: 1, part: 4},
	{name: "100-byte lines, one a write", line: 100, chunk: 100, at: 1, part: 4},
	{name: "8 containers, 100-byte lines", line: 100, chunk: 4096, at: 8, part: 1},
}

func (s shape) args(bytes int64) []string {
	return []string{"-bytes", strconv.FormatInt(bytes/int64(s.part)/int64(s.at), 10), "-line", strconv.Itoa(s.line), "-chunk", strconv.Itoa(s.chunk)}
}

// output measures how output gets into logs, and out again.
func (b *bench) output() error {
	for i, s := range shapes {
		mib := float64(b.scale.Bytes) / float64(s.part) / (1 << 20)
		err := b.each(b.engines, func(e *engine) error {
			seconds, processor, err := b.written(e, s)
			if err != nil {
				return err
			}
			b.table.add("Output, MB/s: "+s.name, e.name, mib*1.048576/seconds, more)
			b.table.add("Processor seconds beside the container, per GiB: "+s.name, e.name, processor/mib*1024, less)
			if i == 0 {
				if err := b.readBack(e, mib); err != nil {
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
			out, err := b.lab.exec(append([]string{"/usr/local/bin/bench", "splice", "/var/lib/lrd/spliced"}, s.args(b.scale.Bytes)...)...)
			if err != nil {
				return err
			}
			var seconds, processor float64
			if _, err := fmt.Sscan(out, &seconds, &processor); err != nil {
				return err
			}
			b.table.add("Output, MB/s: "+s.name, bare, mib*1.048576/seconds, more)
			b.table.add("Processor seconds beside the container, per GiB: "+s.name, bare, processor/mib*1024, less)
		}
	}
	return nil
}

// bare is the splice loop, in the table.
const bare = "bare splice"

// written runs containers that write, and returns how many seconds passed from the first byte until the last is in
// the log, and the processor seconds of everything but the containers.
func (b *bench) written(e *engine, s shape) (seconds, processor float64, err error) {
	truth := filepath.Join(b.lab.root, "run/truth")
	if err := errors.Join(os.RemoveAll(truth), os.MkdirAll(truth, 0o755)); err != nil {
		return 0, 0, err
	}
	before, err := b.lab.processor()
	if err != nil {
		return 0, 0, err
	}
	for n := range s.at {
		args := append([]string{"run", "--detach", "--network", "none", "--name", name(n), "--volume", "/run/truth:/truth"}, e.log...)
		args = append(args, "bench", "/bin/bench", "write", "-note", "/truth/"+name(n))
		if _, err := e.do(append(args, s.args(b.scale.Bytes)...)...); err != nil {
			return 0, 0, err
		}
	}
	// What a client would do: wait, then look for the last line.
	for n := range s.at {
		if _, err := e.do("wait", name(n)); err != nil {
			return 0, 0, err
		}
		for {
			out, err := e.do("logs", "--tail", "1", name(n))
			if err != nil {
				return 0, 0, err
			}
			if out == last {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	ended := time.Now()
	after, err := b.lab.processor()
	if err != nil {
		return 0, 0, err
	}
	spent, began := after-before, ended
	for n := range s.at {
		var note noted
		text, err := os.ReadFile(filepath.Join(truth, name(n)))
		if err == nil {
			err = json.Unmarshal(text, &note)
		}
		if err != nil {
			return 0, 0, err
		}
		spent -= note.Processor
		if note.Began.Before(began) {
			began = note.Began
		}
	}
	return ended.Sub(began).Seconds(), spent.Seconds(), nil
}

func name(n int) string { return fmt.Sprint("writer-", n) }

// readBack reads a log of that many MiB.
func (b *bench) readBack(e *engine, mib float64) error {
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
	if float64(n) < mib*(1<<20) {
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
