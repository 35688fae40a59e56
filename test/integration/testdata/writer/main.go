// Command writer writes lines to standard output in bursts that are larger than a pipe, each as fast as it can, and
// knows for how long it was held back: a line is its number, from 1 on, the time in nanoseconds since 1970,
// and something to fill it. At
// SIGTERM it ends, and writes into the file that it was told how many lines it wrote and how long the longest of its
// writes took, in nanoseconds.
package main

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	burst = 5 << 18 // bytes; a pipe of lrd's holds 1 MiB
	every = 500 * time.Millisecond
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	tick := time.NewTicker(every)
	var longest time.Duration
	buf := make([]byte, 0, 4096)
	fill := strings.Repeat(".", 70)
	for n := 0; ; {
		for wrote := 0; wrote < burst; wrote += len(buf) {
			buf = buf[:0]
			for len(buf) < cap(buf)-128 {
				n++
				buf = fmt.Appendf(buf, "%d %d %s\n", n, time.Now().UnixNano(), fill)
			}
			begin := time.Now()
			if _, err := os.Stdout.Write(buf); err != nil {
				log.Fatal(err)
			}
			longest = max(longest, time.Since(begin))
		}
		select {
		case <-tick.C:
		case <-stop:
			if err := os.WriteFile(os.Args[1], fmt.Appendf(nil, "%d %d\n", n, longest.Nanoseconds()), 0o644); err != nil {
				log.Fatal(err)
			}
			return
		}
	}
}
