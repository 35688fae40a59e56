package logdrivers

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lrd/internal/logopts"
	"lrd/internal/output"
)

// BenchmarkForward is a container that writes lines of 100 bytes flat out, in writes of 64 KiB: how fast it gets rid of
// them, without a forwarder and with one, and how long the forwarder takes to have them all.
//
//	go test ./internal/logdrivers -run '^$' -bench Forward
func BenchmarkForward(b *testing.B) {
	const total = 512 << 20
	for _, driver := range []string{logopts.Local, logopts.JSONFile} {
		b.Run(driver, func(b *testing.B) {
			for b.Loop() {
				dir := b.TempDir()
				o, err := logopts.Store(driver, nil)
				if err != nil {
					b.Fatal(err)
				}
				log, err := output.Open(filepath.Join(dir, "output"), o)
				if err != nil {
					b.Fatal(err)
				}
				f, err := New().Start(log, testOptions(driver, dir, nil))
				if err != nil {
					b.Fatal(err)
				}
				w := benchFIFO(b, dir, log)
				block := bytes.Repeat(append(bytes.Repeat([]byte("x"), 99), '\n'), 655)
				begin := time.Now()
				for n := 0; n < total; n += len(block) {
					for left := block; len(left) > 0; {
						n, err := unix.Write(w, left)
						if err != nil && err != unix.EINTR {
							b.Fatal(err)
						}
						left = left[max(n, 0):]
					}
				}
				written := time.Since(begin)
				if err := log.EndRun(context.Background()); err != nil {
					b.Fatal(err)
				}
				if err := f.Wait(context.Background()); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(total/1e6/written.Seconds(), "MB/s-container")
				b.ReportMetric(total/1e6/time.Since(begin).Seconds(), "MB/s-delivered")
				f.Stop()
				_ = unix.Close(w)
				if err := log.Close(); err != nil {
					b.Fatal(err)
				}
				_ = os.RemoveAll(dir)
			}
		})
	}
}

// benchFIFO has a FIFO of 1 MiB drained, and returns its end for writing. An os.File's would be in the runtime's poller,
// which a container's is not.
func benchFIFO(b *testing.B, dir string, log *output.Log) int {
	path := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		b.Fatal(err)
	}
	r, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := output.SetPipeSize(r, output.DefaultPipeSize()); err != nil {
		b.Log(err)
	}
	if err := log.Drain(output.Stdout, r, output.FIFO); err != nil {
		b.Fatal(err)
	}
	w, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	return w
}
