package containers

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// commandOf is the command that the container is to run.
func commandOf(c *Container) string {
	r, _ := c.snapshot()
	for _, words := range [][]string{r.Config.Entrypoint, r.Config.Cmd} {
		if len(words) > 0 {
			return words[0]
		}
	}
	return ""
}

// runtimeError is what the runtime wrote into its log, in JSON lines; empty if that is nothing.
func runtimeError(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	var said []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var line struct{ Level, Msg string }
		if json.Unmarshal(sc.Bytes(), &line) == nil && line.Level == "error" {
			said = append(said, line.Msg)
		}
	}
	return strings.Join(said, "; ")
}

// StartError is why a container's command could not be run. Its ExitCode is
// what a shell reports for the same: 127 for a command that is not there, 126
// for one that cannot be executed, 128 for anything else.
type StartError struct {
	ExitCode int
	sentence string
}

func (e *StartError) Error() string { return e.sentence }

// Is makes a command that cannot be run a fault of the request, as Docker does.
func (e *StartError) Is(target error) bool {
	return target == errdefs.ErrInvalidArgument && e.ExitCode != 128
}

// startError makes sense of what the runtime said while doing something. It has nothing but text to
// go by: a runtime has one exit status for everything. The words that decide
// are those of the C library's error messages; the `docker` client looks for
// the same ones to choose its own exit code.
func startError(doing, said, command string) *StartError {
	low := strings.ToLower(said)
	e := &StartError{ExitCode: 128, sentence: "failed to " + doing + ": " + said}
	switch {
	case strings.HasPrefix(low, "chdir ") && strings.Contains(low, strings.ToLower(unix.ENOENT.Error())):
		e.ExitCode = 127 // the working directory; Docker's is this too
	case strings.Contains(low, "executable file") && strings.Contains(low, "not found"),
		strings.Contains(low, "exec") && strings.Contains(low, strings.ToLower(unix.ENOENT.Error())):
		e.ExitCode = 127
		what := "executable file not found in $PATH"
		if strings.ContainsRune(command, filepath.Separator) {
			what = "no such file or directory"
		}
		e.sentence = fmt.Sprintf("failed to %s: exec: %q: %s", doing, command, what)
	case strings.Contains(low, strings.ToLower(unix.EACCES.Error())) || strings.Contains(low, "open executable") || strings.Contains(low, "is a directory") ||
		strings.Contains(low, "is not executable") || strings.Contains(low, "is not a regular file") || strings.Contains(low, "exec format error"): // the first two of this line are of newer versions of crun
		e.ExitCode = 126
		e.sentence = fmt.Sprintf("failed to %s: exec: %q: permission denied (%s)", doing, command, said)
	}
	return e
}

// startExitCode is the exit code of a container that could not be started.
func startExitCode(err error) int {
	var e *StartError
	if errors.As(err, &e) {
		return e.ExitCode
	}
	return 128
}
