package output

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// child is what the test binary does when a test starts it as the daemon. Its
// files are named by the environment, but for a console, which is descriptor 3.
func child(role string) int {
	dir := os.Getenv("LRD_OUTPUT_TEST_DIR")
	if err := daemon(role, dir); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// daemon drains until it is killed, or until its standard input ends.
func daemon(role, dir string) error {
	if role == "full" || role == "drop" {
		// The nearest thing to a full disk that needs no root: files cannot grow
		// past a limit, which the parent has lifted later.
		signal.Ignore(unix.SIGXFSZ)
		if err := limitFiles(fullLimit); err != nil {
			return err
		}
	}
	o := roleOptions(role)
	o.Log, o.RetryPause = slog.New(slog.NewTextHandler(os.Stdout, nil)), 20*time.Millisecond
	o.OnIncident = func(i Incident) { fmt.Printf("incident %s %s %d\n", i.Kind, i.Stream, i.Bytes) }
	l, err := Open(filepath.Join(dir, "log"), o)
	if err != nil {
		return err
	}
	console := os.NewFile(3, "console")
	switch role {
	case "drain", "full", "drop", "rotate", "remove":
		for _, s := range kept {
			f, err := openFIFO(filepath.Join(dir, s.String()))
			if err == nil {
				err = l.Drain(s, f, FIFO)
			}
			if err != nil {
				return err
			}
		}
	case "console":
		if err := unix.SetNonblock(3, true); err != nil {
			return err
		}
		if err := l.Drain(Stdout, console, Console); err != nil {
			return err
		}
	case "through":
		if err := unix.SetNonblock(3, true); err != nil {
			return err
		}
		via, err := openFIFO(filepath.Join(dir, "via"))
		if err != nil {
			return err
		}
		if err := l.DrainThrough(Stdout, console, via); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if err := limitFiles(unix.RLIM_INFINITY); err != nil {
			return err
		}
	}
	return l.Close()
}

// roleOptions are those of the store that a child opens.
func roleOptions(role string) Options {
	switch role {
	case "rotate":
		return Options{MaxSize: 64 << 10, Compress: true}
	case "remove":
		return Options{MaxSize: 64 << 10, MaxFiles: 4, Compress: true}
	case "drop":
		return Options{OnFull: OnFullDrop}
	default:
		return Options{}
	}
}

func mkfifo(path string) error { return unix.Mkfifo(path, 0o600) }

func limitFiles(n uint64) error {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &r); err != nil {
		return err
	}
	r.Cur = min(n, r.Max)
	return unix.Setrlimit(unix.RLIMIT_FSIZE, &r)
}

func openFIFO(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
}

// spawn starts the daemon.
func spawn(t *testing.T, role, dir string, files ...*os.File) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Scanner) {
	t.Helper()
	exe, err := os.Executable()
	assert.NilError(t, err)
	cmd = exec.Command(exe)
	cmd.Env = append(os.Environ(), "LRD_OUTPUT_TEST_ROLE="+role, "LRD_OUTPUT_TEST_DIR="+dir)
	cmd.ExtraFiles = files
	in, err = cmd.StdinPipe()
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
	out = bufio.NewScanner(stdout)
	return cmd, in, out
}

// killRounds starts the daemon and kills it with SIGKILL, again and again, at
// kills is how often a test kills: less with -short, more with LRD_SOAK=1.
func kills(rounds int) int {
	switch {
	case testing.Short():
		return rounds / 5
	case os.Getenv("LRD_SOAK") != "":
		return rounds * 10
	default:
		return rounds
	}
}

// random moments: some at once, before it is ready, most in full flow.
func killRounds(t *testing.T, rounds int, role, dir string, files ...*os.File) {
	t.Helper()
	for range rounds {
		cmd, _, out := spawn(t, role, dir, files...)
		if rand.IntN(5) > 0 {
			for out.Scan() && out.Text() != "ready" {
				assert.Assert(t, !bytes.HasPrefix(out.Bytes(), []byte("error:")), out.Text())
			}
		}
		time.Sleep(rand.N(10 * time.Millisecond))
		assert.NilError(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
}

// appendLine appends line n: the number, and so much that checking a lot of
// bytes does not take a lot of time.
func appendLine(b []byte, n int) []byte {
	b = strconv.AppendInt(append(b, "line "...), int64(n), 10)
	return append(append(b, padding[:n%len(padding)]...), '\n')
}

var padding = bytes.Repeat([]byte(" ."), 150)

// number writes numbered lines, flat out, in writes of varying size, until
// stop. It returns how many bytes it wrote; the last line is whole.
func number(w io.Writer, stop <-chan struct{}) (written int64, err error) {
	var b []byte
	for n := 0; ; {
		select {
		case <-stop:
			return written, nil
		default:
		}
		b = b[:0]
		for range 1 + rand.IntN(200) {
			b = appendLine(b, n)
			n++
		}
		for p := b; len(p) > 0; { // in pieces, so that lines are torn between writes
			k, err := w.Write(p[:min(len(p), 1+rand.IntN(4096))])
			written += int64(k)
			if err != nil {
				return written, err
			}
			p = p[k:]
		}
	}
}

// numbering has a goroutine number w until stop. finished waits for it and
// returns how many bytes it wrote.
func numbering(t *testing.T, w io.Writer, stop <-chan struct{}) (finished func() int64) {
	t.Helper()
	done := make(chan int64, 1)
	go func() {
		n, err := number(w, stop)
		assert.Check(t, err)
		done <- n
	}()
	return func() int64 { return <-done }
}

// verifyNumbered checks that r holds the numbered lines from 0 on, without a
// hole, a double or a tear, and returns how many bytes they are.
func verifyNumbered(t *testing.T, r io.Reader) (read int64) {
	t.Helper()
	br := bufio.NewReaderSize(r, 1<<16)
	var want []byte
	for n := 0; ; n++ {
		line, err := br.ReadSlice('\n')
		read += int64(len(line))
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return read
		}
		if err != nil {
			t.Fatalf("line %d: %q: %v", n, line, err)
		}
		if want = appendLine(want[:0], n); !bytes.Equal(line, want) {
			t.Fatalf("line %d reads %q", n, line)
		}
	}
}

// chunks reads one stream of a Reader as an io.Reader.
type chunks struct {
	t *testing.T
	r *Reader
	s Stream
	b []byte
}

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.b) == 0 {
		chunk, err := c.r.Next(c.t.Context())
		if err != nil {
			return 0, err
		}
		if chunk.Stream == c.s {
			c.b = chunk.Data
		}
	}
	n := copy(p, c.b)
	c.b = c.b[n:]
	return n, nil
}

// TestKill is the promise: two streams written flat out, the drain killed
// again and again, and the files are exact to the byte.
func TestKill(t *testing.T) {
	rounds := kills(60)
	dir := t.TempDir()
	stop := make(chan struct{})
	var finished [2]func() int64
	for i, s := range kept {
		path := filepath.Join(dir, s.String())
		assert.NilError(t, unix.Mkfifo(path, 0o600))
		// The test holds the pipes, as systemd's store does for the daemon.
		f, err := openFIFO(path)
		assert.NilError(t, err)
		defer f.Close()
		_, err = SetPipeSize(f, DefaultPipeSize())
		assert.NilError(t, err)
		finished[i] = numbering(t, f, stop)
	}
	killRounds(t, rounds, "drain", dir)
	close(stop)
	// The writers may be held back by full pipes. This drain is the last.
	l := open(t, filepath.Join(dir, "log"))
	assert.NilError(t, l.BeginRun())
	for _, s := range kept {
		f, err := openFIFO(filepath.Join(dir, s.String()))
		assert.NilError(t, err)
		assert.NilError(t, l.Drain(s, f, FIFO))
	}
	wrote := [2]int64{finished[0](), finished[1]()}
	assert.NilError(t, l.EndRun(t.Context()))

	for i, s := range kept {
		// Once by the index, once as it lies in the file.
		end := l.End()
		assert.Equal(t, verifyNumbered(t, &chunks{t: t, r: l.Reader(Position{}).Until(end), s: s}), wrote[i])
		_, err := l.streams[i].file.Seek(0, io.SeekStart)
		assert.NilError(t, err)
		assert.Equal(t, verifyNumbered(t, l.streams[i].file), wrote[i])
	}
	recovered := verifyIndex(t, l)
	t.Logf("%d kills, %d + %d MiB, %d records, %d of them recovered",
		rounds, wrote[0]>>20, wrote[1]>>20, l.state().count, recovered)
}

// verifyIndex checks that the records cover the data, each byte once, in
// order of time.
func verifyIndex(t *testing.T, l *Log) (recovered int) {
	t.Helper()
	st := l.state()
	v := view{l: l}
	defer v.close()
	c := cursor{v: &v}
	var at ends
	var last int64
	for n := range st.count {
		r, err := c.get(&st, n, false)
		assert.NilError(t, err)
		assert.Equal(t, r.at, at, "record %d", n)
		assert.Assert(t, r.time >= last, "record %d is older than the one before", n)
		at, last = r.after(), r.time
		if r.flags&flagRecovered != 0 {
			recovered++
		}
	}
	for i := range at {
		fi, err := l.streams[i].file.Stat()
		assert.NilError(t, err)
		assert.Equal(t, at[i], fi.Size())
	}
	return recovered
}

// rawPTY opens a pseudo terminal that passes bytes on as they are.
func rawPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Skip("no pseudo terminals here: ", err)
	}
	t.Cleanup(func() { _ = master.Close(); _ = slave.Close() })
	tio, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	assert.NilError(t, err)
	tio.Iflag, tio.Oflag, tio.Lflag = 0, 0, 0
	tio.Cflag = tio.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	assert.NilError(t, unix.IoctlSetTermios(int(slave.Fd()), unix.TCSETS, tio))
	return master, slave
}

// TestKillConsole does the same to a console, with a pipe between: exact too.
func TestKillConsole(t *testing.T) {
	rounds := kills(30)
	dir := t.TempDir()
	master, slave := rawPTY(t)
	assert.NilError(t, unix.Mkfifo(filepath.Join(dir, "via"), 0o600))
	via, err := openFIFO(filepath.Join(dir, "via"))
	assert.NilError(t, err)
	defer via.Close()

	stop := make(chan struct{})
	finished := numbering(t, slave, stop)
	killRounds(t, rounds, "through", dir, master)
	close(stop)

	l := open(t, filepath.Join(dir, "log"))
	last, err := openFIFO(filepath.Join(dir, "via"))
	assert.NilError(t, err)
	assert.NilError(t, l.DrainThrough(Stdout, dup(t, master), last))
	wrote := finished()
	assert.NilError(t, l.BeginRun())
	assert.NilError(t, l.EndRun(t.Context()))
	assert.Equal(t, verifyNumbered(t, &chunks{t: t, r: l.Reader(Position{}).Until(l.End()), s: Stdout}), wrote)
	t.Logf("%d kills, %d KiB, %d recovered", rounds, wrote>>10, verifyIndex(t, l))
}

// dup returns a non-blocking file for the same description, as lrd has it.
func dup(t *testing.T, f *os.File) *os.File {
	t.Helper()
	conn, err := f.SyscallConn()
	assert.NilError(t, err)
	var n int
	var failed error
	assert.NilError(t, conn.Control(func(fd uintptr) {
		if n, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); failed == nil {
			failed = unix.SetNonblock(n, true)
		}
	}))
	assert.NilError(t, failed)
	return os.NewFile(uintptr(n), f.Name())
}

// TestKillConsolePlain shows what Drain with Console promises: nothing doubled
// or torn, and at most one read lost with each SIGKILL.
func TestKillConsolePlain(t *testing.T) {
	rounds := kills(20)
	dir := t.TempDir()
	master, slave := rawPTY(t)
	stop := make(chan struct{})
	finished := numbering(t, slave, stop)
	killRounds(t, rounds, "console", dir, master)
	close(stop)
	l := open(t, filepath.Join(dir, "log"))
	assert.NilError(t, l.Drain(Stdout, dup(t, master), Console))
	wrote := finished()
	assert.NilError(t, l.EndRun(t.Context()))
	verifyIndex(t, l)
	lost := wrote - l.state().ends[0]
	assert.Assert(t, lost >= 0 && lost <= int64(rounds)*4096, "lost %d bytes", lost)
	t.Logf("%d kills, %d KiB, %d bytes lost", rounds, wrote>>10, lost)
}
