package handover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// shelf is a Keeper that keeps, and says what it was asked.
type shelf struct {
	mu    sync.Mutex // the detector of races does not know that a socket orders things
	asked []string
	held  Holding
	err   error
}

func (s *shelf) Hold(_ context.Context, h Holding) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, askHold)
	s.held.Files = append(s.held.Files, h.Files...)
	s.held.Logs = append(s.held.Logs, h.Logs...)
	s.held.Drain, s.held.Sessions = h.Drain, h.Sessions
	return s.err
}
func (s *shelf) Release(id string)           { _ = s.note(askRelease + " " + id) }
func (s *shelf) Begin(context.Context) error { return s.note(askBegin) }
func (s *shelf) Left()                       { _ = s.note("left") }
func (s *shelf) Taken(context.Context) error { return s.note(askTaken) }

func (s *shelf) Give(context.Context) ([]File, error) {
	err := s.note(askGive)
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.held.Files
	s.held.Files = nil
	return files, err
}

func (s *shelf) note(asked string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, asked)
	return s.err
}

// look is what was asked so far, and what is held.
func (s *shelf) look() ([]string, *Holding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked), &s.held
}

// serve has a Keeper answer at a socket of the test's. done says what became of one connection.
func serve(t *testing.T, k Keeper) (socket string, done chan error) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	assert.NilError(t, err)
	done = make(chan error, 10)
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				close(done)
				return
			}
			done <- Serve(t.Context(), c, k)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		for range done { //nolint:revive // until it is closed
		}
	})
	return socket, done
}

// holding is n Logs with two descriptors each, which are told apart by their inodes.
func holding(t *testing.T, n int) Holding {
	t.Helper()
	h := Holding{Drain: true, Sessions: "/run/sessions"}
	dir := t.TempDir()
	for i := range n {
		id := fmt.Sprintf("%064x", i)
		h.Logs = append(h.Logs, Log{ID: id, Dir: "/var/lib/lrd/containers/" + id + "/output"})
		for _, what := range []string{Stdout, Stderr} {
			f, err := os.Create(filepath.Join(dir, Name(id, what)))
			assert.NilError(t, err)
			t.Cleanup(func() { _ = f.Close() })
			h.Files = append(h.Files, File{Name: Name(id, what), File: f})
		}
	}
	return h
}

func TestThereAndBack(t *testing.T) {
	for _, n := range []int{0, 1, 300} {
		k := &shelf{}
		socket, done := serve(t, k)
		h := holding(t, n)
		left := false
		assert.NilError(t, Pass(t.Context(), socket, h, func(released func(string)) {
			left = true
			for _, l := range h.Logs {
				released(l.ID)
			}
		}))
		assert.NilError(t, <-done)
		assert.Assert(t, left)
		asked, held := k.look()
		assert.Equal(t, asked[len(asked)-1], askBegin)
		assert.DeepEqual(t, held.Logs, h.Logs)
		assert.Equal(t, held.Sessions, h.Sessions)
		assert.Assert(t, held.Drain)

		if n > 0 {
			k.mu.Lock()
			held.Files[n-1].New = true
			k.mu.Unlock()
		}
		var got []File
		assert.NilError(t, TakeBack(t.Context(), socket, func(files []File) error { got = files; return nil }))
		defer CloseFiles(got)
		assert.NilError(t, <-done)
		assert.Equal(t, len(got), 2*n)
		for i, f := range got {
			assert.Equal(t, f.Name, h.Files[i].Name)
			assert.Equal(t, f.New, i == n-1)
			here, err := f.File.Stat()
			assert.NilError(t, err)
			there, err := h.Files[i].File.Stat()
			assert.NilError(t, err)
			assert.Assert(t, os.SameFile(here, there), f.Name)
		}
		asked, _ = k.look()
		assert.Assert(t, !slices.Contains(asked, "left"))
	}
}

// TestGivenNotTaken: who goes away before taken has not taken, be it because it cannot keep what it was given.
func TestGivenNotTaken(t *testing.T) {
	k := &shelf{}
	socket, done := serve(t, k)
	full := errors.New("no room")
	err := TakeBack(t.Context(), socket, func(files []File) error { CloseFiles(files); return full })
	assert.ErrorIs(t, err, full)
	assert.NilError(t, <-done)
	asked, _ := k.look()
	assert.DeepEqual(t, asked, []string{askGive, "left"})
}

func TestRefusals(t *testing.T) {
	k := &shelf{err: errors.New("the store is full")}
	socket, _ := serve(t, k)
	err := Pass(t.Context(), socket, holding(t, 1), func(func(string)) { t.Error("left, though nothing was passed") })
	assert.ErrorIs(t, err, ErrNotPassed)
	assert.ErrorContains(t, err, "the store is full")
	err = TakeBack(t.Context(), socket, func([]File) error { t.Error("kept what was not given"); return nil })
	assert.ErrorContains(t, err, "the store is full")

	c, err := Dial(t.Context(), socket)
	assert.NilError(t, err)
	defer c.Close()
	assert.ErrorContains(t, c.Taken(t.Context()), "nothing was given")
	assert.ErrorContains(t, c.ask(t.Context(), packet{Ask: "dance"}, nil), `no question "dance"`)
	// Another version of lrd.
	_, err = c.conn.c.Write([]byte(`{"version":99,"ask":"give"}`))
	assert.NilError(t, err)
	p, _, err := c.conn.receive()
	assert.NilError(t, err)
	assert.Equal(t, p.Error, "it speaks another version of the protocol: 99, and not 1")
}

// TestDeaf: a standby that does not answer, and one that is not there, keep nobody waiting for longer than it wants to.
func TestDeaf(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Dial(ctx, filepath.Join(t.TempDir(), "nobody"))
	assert.ErrorContains(t, err, "cannot reach lrd-standby")

	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	assert.NilError(t, err)
	defer l.Close()
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	assert.ErrorIs(t, TakeBack(ctx, socket, nil), os.ErrDeadlineExceeded)
}

func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held.json")
	assert.Assert(t, !Held(path))
	assert.NilError(t, Revoke(path))
	assert.NilError(t, os.WriteFile(path, nil, 0o600))
	assert.Assert(t, Held(path))
	assert.NilError(t, Revoke(path))
	assert.Assert(t, !Held(path))
}
