package output

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// BenchmarkDrain carries bytes from a writer's write(2) to the store. cpu-s/GiB
// is of the whole process: writer, kernel and drain.
func BenchmarkDrain(b *testing.B) {
	for _, bc := range []struct {
		name string
		size int
	}{{"line100", 100}, {"64KiB", 64 << 10}} {
		b.Run(bc.name, func(b *testing.B) {
			l := open(b, b.TempDir())
			pipe := fifo(b, 1)[0]
			_, err := SetPipeSize(pipe, DefaultPipeSize())
			assert.NilError(b, err)
			// As a container has it: an os.File's would be in the runtime's poller, which costs more than the drain.
			w, err := unix.Open(pipe.Name(), unix.O_WRONLY|unix.O_CLOEXEC, 0)
			assert.NilError(b, err)
			defer unix.Close(w)
			assert.NilError(b, l.Drain(Stdout, pipe, FIFO))
			block := append(bytes.Repeat([]byte("x"), bc.size-1), '\n')
			b.SetBytes(int64(bc.size))
			b.ReportAllocs()
			before := cpu(b)
			b.ResetTimer()
			for n := range b.N {
				for left := block; len(left) > 0; {
					n, err := unix.Write(w, left)
					if err != nil && err != unix.EINTR {
						b.Fatal(err)
					}
					left = left[max(n, 0):]
				}
				if n%((1<<30)/bc.size) == 0 && n > 0 { // bounded on disk
					b.StopTimer()
					forget(b, l)
					b.StartTimer()
				}
			}
			assert.NilError(b, l.EndRun(b.Context()))
			b.StopTimer()
			total := float64(b.N) * float64(bc.size)
			b.ReportMetric((cpu(b)-before)/total*(1<<30), "cpu-s/GiB")
		})
	}
}

// forget gives the space of a stream back: the hole reads as zeros.
func forget(b *testing.B, l *Log) {
	st := l.stream(Stdout)
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.end > 0 {
		assert.NilError(b, unix.Fallocate(st.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, st.end))
	}
}

func cpu(b *testing.B) float64 {
	var u unix.Rusage
	assert.NilError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// big is a store of 256 MiB in lines of 100 bytes and records of 4000.
func big(b *testing.B) *Log {
	l := open(b, b.TempDir())
	line := append(bytes.Repeat([]byte("x"), 99), '\n')
	lot := string(bytes.Repeat(line, 40))
	for i := range 256 << 20 / len(lot) {
		put(b, l, kept[i%2], int64(i), lot)
	}
	return l
}

// BenchmarkTail reads the last lines of a big store.
func BenchmarkTail(b *testing.B) {
	l := big(b)
	for _, bc := range []struct {
		name string
		tail int
	}{{"10", 10}, {"1000", 1000}, {"100000", 100000}} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := l.Lines(LinesOptions{Stdout: true, Stderr: true, Tail: bc.tail})
				assert.NilError(b, err)
				n, err := count(r)
				if n != bc.tail || !errors.Is(err, io.EOF) {
					b.Fatal(n, err)
				}
			}
		})
	}
}

// BenchmarkRead reads all of a big store, raw and in lines.
func BenchmarkRead(b *testing.B) {
	l := big(b)
	b.Run("raw", func(b *testing.B) {
		b.SetBytes(256 << 20)
		for b.Loop() {
			r := l.Reader(Position{}).Until(l.End())
			for {
				if _, err := r.Next(b.Context()); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("lines", func(b *testing.B) {
		b.SetBytes(256 << 20)
		for b.Loop() {
			r, err := l.Lines(LinesOptions{Stdout: true, Stderr: true, Tail: -1})
			assert.NilError(b, err)
			_, err = count(r)
			assert.Equal(b, err, io.EOF)
		}
	})
}

// BenchmarkOpen opens a big store, as a daemon that starts does for each
// container.
func BenchmarkOpen(b *testing.B) {
	l := big(b)
	dir := l.dir
	assert.NilError(b, l.Close())
	for b.Loop() {
		l, err := Open(dir, Options{})
		assert.NilError(b, err)
		assert.NilError(b, l.Close())
	}
}
