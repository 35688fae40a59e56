package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// scale is how much is measured.
type scale struct {
	Rounds  int
	Bytes   int64 // of each shape of output
	Times   int   // how often each command is run in a round
	Idle    int   // how many idle containers the slope of memory is taken to
	Restore []int // how many containers are restored
	Layer   int   // bytes of the image that is loaded
}

var (
	full  = scale{Rounds: 3, Bytes: 1 << 30, Times: 10, Idle: 100, Restore: []int{1, 100, 500}, Layer: 100 << 20}
	quick = scale{Rounds: 1, Bytes: 8 << 20, Times: 2, Idle: 20, Restore: []int{1, 10}, Layer: 4 << 20}
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "write":
			exit(write(os.Args[2:]))
		case "splice":
			exit(spliceLoop(context.Background(), os.Args[2:]))
		}
	}
	s := full
	isQuick := flag.Bool("quick", false, "a check that it works: little of everything, once")
	flag.IntVar(&s.Rounds, "rounds", full.Rounds, "rounds")
	mib := flag.Int64("mib", full.Bytes>>20, "MiB of each shape of output")
	flag.IntVar(&s.Times, "times", full.Times, "runs of each command in a round")
	only := flag.String("only", "", "comma-separated parts: output,commands,memory,images,restore; all if empty")
	kinds := flag.String("engines", "", "comma-separated engines: lrd,docker,podman; all if empty")
	out := flag.String("o", "", "file to write the table to, as well as to standard output")
	flag.Parse()
	s.Bytes = *mib << 20
	if *isQuick {
		s = quick
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	exit(run(ctx, s, *only, *kinds, *out))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run measures all parts, or those of only, on the engines of those kinds, and prints the table.
func run(ctx context.Context, s scale, only, kinds, out string) (err error) {
	l, err := bootLab(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.down()) }()
	b := &bench{ctx: ctx, lab: l, scale: s, table: newTable()}
	if err := b.prepare(kinds); err != nil {
		return err
	}
	load := loadAverage()
	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"output", b.output},
		{"commands", b.commands},
		{"memory", b.memory},
		{"images", b.images},
		{"restore", b.restore},
	} {
		if !listed(only, part.name) {
			continue
		}
		began := time.Now()
		err := part.run()
		fmt.Fprintf(os.Stderr, "bench: %s took %s\n", part.name, time.Since(began).Round(time.Second))
		// The table grows with each part, so that one that fails takes nothing of the others with it.
		text := b.report(load)
		if out != "" {
			err = errors.Join(err, os.WriteFile(out, []byte(text), 0o644))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	fmt.Print(b.report(load))
	return nil
}

// listed says whether a list of names, separated by commas, has a name; one that is empty has all.
func listed(list, name string) bool {
	return list == "" || strings.Contains(","+list+",", ","+name+",")
}

// bench is one run of this program.
type bench struct {
	ctx   context.Context
	lab   *lab
	scale scale
	table *table

	engines  []*engine
	versions []string
}

// each runs f on every engine in turn, once for each round, with only that engine up.
func (b *bench) each(engines []*engine, f func(*engine) error) error {
	for round := range b.scale.Rounds {
		for i := range engines {
			e := engines[(i+round)%len(engines)] // so that none is always first
			if err := b.alone(e); err != nil {
				return err
			}
			began := time.Now()
			if err := f(e); err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			fmt.Fprintf(os.Stderr, "bench: round %d, %s, %s\n", round+1, e.name, time.Since(began).Round(time.Second))
		}
	}
	return nil
}

// alone stops the other engines and starts this one.
func (b *bench) alone(e *engine) error {
	for _, other := range b.engines {
		if other.kind != e.kind {
			if _, err := b.lab.exec(append([]string{"systemctl", "stop"}, other.units...)...); err != nil {
				return err
			}
		}
	}
	_, err := b.lab.exec(append([]string{"systemctl", "start"}, e.start...)...)
	return err
}
