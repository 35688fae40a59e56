package logdrivers

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/logopts"
	"lrd/internal/output"
)

// TestJSONLine: what Docker's driver writes, byte by byte.
func TestJSONLine(t *testing.T) {
	at := time.Date(2026, 11, 22, 17, 4, 5, 120000000, time.FixedZone("east", 3600))
	for _, c := range []struct {
		line   string
		more   bool
		stream output.Stream
		attrs  string
		want   string
	}{
		{line: "hello", stream: output.Stdout, want: `{"log":"hello\n","stream":"stdout","time":"2026-11-22T16:04:05.12Z"}`},
		{line: "", stream: output.Stderr, want: `{"log":"\n","stream":"stderr","time":"2026-11-22T16:04:05.12Z"}`},
		{line: "half", more: true, stream: output.Stderr, want: `{"log":"half","stream":"stderr","time":"2026-11-22T16:04:05.12Z"}`},
		{
			line: "x", stream: output.Stdout, attrs: `{"env":"a\u0026b","tag":"web"}`,
			want: `{"log":"x\n","stream":"stdout","attrs":{"env":"a\u0026b","tag":"web"},"time":"2026-11-22T16:04:05.12Z"}`,
		},
		{
			line: "\"quoted\" \\ <b>&amp;</b>\ttab\rreturn\x00\x1b[1m\x7f", stream: output.Stdout,
			want: `{"log":"\"quoted\" \\ \u003cb\u003e\u0026amp;\u003c/b\u003e\u0009tab\rreturn\u0000\u001b[1m` + "\x7f" + `\n","stream":"stdout","time":"2026-11-22T16:04:05.12Z"}`,
		},
		{
			line: "ä 漢 😀 \u2028\u2029 \xff\xc3( \xef\xbf\xbd", stream: output.Stdout,
			want: `{"log":"ä 漢 😀 \u2028\u2029 \ufffd\ufffd( ` + "\uFFFD" + `\n","stream":"stdout","time":"2026-11-22T16:04:05.12Z"}`,
		},
	} {
		e := entry{stream: c.stream, time: at, line: []byte(c.line), more: c.more}
		assert.Check(t, is.Equal(string(newJSONEncoder([]byte(c.attrs)).append(nil, &e)), c.want+"\n"))
	}
}

// FuzzEscape compares with the standard library, which escapes as Docker does but for three characters.
func FuzzEscape(f *testing.F) {
	f.Add([]byte("plain"))
	f.Add([]byte("\x00\x08\x0c\xff\u2028<>"))
	for c := range 256 { // at each place of the eight that are looked at together, before and behind others
		f.Add([]byte(strings.Repeat("plain and "+string([]byte{byte(c)}), 9) + strings.Repeat(string([]byte{byte(c)}), 9)))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		want, err := json.Marshal(string(s))
		assert.NilError(t, err)
		for short, long := range map[string]string{`\b`: `\u0008`, `\t`: `\u0009`, `\f`: `\u000c`} {
			// An escaped backslash in front is not the beginning of an escape.
			parts := strings.Split(string(want), `\\`)
			for i := range parts {
				parts[i] = strings.ReplaceAll(parts[i], short, long)
			}
			want = []byte(strings.Join(parts, `\\`))
		}
		assert.Equal(t, `"`+string(appendEscaped(nil, s))+`"`, string(want))
	})
}

// TestPieces: Docker cuts lines at 16 KiB, and a line of exactly that much has an empty last piece.
func TestPieces(t *testing.T) {
	c := newContainer(t, logopts.JSONFile, nil)
	c.start()
	assert.NilError(t, c.log.BeginRun())
	long := func(n int) string { return strings.Repeat("x", n) }
	c.write("a\n" + long(pieceSize-1) + "\n" + long(pieceSize) + "\n")
	c.write(long(pieceSize + 1))
	c.write("\n\nrest")
	assert.NilError(t, c.log.EndRun(t.Context()))
	assert.NilError(t, c.log.BeginRun())
	c.write("of another run\n")
	c.wait()
	var got []string
	for line := range strings.Lines(readFile(t, LogPath(logopts.JSONFile, c.dir, testID))) {
		var e struct {
			Log  string
			Time time.Time
		}
		assert.NilError(t, json.Unmarshal([]byte(line), &e))
		got = append(got, strings.ReplaceAll(e.Log, long(100), ""))
	}
	assert.DeepEqual(t, got, []string{
		"a\n", long((pieceSize-1)%100) + "\n",
		long(pieceSize % 100), "\n",
		long(pieceSize % 100), "x\n", "\n", "rest", "of another run\n",
	})
	assert.DeepEqual(t, c.drivers.Forwarded(), map[string]int64{logopts.JSONFile: c.stored()})
}

// TestTurnOver: the names, the sizes and the number of files are those of Docker.
func TestTurnOver(t *testing.T) {
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprint(compress), func(t *testing.T) {
			c := newContainer(t, logopts.JSONFile, map[string]string{"max-size": "1k", "max-file": "3", "compress": fmt.Sprint(compress)})
			c.start()
			for n := range 60 {
				c.write(fmt.Sprintf("line %d\n", n))
			}
			c.wait()
			c.f.Stop()
			path := LogPath(logopts.JSONFile, c.dir, testID)
			names, err := filepath.Glob(path + "*")
			assert.NilError(t, err)
			ext := ""
			if compress {
				ext = ".gz"
			}
			assert.DeepEqual(t, names, []string{path, path + ".1" + ext, path + ".2" + ext})
			var all string
			for _, name := range []string{path + ".2" + ext, path + ".1" + ext, path} {
				text := readFile(t, name)
				assert.Assert(t, len(text) < 1000+100, "%s has %d bytes", name, len(text))
				assert.Assert(t, name == path || len(text) >= 1000, "%s has %d bytes", name, len(text))
				all += text
			}
			assert.Assert(t, is.Contains(all, `"line 59\n"`))
			assert.Equal(t, strings.Count(all, "\n"), 60-first(t, all))
		})
	}
	t.Run("one file", func(t *testing.T) {
		c := newContainer(t, logopts.JSONFile, map[string]string{"max-size": "1k"})
		c.start()
		for n := range 60 {
			c.write(fmt.Sprintf("line %d\n", n))
		}
		c.wait()
		names, err := filepath.Glob(c.dir + "/*.log*")
		assert.NilError(t, err)
		assert.Equal(t, len(names), 1)
		text := readFile(t, names[0])
		assert.Assert(t, len(text) < 1100)
		assert.Assert(t, is.Contains(text, `"line 59\n"`))
	})
}

// first is the number of the first line.
func first(t *testing.T, text string) (n int) {
	t.Helper()
	_, err := fmt.Sscanf(text[strings.Index(text, "line "):], "line %d", &n)
	assert.NilError(t, err)
	return n
}

// TestFileChangedByOthers: a log shipper or a person has done something to the file; lrd adds to what is there.
func TestFileChangedByOthers(t *testing.T) {
	c := newContainer(t, logopts.JSONFile, nil)
	path := LogPath(logopts.JSONFile, c.dir, testID)
	c.start()
	c.write("one\n")
	c.wait()
	assert.NilError(t, os.Truncate(path, 0)) // logrotate's copytruncate
	c.write("two\n")
	c.wait()
	c.f.Stop()
	assert.Equal(t, strings.Count(readFile(t, path), "\n"), 1)

	assert.NilError(t, os.WriteFile(path, []byte("somebody was here\n"), 0o600))
	c.write("three\n")
	c.start()
	c.wait()
	c.f.Stop()
	text := readFile(t, path)
	assert.Assert(t, strings.HasPrefix(text, "somebody was here\n"), text)
	assert.Assert(t, is.Contains(text, `"three\n"`))
	assert.Assert(t, !strings.Contains(text, `"two\n"`), text)

	assert.NilError(t, os.Remove(path))
	c.write("four\n")
	c.start()
	c.wait()
	assert.Assert(t, is.Contains(readFile(t, path), `"four\n"`))
}

// TestFullDisk: the container writes on while the disk with its log file is full, and each line is there once when there is room again.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("lrd-test", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("needs root, to mount a small file system: ", err)
	}
	t.Cleanup(func() { assert.NilError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	c := newContainerIn(t, dir, logopts.JSONFile, nil, output.Options{})
	c.start()
	c.write("line 0\n")
	c.wait()
	for n := range 99 {
		c.write(fmt.Sprintf("line %d\n%s\n", n+1, strings.Repeat("x", 10_000)))
	}
	path := LogPath(logopts.JSONFile, dir, testID)
	for deadline := time.Now().Add(time.Minute); len(readFile(t, path)) < 100_000; time.Sleep(time.Millisecond) {
		assert.Assert(t, time.Now().Before(deadline), "the disk is never full")
	}
	assert.NilError(t, unix.Mount("lrd-test", dir, "tmpfs", unix.MS_REMOUNT, "size=16m"))
	c.wait()
	text := readFile(t, path)
	for n := range 100 {
		assert.Equal(t, strings.Count(text, fmt.Sprintf(`{"log":"line %d\n"`, n)), 1)
	}
	assert.Equal(t, strings.Count(text, "\n"), 199)
}

// TestStateTorn: with the last writing of the state cut short, the one before counts.
func TestStateTorn(t *testing.T) {
	c := newContainer(t, logopts.JSONFile, nil)
	c.start()
	for n := range 5 {
		c.write(fmt.Sprintf("line %d\nand half of", n))
		c.wait()
	}
	c.f.Stop()
	path := filepath.Join(c.dir, stateName)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	assert.NilError(t, err)
	sf := &stateFile{f: f}
	_, err = sf.load()
	assert.NilError(t, err)
	_, err = f.WriteAt([]byte("rubbish"), int64(sf.number%2)*slotSize+slotHeader+10)
	assert.NilError(t, err)
	assert.NilError(t, f.Close())
	c.start()
	c.write("the last\n")
	c.wait()
	var got []string
	for line := range strings.Lines(readFile(t, LogPath(logopts.JSONFile, c.dir, testID))) {
		var e struct{ Log string }
		assert.NilError(t, json.Unmarshal([]byte(line), &e))
		got = append(got, e.Log)
	}
	assert.DeepEqual(t, got, []string{"line 0\n", "and half ofline 1\n", "and half ofline 2\n", "and half ofline 3\n", "and half ofline 4\n", "and half ofthe last\n"})
}

// TestBehind: only a forwarder that has something to do is started for a container that does not run.
func TestBehind(t *testing.T) {
	c := newContainer(t, logopts.JSONFile, nil)
	behind := func() bool {
		b, err := Behind(c.dir)
		assert.NilError(t, err)
		return b
	}
	assert.Assert(t, !behind())
	c.start()
	assert.NilError(t, c.log.BeginRun())
	c.write("line\n")
	c.wait()
	assert.Assert(t, behind())
	assert.NilError(t, c.log.EndRun(t.Context()))
	c.wait()
	for deadline := time.Now().Add(time.Minute); behind(); time.Sleep(time.Millisecond) {
		assert.Assert(t, time.Now().Before(deadline), "it is never done")
	}
}
