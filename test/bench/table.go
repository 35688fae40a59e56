package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// better says which way a figure is good.
type better int

const (
	less better = iota // seconds, bytes
	more               // bytes per second
)

// table is what was measured, in the order in which rows were first seen.
type table struct {
	rows []*row
}

type row struct {
	name   string
	better better
	values map[string][]float64 // by engine
}

func newTable() *table { return &table{} }

// add takes one value of an engine in one round.
func (t *table) add(name, engine string, value float64, way better) {
	i := slices.IndexFunc(t.rows, func(r *row) bool { return r.name == name })
	if i < 0 {
		i = len(t.rows)
		t.rows = append(t.rows, &row{name: name, better: way, values: map[string][]float64{}})
	}
	t.rows[i].values[engine] = append(t.rows[i].values[engine], value)
}

// middle is the median, and the smallest and the largest value.
func middle(values []float64) (median, low, high float64) {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]
}

// text is the table in Markdown: median (lowest to highest), and how many times worse than lrd.
func (t *table) text(engines []string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "| | %s |\n|%s\n", strings.Join(engines, " | "), strings.Repeat(" --- |", len(engines)+1))
	for _, r := range t.rows {
		fmt.Fprintf(&s, "| %s", r.name)
		base := 0.0
		if v := r.values["lrd"]; len(v) > 0 {
			base, _, _ = middle(v)
		}
		for _, e := range engines {
			v := r.values[e]
			if len(v) == 0 {
				s.WriteString(" | ")
				continue
			}
			median, low, high := middle(v)
			fmt.Fprintf(&s, " | %s (%s to %s)", figure(median), figure(low), figure(high))
			if e != "lrd" && base > 0 && median > 0 {
				ratio := median / base
				if r.better == more {
					ratio = base / median
				}
				fmt.Fprintf(&s, " ×%s", figure(ratio))
			}
		}
		s.WriteString(" |\n")
	}
	return s.String()
}

// figure is a number with as many digits as mean something.
func figure(f float64) string {
	switch {
	case f >= 100 || f <= -100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10 || f <= -10:
		return fmt.Sprintf("%.1f", f)
	default:
		return fmt.Sprintf("%.2f", f)
	}
}

// report is docs/benchmarks.md.
func (b *bench) report(load string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# Benchmarks\n\nMade by `make bench` on %s. test/bench/doc.go says what is measured and how.\n\n", time.Now().UTC().Format("2006-01-02"))
	fmt.Fprintf(&s, "Median (lowest to highest) of %d rounds, and behind × how many times worse than lrd. Each shape of output is %d MiB, a quarter of it with 20-byte\n"+
		"lines and with one line a write, and of that a quarter again for docker and podman; each command ran %d times a round. %d processors; load of\n"+
		"the machine when it began: %s. All files are on a tmpfs. Podman's `docker rm -f` asks the container's process, which ignores that, to end for ten\n"+
		"seconds first; it ran once a round.\n\n",
		b.scale.Rounds, b.scale.Bytes>>20, b.scale.Times, runtime.NumCPU(), load)
	names := []string{}
	for _, e := range b.engines {
		names = append(names, e.name)
	}
	s.WriteString(b.table.text(append(names, bare)))
	s.WriteString("\nVersions:\n\n")
	for _, v := range b.versions {
		fmt.Fprintf(&s, "- %s\n", v)
	}
	return s.String()
}
