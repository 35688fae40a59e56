package events

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/moby/api/types/events"
	"go.uber.org/goleak"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// crashDir, set in the environment, makes the test binary publish into that directory until somebody kills it.
const crashDir = "LRD_EVENTS_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		publishForEver(dir)
	}
	goleak.VerifyTestMain(m)
}

func publishForEver(dir string) {
	h, err := Open(dir, Options{})
	if err != nil {
		panic(err)
	}
	for i := 0; ; i++ {
		h.Publish(event(i, time.Unix(0, int64(i+1))))
		fmt.Println(i)
	}
}

func event(n int, at time.Time) events.Message {
	return events.Message{Type: events.ContainerEventType, Action: events.ActionDie, Actor: events.Actor{ID: fmt.Sprint(n)}, TimeNano: at.UnixNano()}
}

func open(t *testing.T, dir string, o Options) *Hub {
	t.Helper()
	h, err := Open(dir, o)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, h.Close()) })
	return h
}

// ids reads the whole subscription, which must have an end.
func ids(t *testing.T, s *Subscription) []string {
	t.Helper()
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := []string{}
	for {
		m, err := s.Next(ctx)
		if errors.Is(err, io.EOF) {
			return got
		}
		assert.NilError(t, err)
		got = append(got, m.Actor.ID)
	}
}

func TestSinceAndUntilAreExactInNanoseconds(t *testing.T) {
	h := open(t, t.TempDir(), Options{})
	base := time.Now().Add(-time.Hour)
	for i := range 5 {
		h.Publish(event(i, base.Add(time.Duration(i))))
	}
	for _, tc := range []struct {
		name         string
		since, until time.Time
		want         []string
	}{
		{"all", base, base.Add(time.Minute), []string{"0", "1", "2", "3", "4"}},
		{"both ends inclusive", base.Add(1), base.Add(3), []string{"1", "2", "3"}},
		{"one instant", base.Add(2), base.Add(2), []string{"2"}},
		{"only until", time.Time{}, base.Add(1), []string{"0", "1"}},
		{"nothing", base.Add(5), base.Add(6), []string{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			assert.DeepEqual(t, ids(t, h.Subscribe(tc.since, tc.until, nil)), tc.want)
		})
	}
}

func TestLateEventIsToldAtItsTrueTime(t *testing.T) {
	h := open(t, t.TempDir(), Options{})
	base := time.Now().Add(-time.Hour)
	live := h.Subscribe(time.Time{}, time.Time{}, nil)
	defer live.Close()
	tooOld := h.Subscribe(base.Add(time.Minute), time.Time{}, nil)
	defer tooOld.Close()

	h.Publish(event(1, base.Add(2*time.Minute)))
	h.Publish(event(2, base)) // told late

	for _, want := range []string{"1", "2"} {
		m, err := live.Next(t.Context())
		assert.NilError(t, err)
		assert.Equal(t, m.Actor.ID, want)
	}
	m, err := tooOld.Next(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, m.Actor.ID, "1")
	_, ok, err := tooOld.take()
	assert.Assert(t, !ok && err == nil, "an event before since was delivered")

	assert.DeepEqual(t, ids(t, h.Subscribe(base, base.Add(time.Hour-time.Second), nil)), []string{"2", "1"})
}

// TestPublishOnce: what an earlier process has told is not told again, and everything else is.
func TestPublishOnce(t *testing.T) {
	dir := t.TempDir()
	at := time.Now().Add(-time.Hour)
	exec := func(id string) events.Message {
		m := event(3, at)
		m.Actor.Attributes = map[string]string{"execID": id}
		return m
	}
	h, err := Open(dir, Options{})
	assert.NilError(t, err)
	h.Publish(event(1, at))
	h.PublishOnce(exec("a"))
	assert.NilError(t, h.Close())

	h = open(t, dir, Options{})
	live := h.Subscribe(time.Time{}, time.Time{}, nil)
	defer live.Close()
	for range 2 {
		h.PublishOnce(event(1, at))
		h.PublishOnce(event(1, at.Add(1)))
		h.PublishOnce(event(2, at))
		h.PublishOnce(exec("a"))
		h.PublishOnce(exec("b"))
	}
	h.PublishOnce(event(1, time.Now().Add(time.Minute)))
	assert.DeepEqual(t, ids(t, h.Subscribe(at, time.Now(), nil)), []string{"1", "3", "2", "3", "1"})
	var told []string
	for range 4 {
		m, err := live.Next(t.Context())
		assert.NilError(t, err)
		told = append(told, m.Actor.ID)
	}
	assert.DeepEqual(t, told, []string{"1", "2", "3", "1"})
}

func TestTimesAreCompletedAndAgree(t *testing.T) {
	assert.Equal(t, complete(events.Message{Time: 7}).TimeNano, int64(7e9))
	assert.Equal(t, complete(events.Message{Time: 7, TimeNano: 9e9}).Time, int64(9))
	now := complete(events.Message{})
	assert.Assert(t, time.Since(time.Unix(0, now.TimeNano)) < time.Minute)
	assert.Equal(t, now.Scope, "local")
}

func TestNoHoleAndNoDoubleBetweenHistoryAndLive(t *testing.T) {
	// A generation holds 1000: the history is rotated once meanwhile, and nothing of it is dropped.
	h := open(t, t.TempDir(), Options{MaxEvents: 2000})
	start := time.Now()
	const total = 1500
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range total {
			h.Publish(event(i, start.Add(time.Duration(i))))
		}
	})
	for range 8 {
		s := h.Subscribe(start, time.Time{}, nil)
		wg.Go(func() {
			defer s.Close()
			for i := range total {
				m, err := s.Next(t.Context())
				if err != nil || m.Actor.ID != fmt.Sprint(i) {
					t.Errorf("event %d: got %q, %v", i, m.Actor.ID, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestHistoryIsBounded(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    Options
	}{
		{"by number", Options{MaxEvents: 100}},
		{"by bytes", Options{MaxBytes: 20 << 10}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			h := open(t, dir, tc.o)
			for i := range 1000 {
				h.Publish(event(i, time.Unix(int64(i+1), 0)))
			}
			got := ids(t, h.Subscribe(time.Unix(0, 0), time.Unix(5000, 0), nil))
			assert.Equal(t, got[len(got)-1], "999")
			if n := tc.o.MaxEvents; n > 0 {
				assert.Assert(t, len(got) >= n/2 && len(got) <= n, "%d events", len(got))
			}
			if n := tc.o.MaxBytes; n > 0 {
				assert.Assert(t, size(t, dir) <= n)
				assert.Assert(t, size(t, dir) >= n/3)
			}
		})
	}
}

func size(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	assert.NilError(t, err)
	for _, e := range entries {
		fi, err := e.Info()
		assert.NilError(t, err)
		n += fi.Size()
	}
	return n
}

func TestHistorySurvivesSIGKILL(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	assert.NilError(t, err)
	last := -1
	for range 3 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		assert.NilError(t, err)
		assert.NilError(t, cmd.Start())
		// Each gets further than those before, so that its last event can only be its own.
		enough := last + 100
		for {
			var n int
			if _, err := fmt.Fscan(out, &n); err != nil {
				break
			}
			last = n
			if n == enough {
				assert.NilError(t, cmd.Process.Kill())
			}
		}
		_ = cmd.Wait()
		assert.Assert(t, last >= enough)
	}
	h := open(t, dir, Options{})
	got := ids(t, h.Subscribe(time.Unix(0, int64(last+1)), time.Unix(0, int64(last+1)), nil))
	assert.Assert(t, is.Contains(got, fmt.Sprint(last)), "the last event told before the kill is lost")
}

func TestOpenCutsATornTailAndSkipsGarbage(t *testing.T) {
	dir := t.TempDir()
	at := time.Now().Add(-time.Hour)
	h, err := Open(dir, Options{})
	assert.NilError(t, err)
	h.Publish(event(1, at))
	assert.NilError(t, h.Close())

	f, err := os.OpenFile(filepath.Join(dir, currentName), os.O_APPEND|os.O_WRONLY, 0)
	assert.NilError(t, err)
	_, err = f.WriteString("\x00\xff not json\n" + `{"Type":"container","Action":"di`)
	assert.NilError(t, err)
	assert.NilError(t, f.Close())

	h = open(t, dir, Options{})
	h.Publish(event(2, at))
	assert.DeepEqual(t, ids(t, h.Subscribe(at, at, nil)), []string{"1", "2"})
}

func TestSlowSubscriberHoldsNobodyUpAndIsTold(t *testing.T) {
	h := open(t, t.TempDir(), Options{Queue: 10})
	s := h.Subscribe(time.Time{}, time.Time{}, nil)
	defer s.Close()
	for i := range 100 {
		h.Publish(event(i, time.Now()))
	}
	for i := range 10 {
		m, err := s.Next(t.Context())
		assert.NilError(t, err)
		assert.Equal(t, m.Actor.ID, fmt.Sprint(i))
	}
	_, err := s.Next(t.Context())
	assert.Assert(t, is.ErrorIs(err, ErrLagged))
}

func TestUntilEndsALiveSubscription(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h, err := Open(dir, Options{})
		assert.NilError(t, err)
		defer h.Close()
		s := h.Subscribe(time.Now(), time.Now().Add(time.Minute), nil)
		defer s.Close()
		time.AfterFunc(30*time.Second, func() { h.Publish(events.Message{Actor: events.Actor{ID: "in"}}) })
		m, err := s.Next(t.Context())
		assert.NilError(t, err)
		assert.Equal(t, m.Actor.ID, "in")
		begin := time.Now()
		_, err = s.Next(t.Context())
		assert.Assert(t, is.ErrorIs(err, io.EOF))
		assert.Equal(t, time.Since(begin), 30*time.Second)
	})
}

func TestCloseEndsNextAtOnce(t *testing.T) {
	h, err := Open(t.TempDir(), Options{})
	assert.NilError(t, err)
	s := h.Subscribe(time.Time{}, time.Time{}, nil)
	assert.Equal(t, h.Subscribers(), 1)
	done := make(chan error, 1)
	go func() { _, err := s.Next(t.Context()); done <- err }()
	assert.NilError(t, h.Close())
	assert.Assert(t, is.ErrorIs(<-done, ErrClosed))
	assert.Equal(t, h.Subscribers(), 0)
	_, err = h.Subscribe(time.Now(), time.Time{}, nil).Next(t.Context())
	assert.Assert(t, is.ErrorIs(err, ErrClosed))
	h.Publish(events.Message{})
	s.Close()
	assert.NilError(t, h.Close())
}

func TestNextReturnsTheCauseOfItsContext(t *testing.T) {
	h := open(t, t.TempDir(), Options{})
	s := h.Subscribe(time.Now(), time.Time{}, nil)
	defer s.Close()
	gone := errors.New("client gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	_, err := s.Next(ctx)
	assert.Assert(t, is.ErrorIs(err, gone))
}

func TestPublishTellsSubscribersThoughTheHistoryFails(t *testing.T) {
	h := open(t, t.TempDir(), Options{MaxBytes: 400})
	s := h.Subscribe(time.Time{}, time.Time{}, nil)
	defer s.Close()
	big := event(1, time.Now())
	big.Actor.Attributes = map[string]string{"label": string(make([]byte, 1000))}
	h.Publish(big)
	m, err := s.Next(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, m.Actor.ID, "1")
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("{\"Type\":\"container\"}\n{\"Ty"))
	f.Add([]byte("\n\n\x00\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		assert.NilError(t, os.WriteFile(filepath.Join(dir, currentName), content, 0o600))
		h, err := Open(dir, Options{})
		assert.NilError(t, err)
		defer h.Close()
		at := time.Now()
		h.Publish(event(1, at))
		got := ids(t, h.Subscribe(time.Unix(0, 1), at, nil))
		assert.Assert(t, is.Contains(got, "1"))
	})
}
