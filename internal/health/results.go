package health

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	resultsFile = "results"
	// invocationFile has the InvocationID of the container's unit, numberFile the number of the last probe.
	invocationFile = "invocation"
	numberFile     = "number"
	probeFile      = "probe"
	// ProcessFile is the name of the runtime's view of the command.
	ProcessFile = "process.json"

	// maxOutput is how much of what a probe writes is kept, in bytes, as with Docker.
	maxOutput = 4096
)

// Results are the lines of a container's file of results.
type Results struct {
	entries []entry
}

// entry is one line: a probe, or, with Start alone, the beginning of an invocation.
type entry struct {
	Probe
	begun bool
}

// Read reads the results in a container's health directory. A directory that is
// not there has none. Lines that make no sense are left out: one may be torn.
func Read(dir string) (Results, error) {
	data, err := os.ReadFile(filepath.Join(dir, resultsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Results{}, nil
	}
	return parse(data), err
}

func parse(data []byte) Results {
	var r Results
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if !strings.HasSuffix(line, "\n") || len(fields) < 3 {
			continue
		}
		e := entry{begun: fields[1] == "begun"}
		e.invocation = fields[0]
		var ok bool
		switch {
		case e.begun && len(fields) == 3:
			e.Start, ok = parseTime(fields[2])
		case fields[1] == "probe" && len(fields) == 6:
			var err1, err2 error
			var started, ended bool
			e.Number, err1 = strconv.Atoi(fields[2])
			e.Start, started = parseTime(fields[3])
			e.End, ended = parseTime(fields[4])
			e.ExitCode, err2 = strconv.Atoi(fields[5])
			ok = started && ended && err1 == nil && err2 == nil
		}
		if ok {
			r.entries = append(r.entries, e)
		}
	}
	return r
}

// parseTime reads seconds and nine digits of nanoseconds, as "date +%s.%N" writes them.
func parseTime(s string) (time.Time, bool) {
	sec, nsec, _ := strings.Cut(s, ".")
	a, err1 := strconv.ParseInt(sec, 10, 64)
	b, err2 := strconv.ParseInt(nsec, 10, 64)
	return time.Unix(a, b), err1 == nil && err2 == nil && b >= 0 && b < int64(time.Second)
}

// WithOutput is s with what its probes have written, as far as it is in the
// container's health directory still.
func (c Check) WithOutput(s State, dir string) State {
	probes := make([]Probe, len(s.Probes))
	for i, p := range s.Probes {
		if p.Output == "" {
			data, _ := os.ReadFile(filepath.Join(dir, outputFile(p.Number)))
			p.Output = clip(data)
		}
		if p.ExitCode == -1 {
			p.Output = strings.TrimSuffix(fmt.Sprintf("Health check exceeded timeout (%s): %s", c.Timeout, p.Output), ": ")
		}
		probes[i] = p
	}
	s.Probes = probes
	return s
}

// clip is the text of a probe's output. What is cut off is shown by three dots, as Docker does.
func clip(data []byte) string {
	if len(data) < maxOutput {
		return strings.ToValidUTF8(string(data), "\uFFFD")
	}
	data = data[:maxOutput]
	for len(data) > 0 && !utf8.Valid(data[max(0, len(data)-utf8.UTFMax):]) && !utf8.RuneStart(data[len(data)-1]) {
		data = data[:len(data)-1]
	}
	return strings.ToValidUTF8(string(bytes.TrimRight(data, "\n")), "\uFFFD") + "..."
}

// outputFile is where a probe's output is; the last five have files of their own.
func outputFile(number int) string { return fmt.Sprintf("output.%d", number%maxProbes) }
