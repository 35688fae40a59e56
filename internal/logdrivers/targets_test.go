package logdrivers

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/logopts"
	"lrd/internal/output"
)

// TestJournalFields: the names are Docker's.
func TestJournalFields(t *testing.T) {
	c := newContainer(t, logopts.Journald, map[string]string{"tag": "{{.ImageName}}/{{.Name}}", "labels": "com.example.team", "env": "_MODE"})
	c.o.Info.ContainerLabels = map[string]string{"com.example.team": "core", "other": "x"}
	c.o.Info.ContainerEnv = []string{"_MODE=test", "SECRET=x"}
	stop := startJournal(t, c.dir)
	c.start()
	c.write("hello\n" + strings.Repeat("x", pieceSize) + "end\n")
	c.wait()
	stop()
	all, err := told(c.dir)
	assert.NilError(t, err)
	assert.Equal(t, len(all), 3)
	stamp, err := time.Parse(time.RFC3339Nano, all[0][fieldTimestamp])
	assert.NilError(t, err)
	assert.Assert(t, time.Since(stamp) < time.Minute)
	want := map[string]string{
		"MESSAGE": "hello", "PRIORITY": "6", "CONTAINER_ID": testID[:12], "CONTAINER_ID_FULL": testID, "CONTAINER_NAME": "web",
		"CONTAINER_TAG": "busybox/web", "SYSLOG_IDENTIFIER": "busybox/web", "IMAGE_NAME": "busybox",
		"COM_EXAMPLE_TEAM": "core", "MODE": "test",
		fieldEpoch: epochOf(testID), fieldOrdinal: "1", fieldTimestamp: all[0][fieldTimestamp],
	}
	assert.DeepEqual(t, all[0], want)
	assert.Equal(t, all[1][fieldPartial]+all[1][fieldPiece]+all[1][fieldLastPiece], "true1false")
	assert.Equal(t, all[2][fieldPartial]+all[2][fieldPiece]+all[2][fieldLastPiece], "2true")
	assert.Equal(t, all[1][fieldPieceOf], all[2][fieldPieceOf])
	assert.Equal(t, len(all[1][fieldPieceOf]), 64)
}

// TestJournalBinary: a message with a newline in a field, as the native protocol wants it.
func TestJournalBinary(t *testing.T) {
	assert.Equal(t, string(appendField(nil, "A", []byte("b\nc"))), "A\n\x03\x00\x00\x00\x00\x00\x00\x00b\nc\n")
	assert.Equal(t, fieldName("_com.example-1 ä"), "COM_EXAMPLE_1__")
}

// TestJournalAskedAgain: an answer that may not be all is not believed at once, and believed when it stays.
func TestJournalAskedAgain(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answers []int64 // below 0: journalctl has left something out
		have    int64
		asked   int
	}{
		{"all that was given", []int64{100}, 100, 1},
		{"more than was on record", []int64{182}, 182, 1},
		{"nothing, for a moment", []int64{0, 182}, 182, 2},
		{"less, for a moment", []int64{7, 99, 182}, 182, 3},
		{"a file was left out, for a moment", []int64{-150, 182}, 182, 2},
		{"the journal was emptied", []int64{0, 0, 0, 0, 0}, 100, 5},
		{"a file is spoiled", []int64{-182, -182, -182, -182, -182}, 182, 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked := 0
			access := newJournalAccess()
			access.sync = func(context.Context) error { return nil }
			access.last = func(context.Context, string, string) (int64, bool, error) {
				n := tc.answers[asked]
				asked++
				return max(n, -n), n >= 0, nil
			}
			j := &journal{access: &access}
			assert.NilError(t, j.resume(t.Context(), 100, nil, true))
			assert.Equal(t, j.have, tc.have)
			assert.Equal(t, asked, tc.asked)
		})
	}
}

// TestSyslogGoneAndBack: a server that goes away holds nobody up, and misses nothing.
func TestSyslogGoneAndBack(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := filepath.Join(t.TempDir(), "syslog")
			if network == "tcp" {
				address = "127.0.0.1:0"
			}
			l, err := net.Listen(network, address)
			assert.NilError(t, err)
			address = l.Addr().String()
			c := newContainer(t, logopts.Syslog, map[string]string{"syslog-address": network + "://" + address, "syslog-facility": "local3", "tag": "web"})
			c.start()
			serve := func(l net.Listener, lines chan<- string, last string) {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close() // nothing was written
				for in := bufio.NewScanner(conn); in.Scan(); {
					lines <- in.Text()
					if strings.HasSuffix(in.Text(), last) {
						return
					}
				}
			}
			first := make(chan string, 100)
			go serve(l, first, "go away")
			c.write("line 0\nline 1\n")
			c.wait()
			c.write("go away\n")
			for line := range first {
				if strings.HasSuffix(line, "go away") {
					break
				}
				assert.Assert(t, is.Contains(line, fmt.Sprintf(" web[%d]: line ", os.Getpid())))
				assert.Assert(t, strings.HasPrefix(line, fmt.Sprintf("<%d>", 19<<3|6)))
			}
			assert.NilError(t, l.Close())
			for n := range 100 { // nobody listens, and the container writes on
				c.write(fmt.Sprintf("line %d\n", n+2))
			}
			l, err = net.Listen(network, address)
			assert.NilError(t, err)
			defer l.Close() // nothing was written
			second := make(chan string, 2000)
			go serve(l, second, "line 101")
			c.wait()
			c.f.Stop()
			seen := map[string]bool{}
			for !seen["line 101"] {
				line := <-second
				seen[line[strings.Index(line, ": ")+2:]] = true
			}
			for n := range 100 {
				assert.Assert(t, seen[fmt.Sprintf("line %d", n+2)], "line %d", n+2)
			}
		})
	}
}

// TestTargetAwayTooLong: rotation waits for a target that is away up to a bound (package output). The target is told what it has missed.
func TestTargetAwayTooLong(t *testing.T) {
	address := filepath.Join(t.TempDir(), "syslog")
	opts := map[string]string{"syslog-address": "unix://" + address}
	c := newContainerIn(t, t.TempDir(), logopts.Syslog, opts, output.Options{MaxSize: 1 << 20, MaxFiles: 2})
	c.start()
	const blocks = 100
	filler := strings.Repeat(strings.Repeat("x", 9999)+"\n", 100)
	for n := range blocks {
		c.write(fmt.Sprintf("block %d\n%s", n, filler))
	}
	l, err := net.Listen("unix", address)
	assert.NilError(t, err)
	defer l.Close() // nothing was written
	read := make(chan []string, 1)
	go func() {
		var got []string
		defer func() { read <- got }()
		conn, err := l.Accept()
		if !assert.Check(t, err) {
			return
		}
		for in := bufio.NewScanner(conn); in.Scan(); {
			if _, text, _ := strings.Cut(in.Text(), "]: "); !strings.HasPrefix(text, "x") {
				got = append(got, text)
			}
		}
	}()
	c.wait()
	c.f.Stop()
	got := <-read
	assert.Equal(t, got[len(got)-1], fmt.Sprintf("block %d", blocks-1))
	notices := 0
	for _, text := range got {
		if strings.HasPrefix(text, "lrd: ") {
			assert.Assert(t, is.Contains(text, "removed by rotation before being read here"))
			notices++
		}
	}
	assert.Equal(t, notices, 1)
	assert.Assert(t, len(got) < blocks, "%d blocks of %d", len(got)-1, blocks)
}

// TestFluentd: the fields are Docker's, and a server that goes away misses nothing.
func TestFluentd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	address := l.Addr().String()
	c := newContainer(t, logopts.FluentdDriver, map[string]string{"fluentd-address": address, "tag": "web.{{.ID}}", "labels": "team"})
	c.o.Info.ContainerLabels = map[string]string{"team": "core"}
	first := make(chan []any, 10)
	go serveFluentd(t, l, first, 3) // and no answer to the third
	c.start()
	c.write("line 0\n" + strings.Repeat("x", pieceSize+1) + "\nline 2\n")
	entry := <-first
	assert.Equal(t, entry[0], "web."+testID[:12])
	assert.DeepEqual(t, entry[2], map[string]any{"container_id": testID, "container_name": "/web", "source": "stdout", "log": "line 0", "team": "core"})
	piece := (<-first)[2].(map[string]any)
	assert.Equal(t, piece["partial_message"], "true")
	assert.Equal(t, piece["partial_ordinal"], "1")
	assert.Equal(t, piece["partial_last"], "false")
	assert.NilError(t, l.Close())
	for n := range 300 {
		c.write(fmt.Sprintf("line %d\n", n+3))
	}
	l, err = net.Listen("tcp", address)
	assert.NilError(t, err)
	defer l.Close() // nothing was written
	second := make(chan []any, 1000)
	go serveFluentd(t, l, second, -1)
	c.wait()
	c.f.Stop()
	close(second)
	seen := map[string]int{}
	for entry := range second {
		seen[entry[2].(map[string]any)["log"].(string)]++
	}
	assert.Equal(t, seen["x"], 1, "the piece that was not confirmed")
	for n := range 301 {
		assert.Equal(t, seen[fmt.Sprintf("line %d", n+2)], 1)
	}
}

// serveFluentd takes entries from one connection and confirms them, until the one numbered deaf.
func serveFluentd(t *testing.T, l net.Listener, to chan<- []any, deaf int) {
	conn, err := l.Accept()
	if !assert.Check(t, err) {
		return
	}
	defer conn.Close() // what was written was read
	in := msgp.NewReader(conn)
	for n := 1; n != deaf; n++ {
		v, err := in.ReadIntf()
		if err != nil {
			return
		}
		entry := v.([]any)
		to <- entry
		ack := msgp.AppendMapStrStr(nil, map[string]string{"ack": entry[3].(map[string]any)["chunk"].(string)})
		if _, err := conn.Write(ack); err != nil {
			return
		}
	}
}

func TestSyslogFormats(t *testing.T) {
	host, err := os.Hostname()
	assert.NilError(t, err)
	at := time.Date(2026, 11, 2, 7, 4, 5, 123456789, time.UTC)
	pid := os.Getpid()
	for _, c := range []struct {
		name string
		tls  bool
		want string
	}{
		{name: "", want: fmt.Sprintf("<30>Nov  2 07:04:05 web[%d]: hello\n", pid)},
		{name: "rfc3164", want: fmt.Sprintf("<30>Nov  2 07:04:05 %s web[%d]: hello\n", host, pid)},
		{name: "rfc5424", want: fmt.Sprintf("<30>1 2026-11-02T07:04:05Z %s web %d web - hello\n", host, pid)},
		{name: "rfc5424micro", want: fmt.Sprintf("<30>1 2026-11-02T07:04:05.123456Z %s web %d web - hello\n", host, pid)},
	} {
		f := newSyslogFormat(c.name, "web", false)
		assert.Check(t, is.Equal(string(f.append(nil, 30, at, []byte("hello"))), c.want))
		f = newSyslogFormat(c.name, "web", true)
		if strings.HasPrefix(c.name, "rfc5424") {
			c.want = fmt.Sprintf("%d %s", len(c.want), c.want)
		}
		assert.Check(t, is.Equal(string(f.append([]byte("before"), 30, at, []byte("hello"))), "before"+c.want))
	}
}

// TestNoForwarder: the drivers that forward nothing have a Forwarder that does nothing.
func TestNoForwarder(t *testing.T) {
	for _, driver := range []string{logopts.Local, logopts.None} {
		c := newContainer(t, driver, nil)
		c.start()
		c.wait()
		c.f.Stop()
	}
}

// BenchmarkJSONFile is what the driver takes per byte of the container's, but for write(2).
func BenchmarkJSONFile(b *testing.B) {
	for _, length := range []int{20, 100, 1024} {
		b.Run(fmt.Sprint("line", length), func(b *testing.B) { benchmarkJSONFile(b, length) })
	}
}

func benchmarkJSONFile(b *testing.B, length int) {
	j, err := newJSONFile(filepath.Join(b.TempDir(), "log"), testOptions(logopts.JSONFile, b.TempDir(), nil))
	if err == nil {
		err = j.open()
	}
	if err != nil {
		b.Fatal(err)
	}
	defer j.close() // it goes with the directory
	data := []byte(strings.Repeat(strings.Repeat("x", length-1)+"\n", 64<<10/length))
	s := splitter{stream: output.Stdout}
	b.SetBytes(int64(len(data)))
	at := time.Now()
	before := processor(b)
	for b.Loop() {
		var e entry
		for done := 0; done < len(data); {
			n, _ := s.next(data[done:], at, &e)
			done += n
			if err := j.add(b.Context(), &e); err != nil {
				b.Fatal(err)
			}
		}
		if j.size() >= batchSize {
			j.buf = j.buf[:0]
		}
	}
	b.ReportMetric((processor(b)-before).Seconds()/float64(b.N*len(data))*(1<<30), "cpu-s/GiB")
}

// processor is how much processor time this process has used.
func processor(b *testing.B) time.Duration {
	var u unix.Rusage
	assert.NilError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
