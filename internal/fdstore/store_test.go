package fdstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/goleak"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func openStore(t *testing.T, f *fakePID1) *Store {
	s, err := Open(f.count)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.NilError(t, s.Close()) })
	return s
}

func TestMessages(t *testing.T) {
	f := startFake(t, "", nil)
	s := openStore(t, f)
	ctx := t.Context()

	assert.NilError(t, s.Put(ctx, "a b", openFiles(t, 2)...))
	assert.Check(t, is.DeepEqual(f.put(), []string{"FDSTORE=1 FDPOLL=0 FDNAME=a b +2"}))
	assert.NilError(t, s.Put(ctx, "nothing"))
	assert.NilError(t, s.Remove(ctx))
	assert.Check(t, is.Len(f.log(), 0))
	assert.NilError(t, s.Remove(ctx, "a b", "c"))
	assert.Check(t, is.DeepEqual(f.log(), []string{"FDSTOREREMOVE=1 FDNAME=a b +0", "FDSTOREREMOVE=1 FDNAME=c +0", "BARRIER=1 +1"}))
	assert.NilError(t, s.Barrier(ctx))
	assert.Check(t, is.DeepEqual(f.log(), []string{"BARRIER=1 +1"}))
	assert.Check(t, is.Len(f.names(), 0))
}

// A barrier comes after what was stored only if the count does not prove as much.
func TestCountInsteadOfBarrier(t *testing.T) {
	for _, asksTooEarly := range []bool{false, true} {
		f := startFake(t, "", nil)
		asked := 0
		s, err := Open(func(ctx context.Context) (uint32, error) {
			asked++
			if asked == 2 && asksTooEarly {
				return 0, nil
			}
			for asked > 1 && len(f.names()) == 0 { // as PID 1, which looks at notifications first
				time.Sleep(time.Millisecond)
			}
			return f.count(ctx)
		})
		assert.NilError(t, err)
		assert.NilError(t, s.Put(t.Context(), "x", openFiles(t, 1)...))
		want := []string{"FDSTORE=1 FDPOLL=0 FDNAME=x +1"}
		if asksTooEarly {
			want = append(want, "BARRIER=1 +1")
		}
		assert.Check(t, is.DeepEqual(f.log(), want))
		assert.NilError(t, s.Close())
	}
}

func TestPutAllBatches(t *testing.T) {
	f := startFake(t, "", nil)
	s := openStore(t, f)
	var items []Item
	for i, file := range openFiles(t, 600) {
		name := "x"
		if i >= 550 {
			name = fmt.Sprintf("y%d", i%2)
		}
		items = append(items, Item{name, file})
	}
	assert.NilError(t, s.PutAll(t.Context(), items))
	log := f.put()
	assert.Check(t, is.DeepEqual(log[:4], []string{
		"FDSTORE=1 FDPOLL=0 FDNAME=x +253", "FDSTORE=1 FDPOLL=0 FDNAME=x +253", "FDSTORE=1 FDPOLL=0 FDNAME=x +44", "FDSTORE=1 FDPOLL=0 FDNAME=y0 +1",
	}))
	assert.Check(t, is.Len(log, 3+50))
	assert.Check(t, is.DeepEqual(f.names(), map[string]int{"x": 550, "y0": 25, "y1": 25}))
	n, err := s.Count(t.Context())
	assert.NilError(t, err)
	assert.Check(t, is.Equal(n, uint32(600)))
}

func TestAbstractSocket(t *testing.T) {
	f := startFake(t, fmt.Sprintf("@lrd-fdstore-test-%d", time.Now().UnixNano()), nil)
	assert.NilError(t, openStore(t, f).Put(t.Context(), "x", openFiles(t, 1)...))
	assert.Check(t, is.DeepEqual(f.names(), map[string]int{"x": 1}))
}

func TestRefused(t *testing.T) {
	f := startFake(t, "", func(f *fakePID1) { f.max = 5 })
	s := openStore(t, f)
	assert.NilError(t, s.Put(t.Context(), "x", openFiles(t, 3)...))
	err := s.Put(t.Context(), "y", openFiles(t, 3)...)
	assert.Check(t, is.ErrorIs(err, ErrRefused))
	assert.Check(t, errdefs.IsResourceExhausted(err))
	assert.Check(t, is.Error(err, "cannot store 3 descriptors (y): systemd did not keep all descriptors: it took 2 of 3 and has 5 now "+
		"(FileDescriptorStoreMax= is reached, or one of them is stored already)"))
	assert.NilError(t, s.Remove(t.Context(), "y"))
	assert.NilError(t, s.Put(t.Context(), "y", openFiles(t, 2)...))
}

func TestReplace(t *testing.T) {
	f := startFake(t, "", func(f *fakePID1) { f.max = 2 })
	s := openStore(t, f)
	files := openFiles(t, 2)
	assert.NilError(t, s.Put(t.Context(), "x", files...))
	assert.NilError(t, s.Replace(t.Context(), "x", files[0]))
	assert.Check(t, is.DeepEqual(f.names(), map[string]int{"x": 1}))
}

// Many goroutines that store and remove never take each other's changes of the count for their own.
func TestConcurrent(t *testing.T) {
	f := startFake(t, "", nil)
	s := openStore(t, f)
	files := openFiles(t, 40)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			name := fmt.Sprintf("n%d", i)
			for range 5 {
				assert.Check(t, s.Put(t.Context(), name, files[i]))
				assert.Check(t, s.Remove(t.Context(), name))
			}
			assert.Check(t, s.PutAll(t.Context(), []Item{{name, files[i]}}))
		})
	}
	wg.Wait()
	assert.Check(t, is.Len(f.names(), 40))
}

func TestBarrierThatNeverComes(t *testing.T) {
	f := startFake(t, "", func(f *fakePID1) { f.deaf = true })
	s := openStore(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	err := s.Barrier(ctx)
	assert.Check(t, is.ErrorIs(err, context.DeadlineExceeded))

	cause := errors.New("the test has had enough")
	cancelled, cancelCause := context.WithCancelCause(t.Context())
	cancelCause(cause)
	assert.Check(t, is.ErrorIs(s.Remove(cancelled, "x"), cause)) // and not a Put, which a count may show to be done without one
}

// What a change that was cut short has sent is not counted as the next one's.
func TestUnsettled(t *testing.T) {
	f := startFake(t, "", func(f *fakePID1) { f.hold = make(chan struct{}) })
	s := openStore(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	assert.Check(t, is.ErrorIs(s.Put(ctx, "late", openFiles(t, 1)...), context.DeadlineExceeded))
	close(f.hold)
	f.log()
	assert.NilError(t, s.Put(t.Context(), "x", openFiles(t, 1)...))
	log := f.put()
	assert.Check(t, is.DeepEqual(log[len(log)-2:], []string{"BARRIER=1 +1", "FDSTORE=1 FDPOLL=0 FDNAME=x +1"}))
}

// A receive queue that is full (net.unix.max_dgram_qlen) delays, and fails only with the context.
func TestFullQueue(t *testing.T) {
	f := startFake(t, "", func(f *fakePID1) { f.hold = make(chan struct{}) })
	s := openStore(t, f)
	names := make([]string, 2000)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	assert.Check(t, is.ErrorIs(s.Remove(ctx, names...), context.DeadlineExceeded))
	time.AfterFunc(20*time.Millisecond, func() { close(f.hold) })
	assert.NilError(t, s.Remove(t.Context(), names...))
}

func TestCheckedBeforeSent(t *testing.T) {
	f := startFake(t, "", nil)
	s := openStore(t, f)
	file := openFiles(t, 1)[0]
	assert.Check(t, is.ErrorIs(s.PutAll(t.Context(), []Item{{"fine", file}, {"a:b", file}}), ErrName))
	assert.Check(t, s.Put(t.Context(), "x", nil) != nil)
	assert.Check(t, is.ErrorIs(s.Remove(t.Context(), "x", ""), ErrName))
	assert.Check(t, is.ErrorIs(s.Replace(t.Context(), "\n", file), ErrName))
	closed := openFiles(t, 1)[0]
	closed.Close()
	assert.Check(t, s.Put(t.Context(), "x", closed) != nil)
	assert.NilError(t, s.Barrier(t.Context()))
	assert.Check(t, is.DeepEqual(f.log(), []string{"BARRIER=1 +1"}))
}

func TestCount(t *testing.T) {
	f := startFake(t, "", nil)
	broken := errors.New("broken")
	s, err := Open(func(context.Context) (uint32, error) { return 0, broken })
	assert.NilError(t, err)
	defer s.Close()
	assert.Check(t, is.ErrorIs(s.Put(t.Context(), "x", openFiles(t, 1)...), broken))
	assert.Check(t, is.Len(f.log(), 0))

	blind, err := Open(nil)
	assert.NilError(t, err)
	defer blind.Close()
	assert.NilError(t, blind.Put(t.Context(), "x", openFiles(t, 1)...))
	_, err = blind.Count(t.Context())
	assert.Check(t, errdefs.IsNotImplemented(err))
}

func TestOpenElsewhere(t *testing.T) {
	for _, address := range []string{"", "vsock:2:1234", "@", "relative"} {
		t.Setenv("NOTIFY_SOCKET", address)
		_, err := Open(nil)
		assert.Check(t, errdefs.IsUnavailable(err), address)
		t.Log(err)
	}
	t.Setenv("NOTIFY_SOCKET", "/nonexistent/notify")
	s, err := Open(nil)
	assert.NilError(t, err)
	defer s.Close()
	assert.Check(t, is.ErrorContains(s.Barrier(t.Context()), "no such file"))
}

func TestNoGoroutineIsLeft(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	f := startFake(t, "", nil)
	s := openStore(t, f)
	assert.NilError(t, s.Put(t.Context(), "x", openFiles(t, 1)...))
	f.sock.Close()
	<-f.done
}
