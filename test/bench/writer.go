package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// noted is what a writer leaves when it has written everything.
type noted struct {
	Ended     time.Time
	Processor time.Duration // of its own, from the go-ahead on
}

// used is the processor time of this process.
func used() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// last is the last line that a writer writes.
const last = "that was all"

// write writes lines to standard output, once it is told to.
func write(args []string) error {
	f := flag.NewFlagSet("write", flag.ExitOnError)
	total := f.Int64("bytes", 1<<20, "how many")
	line := f.Int("line", 100, "bytes of a line")
	chunk := f.Int("chunk", 4096, "bytes of a write(2)")
	ahead := f.String("go", "", "FIFO: the first byte from it is the go-ahead, its end lets the writer end")
	note := f.String("note", "", "where to leave how it went")
	if err := f.Parse(args); err != nil {
		return err
	}
	// As many whole lines as a write takes, at least one.
	text := append(bytes.Repeat([]byte("x"), *line-1), '\n')
	text = bytes.Repeat(text, max(1, *chunk / *line))
	wait, err := os.Open(*ahead)
	if err != nil {
		return err
	}
	defer wait.Close()
	if _, err := wait.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("no go-ahead: %w", err)
	}
	before, err := used()
	if err != nil {
		return err
	}
	for left := *total; left > 0; left -= int64(len(text)) {
		if _, err := os.Stdout.Write(text); err != nil {
			return err
		}
	}
	if _, err := os.Stdout.WriteString(last + "\n"); err != nil {
		return err
	}
	ended := time.Now()
	after, err := used()
	if err != nil {
		return err
	}
	if *note != "" {
		b, err := json.Marshal(noted{Ended: ended, Processor: after - before})
		if err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile(*note+".new", b, 0o644), os.Rename(*note+".new", *note)); err != nil {
			return err
		}
	}
	_, err = io.Copy(io.Discard, wait) // an end is not to be measured with what was written
	return err
}

// aheadFIFO makes the FIFO of a writer's -go.
func aheadFIFO(path string) error {
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	return nil
}

// awaitWriter returns the other end of that FIFO when the writer has opened it: it is ready to begin.
func awaitWriter(ctx context.Context, path string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, writerStart)
	defer cancel()
	for {
		f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if !errors.Is(err, unix.ENXIO) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the writer does not come: %w", context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// writerStart bounds how long a container may take to start.
const writerStart = time.Minute

// spliceLoop is the least that can be done with output: from a pipe to a file,
// by splice(2). Its arguments are the file, and those of write. It prints how
// long it took from the go-ahead on and the processor time of the loop alone, in seconds.
func spliceLoop(ctx context.Context, args []string) (err error) {
	if len(args) == 0 {
		return errors.New("splice: into which file?")
	}
	file, err := os.Create(args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(args[0])) }()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 1<<20); err != nil {
		return err
	}
	ahead := args[0] + ".go"
	if err := aheadFIFO(ahead); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(ahead)) }()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"write", "-go", ahead}, args[1:]...)...)
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = w.Close()
	goAhead, err := awaitWriter(ctx, ahead)
	if err != nil {
		return err
	}
	before, err := used()
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := goAhead.Write([]byte{1}); err != nil {
		return err
	}
	if err := goAhead.Close(); err != nil {
		return err
	}
	from, to := int(r.Fd()), int(file.Fd())
	for off := int64(0); ; {
		n, err := unix.Splice(from, nil, to, &off, 1<<20, unix.SPLICE_F_MOVE)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	took := time.Since(began)
	after, err := used()
	if err != nil {
		return err
	}
	fmt.Println(took.Seconds(), (after - before).Seconds())
	return cmd.Wait()
}
