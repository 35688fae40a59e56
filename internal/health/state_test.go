package health

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func at(sec int) time.Time { return time.Unix(int64(sec), 0) }

// lines are results in short: "a begun 1", "a probe 2 10 11 0".
func lines(entries ...string) Results {
	var s strings.Builder
	for _, e := range entries {
		fields := strings.Fields(e)
		for i := range fields {
			if i >= 2 && (fields[1] == "begun" || i == 3 || i == 4) {
				fields[i] += ".000000000"
			}
		}
		fmt.Fprintln(&s, strings.Join(fields, " "))
	}
	return parse([]byte(s.String()))
}

func TestAdd(t *testing.T) {
	const (
		starting, healthy, unhealthy = container.Starting, container.Healthy, container.Unhealthy
	)
	check := Check{Timeout: 5 * time.Second, Retries: 2}
	patient := Check{Timeout: 5 * time.Second, Retries: 1, StartPeriod: 20 * time.Second}
	for _, tc := range []struct {
		name    string
		check   Check
		entries []string
		status  container.HealthStatus
		streak  int
		flips   []Flip
	}{
		{"begun", check, []string{"a begun 1"}, starting, 0, nil},
		{"a success", check, []string{"a begun 1", "a probe 1 5 6 0"}, healthy, 0, []Flip{{at(6), healthy}}},
		{"one success more", check, []string{"a begun 1", "a probe 1 5 6 0", "a probe 2 8 9 0"}, healthy, 0, []Flip{{at(6), healthy}}},
		{"a failure", check, []string{"a begun 1", "a probe 1 5 6 1"}, starting, 1, nil},
		{"two failures", check, []string{"a begun 1", "a probe 1 5 6 1", "a probe 2 8 9 2"}, unhealthy, 2, []Flip{{at(9), unhealthy}}},
		{"failure, success, failure", check, []string{"a begun 1", "a probe 1 5 6 1", "a probe 2 8 9 0", "a probe 3 10 11 1"}, healthy, 1, []Flip{{at(9), healthy}}},
		{"up and down", check, []string{"a begun 1", "a probe 1 5 6 0", "a probe 2 8 9 1", "a probe 3 10 11 1", "a probe 4 12 13 0"}, healthy, 0, []Flip{{at(6), healthy}, {at(11), unhealthy}, {at(13), healthy}}},
		{"in the start period", patient, []string{"a begun 1", "a probe 1 5 6 1", "a probe 2 20 22 1"}, starting, 0, nil},
		{"after it", patient, []string{"a begun 1", "a probe 1 5 6 1", "a probe 2 21 22 1"}, unhealthy, 1, []Flip{{at(22), unhealthy}}},
		{"healthy in it", patient, []string{"a begun 1", "a probe 1 5 6 0", "a probe 2 8 9 1"}, unhealthy, 1, []Flip{{at(6), healthy}, {at(9), unhealthy}}},
		{"started again", check, []string{"a begun 1", "a probe 1 5 6 0", "b begun 7", "b probe 2 8 9 1"}, starting, 1, []Flip{{at(6), healthy}}},
		{"a probe of the one before", check, []string{"a begun 1", "a probe 1 5 6 0", "b begun 7", "a probe 2 8 9 0"}, starting, 0, []Flip{{at(6), healthy}}},
		{"a beginning that was dropped", check, []string{"a begun 1", "a probe 1 5 6 0", "b probe 700 8 9 0", "b probe 701 10 11 1"}, healthy, 1, []Flip{{at(6), healthy}, {at(9), healthy}}},
		{"its time was up", check, []string{"a begun 1", "a probe 1 5 6 0", "a probe 2 10 15 137"}, healthy, 1, []Flip{{at(6), healthy}}},
	} {
		s, flips := tc.check.Add(State{}, lines(tc.entries...))
		assert.Check(t, is.Equal(s.Status, tc.status), tc.name)
		assert.Check(t, is.Equal(s.Streak, tc.streak), tc.name)
		assert.Check(t, is.DeepEqual(flips, tc.flips), tc.name)

		// Whoever reads the same again, or in two pieces, learns nothing twice.
		again, more := tc.check.Add(s, lines(tc.entries...))
		assert.Check(t, is.Len(more, 0), tc.name)
		assert.Check(t, is.DeepEqual(again, s, cmp.AllowUnexported(Probe{})), tc.name)
		half, first := tc.check.Add(State{}, lines(tc.entries[:len(tc.entries)/2]...))
		whole, second := tc.check.Add(half, lines(tc.entries...))
		assert.Check(t, is.Equal(whole.Streak, tc.streak), tc.name)
		assert.Check(t, is.DeepEqual(append(first, second...), tc.flips), tc.name)
	}
}

func TestAddRemembersFive(t *testing.T) {
	entries := []string{"a begun 1"}
	for n := range 9 {
		entries = append(entries, fmt.Sprintf("a probe %d %d %d 0", n+1, 10*n+10, 10*n+11))
	}
	s, _ := Check{Retries: 1}.Add(State{}, lines(entries...))
	assert.Assert(t, is.Len(s.Probes, 5))
	assert.Check(t, is.Equal(s.Probes[0].Number, 5))
	assert.Check(t, is.Equal(s.Probes[4].Number, 9))
	// The older half of the file is gone, the beginning with it.
	s, flips := Check{Retries: 1}.Add(s, lines("a probe 11 200 201 1"))
	assert.Check(t, is.Equal(s.Status, container.Unhealthy))
	assert.Check(t, is.Len(flips, 1))
}

// After a stop and a start, or a boot, probes are counted from one again.
func TestAddNewRun(t *testing.T) {
	s, _ := Check{Retries: 1}.Add(State{}, lines("a begun 1", "a probe 57 5 6 0"))
	s, flips := Check{Retries: 1}.Add(s, lines("b begun 10", "b probe 1 15 16 0"))
	assert.Check(t, is.Equal(s.Status, container.Healthy))
	assert.Check(t, is.DeepEqual(flips, []Flip{{at(16), container.Healthy}}))
}

func TestParseLeavesOut(t *testing.T) {
	r := parse([]byte("a begun 1.0\na begun x\na probe 1 2.0 3.0\na probe 1 2.0 3.0 x\nnonsense\n\na probe 1 2.0 3.0 0\na probe 2 4.0 5.0 0"))
	assert.Assert(t, is.Len(r.entries, 2), "the torn last line waits for its end")
}

func TestOf(t *testing.T) {
	_, ok := Of(nil, nil)
	assert.Check(t, !ok)
	for _, test := range [][]string{nil, {"NONE"}, {"CMD"}, {"OTHER", "x"}} {
		_, ok := Of(&container.HealthConfig{Test: test}, nil)
		assert.Check(t, !ok, "%v", test)
	}
	c, ok := Of(&container.HealthConfig{Test: []string{"CMD-SHELL", "a b"}}, []string{"/bin/ash", "-ec"})
	assert.Check(t, ok)
	assert.Check(t, is.DeepEqual(c, Check{Command: []string{"/bin/ash", "-ec", "a b"}, Interval: 30 * time.Second, StartInterval: 5 * time.Second, Timeout: 30 * time.Second, Retries: 3}))
	c, _ = Of(&container.HealthConfig{Test: []string{"CMD", "a", "b"}, Interval: 1, Timeout: 2, StartPeriod: 3, StartInterval: 4, Retries: 5}, nil)
	assert.Check(t, is.DeepEqual(c, Check{Command: []string{"a", "b"}, Interval: 1, Timeout: 2, StartPeriod: 3, StartInterval: 4, Retries: 5}))
}

func TestMerge(t *testing.T) {
	image := &container.HealthConfig{Test: []string{"CMD", "a"}, Interval: 1e9, Timeout: 2e9, Retries: 7}
	assert.Check(t, is.Equal(Merge(nil, image), image))
	assert.Check(t, is.Equal(Merge(image, nil), image))
	got := Merge(&container.HealthConfig{Interval: 5e9}, image)
	assert.Check(t, is.DeepEqual(got, &container.HealthConfig{Test: []string{"CMD", "a"}, Interval: 5e9, Timeout: 2e9, Retries: 7}))
	got = Merge(&container.HealthConfig{Test: []string{"NONE"}}, image)
	assert.Check(t, is.DeepEqual(got.Test, []string{"NONE"}))
}

func TestValidate(t *testing.T) {
	for sentence, c := range map[string]*container.HealthConfig{
		"":           {Test: []string{"CMD", "x"}, Interval: time.Second},
		"1ms":        {Interval: time.Microsecond},
		"negativ":    {Retries: -1},
		"type":       {Test: []string{"SHELL", "x"}},
		"no command": {Test: []string{"CMD"}},
	} {
		err := Validate(c)
		if sentence == "" {
			assert.NilError(t, err)
			continue
		}
		assert.Check(t, is.ErrorContains(err, sentence))
	}
	assert.NilError(t, Validate(nil))
}
