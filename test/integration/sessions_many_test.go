//go:build integration

package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
	"gotest.tools/v3/assert"
)

// TestHundredSessions: a hundred clients of fifty containers, each of which says again what it is told. Nobody is lost,
// and nobody gets to see what is another's. Through the library: a hundred docker clients would be most of the work.
func TestHundredSessions(t *testing.T) {
	t.Parallel()
	l := boot(t)
	n := rounds(t, 50, 200)
	l.startMany("echo", n, "cat")
	c := l.client()
	type pair struct {
		name             string
		in               client.HijackedResponse
		attached, logged *lineReader
	}
	pairs := make([]*pair, n)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for i := range pairs {
		group.Go(func() error {
			p := &pair{name: fmt.Sprint("echo-", i+1)}
			pairs[i] = p
			a, err := c.ContainerAttach(ctx, p.name, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
			if err != nil {
				return err
			}
			// Of the test's context: the group's ends with the group.
			logs, err := c.ContainerLogs(t.Context(), p.name, client.ContainerLogsOptions{Follow: true, ShowStdout: true, ShowStderr: true})
			if err != nil {
				return err
			}
			p.in, p.attached, p.logged = a.HijackedResponse, readLines(a.Reader), readLines(logs)
			return nil
		})
	}
	assert.NilError(t, group.Wait())
	for round := range 5 {
		line := func(p *pair) string { return fmt.Sprintf("%s in round %d", p.name, round) }
		for _, p := range pairs {
			_, err := io.WriteString(p.in.Conn, line(p)[:5])
			assert.NilError(t, err)
		}
		if round%2 == 0 {
			l.restart()
		} else {
			l.kill9()
		}
		for _, p := range pairs {
			_, err := io.WriteString(p.in.Conn, line(p)[5:]+"\n")
			assert.NilError(t, err)
		}
		for _, p := range pairs {
			want := []string{line(p)}
			if round%2 != 0 { // what was being sent at a SIGKILL may be sent again
				want = append(want, line(p)[:5]+line(p))
			}
			p.attached.next(t, want...)
			p.logged.next(t, want...)
		}
	}
	for _, p := range pairs {
		assert.NilError(t, p.in.CloseWrite())
	}
	for _, p := range pairs {
		p.attached.end(t)
		p.logged.end(t)
		p.in.Close()
	}
	l.noSessions()
	l.removeMany()
	l.assertClean()
}

// lineReader reads the lines of a multiplexed stream.
type lineReader struct {
	lines chan string
	err   error // once lines is closed: nil is the end
}

func readLines(r io.Reader) *lineReader {
	lr := &lineReader{lines: make(chan string, 100)}
	in, out := io.Pipe()
	go func() { // ends with the stream
		_, err := stdcopy.StdCopy(out, out, r)
		_ = out.CloseWithError(err)
	}()
	go func() { // ends with the one above
		defer close(lr.lines)
		sc := bufio.NewScanner(in)
		for sc.Scan() {
			lr.lines <- sc.Text()
		}
		lr.err = sc.Err()
	}()
	return lr
}

// next checks the next line, which is one of these.
func (lr *lineReader) next(t *testing.T, want ...string) {
	t.Helper()
	select {
	case line, ok := <-lr.lines:
		if !ok {
			t.Fatalf("instead of %q the stream ends: %v", want, errors.Join(lr.err, io.EOF))
		}
		assert.Assert(t, slices.Contains(want, line), "%q instead of %q", line, want)
	case <-time.After(patience * time.Minute):
		t.Fatalf("%q does not come", want)
	}
}

// end checks that there is no more.
func (lr *lineReader) end(t *testing.T) {
	t.Helper()
	select {
	case line, ok := <-lr.lines:
		assert.Assert(t, !ok, "there is more: %q", line)
		assert.NilError(t, lr.err)
	case <-time.After(patience * time.Minute):
		t.Fatal("the stream does not end")
	}
}
