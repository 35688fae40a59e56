package reload

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"go.uber.org/goleak"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// with makes a configuration that differs from the default by flags.
func with(t testing.TB, flags map[string][]string) *config.Config {
	t.Helper()
	c, err := config.Load(config.Sources{Flags: flags})
	assert.NilError(t, err)
	return c
}

// recorder is a Reloader that notes what it is asked, and the service manager that notes what it is told.
type recorder struct {
	mu    sync.Mutex // guards notes
	notes []string
}

func (r *recorder) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, s)
}

func (r *recorder) notify(state string) error { r.note(state); return nil }

func (r *recorder) reloader(name string, err error) Reloader {
	return Func(func(context.Context, *config.Config, *config.Config) (func(), error) {
		r.note("prepare " + name)
		return func() { r.note("commit " + name) }, err
	})
}

var reloading = regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*$`)

func TestReloadPreparesAllThenCommitsAll(t *testing.T) {
	var r recorder
	next := with(t, map[string][]string{"debug": {"true"}, "mtu": {"1400"}})
	nothing := Func(func(context.Context, *config.Config, *config.Config) (func(), error) { return nil, nil })
	var done []Report
	c := New(Options{
		Load: func() (*config.Config, error) { return next, nil }, Notify: r.notify,
		Status: func(s string) string { return "3 containers, " + s },
		Done:   func(r Report) { done = append(done, r) },
	}, config.Default(), r.reloader("a", nil), nothing, r.reloader("b", nil))
	defer c.Close()

	report, err := c.Reload(t.Context())
	assert.NilError(t, err)
	assert.Check(t, is.DeepEqual(report, Report{
		Changed:     []config.Change{{Key: "debug", Old: "false", New: "true", Reloadable: true}},
		NeedRestart: []config.Change{{Key: "mtu", Old: "1500", New: "1400"}},
	}))
	assert.Check(t, is.DeepEqual(done, []Report{report}))
	assert.Check(t, reloading.MatchString(r.notes[0]), r.notes[0])
	assert.Check(t, is.DeepEqual(r.notes[1:5], []string{"prepare a", "prepare b", "commit a", "commit b"}))
	assert.Check(t, is.Regexp(`^READY=1\nSTATUS=3 containers, configuration of ..:..:..; waiting for a restart: mtu$`, r.notes[5]))
	assert.Check(t, c.Current().Debug)
	assert.Check(t, is.Equal(c.Current().MTU, 1500), "what needs a restart is not in force")

	report, err = c.Reload(t.Context())
	assert.NilError(t, err)
	assert.Check(t, is.Len(report.Changed, 0))
	assert.Check(t, is.Len(report.NeedRestart, 1), "it is named until the restart")
}

func TestReloadFailsWhole(t *testing.T) {
	broken := errors.New("no such profile\nreally")
	loadErr := func() (*config.Config, error) {
		return config.Load(config.Sources{File: "/nonexistent/lrd.toml", Explicit: true})
	}
	loadOK := func() (*config.Config, error) { return with(t, map[string][]string{"debug": {"true"}}), nil }
	for _, tc := range []struct {
		name   string
		load   func() (*config.Config, error)
		err    error
		notes  []string
		status string
	}{
		{"load", loadErr, nil, nil, `; reload at ..:..:.. failed: /nonexistent/lrd.toml: cannot read`},
		{"prepare", loadOK, broken, []string{"prepare a", "prepare b"}, `; reload at ..:..:.. failed: cannot apply the configuration: no such profile \| really$`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var r recorder
			old := config.Default()
			c := New(Options{Load: tc.load, Notify: r.notify}, old, r.reloader("a", nil), r.reloader("b", tc.err), r.reloader("c", nil))
			defer c.Close()
			_, err := c.Reload(t.Context())
			assert.Assert(t, err != nil)
			assert.Check(t, tc.err == nil || errors.Is(err, tc.err))
			assert.Check(t, c.Current() == old, "nothing changed")
			assert.Check(t, is.DeepEqual(slices.Clip(r.notes[1:len(r.notes)-1]), slices.Clip(append([]string{}, tc.notes...))))
			last := r.notes[len(r.notes)-1]
			assert.Check(t, is.Regexp(`^READY=1\nSTATUS=configuration of ..:..:..`+tc.status, last))
			assert.Check(t, is.Equal(strings.Count(last, "\n"), 1))

			_, _ = c.Reload(t.Context())
			assert.Check(t, is.Equal(strings.Count(c.Status(), "failed"), 1), "one failure is told, the last")
		})
	}
}

// TestTwentyAtOnce holds that each caller's answer comes from a load that began after its call, and that callers share.
func TestTwentyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int32
		var running atomic.Int32
		c := New(Options{Load: func() (*config.Config, error) {
			assert.Check(t, running.Add(1) == 1, "one at a time")
			n := loads.Add(1)
			time.Sleep(time.Second) // a caller that comes now must not get this load's answer
			running.Add(-1)
			return with(t, map[string][]string{"mtu": {[]string{"1000", "1001", "1002", "1003"}[n]}}), nil
		}}, config.Default())
		defer c.Close()

		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				before := loads.Load()
				report, err := c.Reload(t.Context())
				assert.Check(t, err)
				if i == 0 {
					assert.Check(t, is.Equal(report.NeedRestart[0].New, "1001"))
				} else { // all others came during the first load
					assert.Check(t, is.Equal(before, int32(1)))
					assert.Check(t, is.Equal(report.NeedRestart[0].New, "1002"))
				}
			})
		}
		wg.Wait()
		assert.Check(t, is.Equal(loads.Load(), int32(2)))
	})
}

func TestCallerGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{Load: func() (*config.Config, error) {
			time.Sleep(time.Minute / 2)
			return with(t, map[string][]string{"debug": {"true"}}), nil
		}}, config.Default())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Reload(ctx)
		assert.Check(t, is.ErrorIs(err, context.DeadlineExceeded))
		assert.Check(t, !c.Current().Debug)
		c.Close() // waits
		assert.Check(t, c.Current().Debug, "the reload went on")
		_, err = c.Reload(t.Context())
		assert.Check(t, errdefs.IsUnavailable(err), "%v", err)
	})
}

func TestReloadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := Func(func(ctx context.Context, _, _ *config.Config) (func(), error) {
			<-ctx.Done()
			return func() { t.Error("committed after the deadline") }, nil // ignores that its time is over
		})
		c := New(Options{Load: func() (*config.Config, error) { return config.Default(), nil }}, config.Default(), slow)
		defer c.Close()
		_, err := c.Reload(t.Context())
		assert.Check(t, is.ErrorContains(err, "it took too long"))
	})
}

func TestNotifyFailureChangesNothing(t *testing.T) {
	c := New(Options{
		Load:   func() (*config.Config, error) { return config.Default(), nil },
		Notify: func(string) error { return errors.New("nobody there") },
	}, config.Default())
	defer c.Close()
	_, err := c.Reload(t.Context())
	assert.NilError(t, err)
}

func TestHandler(t *testing.T) {
	load := func() (*config.Config, error) { return with(t, map[string][]string{"debug": {"true"}}), nil }
	c := New(Options{Load: func() (*config.Config, error) { return load() }}, config.Default())
	ask := func(method string) (int, string) {
		w := httptest.NewRecorder()
		c.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, Path, nil))
		return w.Code, w.Body.String()
	}
	code, body := ask(http.MethodPost)
	assert.Check(t, is.Equal(code, http.StatusOK))
	var report Report
	assert.NilError(t, json.Unmarshal([]byte(body), &report))
	assert.Check(t, is.Len(report.Changed, 1))
	assert.Check(t, is.Contains(body, `"need_restart":[]`), "never null")

	code, _ = ask(http.MethodGet)
	assert.Check(t, is.Equal(code, http.StatusMethodNotAllowed))

	load = func() (*config.Config, error) {
		return config.Load(config.Sources{Flags: map[string][]string{"x": {"1"}}})
	}
	code, body = ask(http.MethodPost)
	assert.Check(t, is.Equal(code, http.StatusBadRequest))
	assert.Check(t, is.Contains(body, `{"message":"flag --x: x: unknown key`))

	load = func() (*config.Config, error) { return nil, errors.New("broken") }
	code, _ = ask(http.MethodPost)
	assert.Check(t, is.Equal(code, http.StatusInternalServerError))

	c.Close()
	code, _ = ask(http.MethodPost)
	assert.Check(t, is.Equal(code, http.StatusServiceUnavailable))
}
