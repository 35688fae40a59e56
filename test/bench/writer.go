package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// noted is what a writer leaves when it is done.
type noted struct {
	Began, Ended time.Time
	Processor    time.Duration
}

// used is the processor time of this process, or of the children that have ended.
func used(who int) (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// last is the last line that a writer writes.
const last = "that was all"

// write writes lines to standard output.
func write(args []string) error {
	f := flag.NewFlagSet("write", flag.ExitOnError)
	total := f.Int64("bytes", 1<<20, "how many")
	line := f.Int("line", 100, "bytes of a line")
	chunk := f.Int("chunk", 4096, "bytes of a write(2)")
	note := f.String("note", "", "where to leave how it went")
	if err := f.Parse(args); err != nil {
		return err
	}
	// As many whole lines as a write takes, at least one.
	text := append(bytes.Repeat([]byte("x"), *line-1), '\n')
	text = bytes.Repeat(text, max(1, *chunk / *line))
	began := time.Now()
	for left := *total; left > 0; left -= int64(len(text)) {
		if _, err := os.Stdout.Write(text); err != nil {
			return err
		}
	}
	if _, err := os.Stdout.WriteString(last + "\n"); err != nil {
		return err
	}
	if *note == "" {
		return nil
	}
	spent, err := used(unix.RUSAGE_SELF)
	if err != nil {
		return err
	}
	b, err := json.Marshal(noted{Began: began, Ended: time.Now(), Processor: spent})
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(*note+".new", b, 0o644), os.Rename(*note+".new", *note))
}

// spliceLoop is the least that can be done with output: from a pipe to a file,
// by splice(2). Its arguments are the file, and those of write. It prints how
// long it took and the processor time of the loop alone, in seconds.
func spliceLoop(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("splice: into which file?")
	}
	file, err := os.Create(args[0])
	if err != nil {
		return err
	}
	defer os.Remove(args[0])
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 1<<20); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"write"}, args[1:]...)...)
	cmd.Stdout = w
	before, err := used(unix.RUSAGE_SELF)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = w.Close()
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
	after, err := used(unix.RUSAGE_SELF)
	if err != nil {
		return err
	}
	fmt.Println(took.Seconds(), (after - before).Seconds())
	return cmd.Wait()
}
