//go:build integration

package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// suite is what all tests of a run share. TestMain fills it in.
var suite struct {
	name    string // SUITE
	lab     string // path of the lab command
	bin     string // path of the lrd to test
	clients [2]string

	// mu guards what follows.
	mu      sync.Mutex
	booted  int      // labs so far
	skipped []string // "TestName: reason"
}

// Which docker client.
const (
	clientNew = iota // speaks the newest API that lrd does
	clientOld        // 20.10, API 1.41
)

func TestMain(m *testing.M) {
	flag.Parse()
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "integration tests:", err)
		os.Exit(1)
	}
	code := m.Run()
	if n := len(suite.skipped); n > 0 {
		fmt.Printf("%s: %d tests skipped:\n\t%s\n", suite.name, n, strings.Join(suite.skipped, "\n\t"))
	}
	os.Exit(code)
}

// prepare finds everything that a test needs, so that a machine which lacks
// something says so once.
func prepare() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("the labs need root")
	}
	suite.name = environment("SUITE", "host")
	var err error
	if suite.lab, err = filepath.Abs(environment("LRD_LAB", "../lab/lab")); err != nil {
		return err
	}
	if suite.bin, err = filepath.Abs(environment("LRD_BIN", "../../bin/lrd")); err != nil {
		return err
	}
	for _, file := range []string{suite.lab, suite.bin} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w (make build makes bin/lrd; LRD_BIN and LRD_LAB say where they are)", err)
		}
	}
	for which, name := range []string{clientNew: "new", clientOld: "old"} {
		suite.clients[which] = os.Getenv("DOCKER_" + strings.ToUpper(name))
		if suite.clients[which] != "" {
			continue
		}
		path, err := exec.Command(suite.lab, "client", name).Output()
		if err != nil {
			return fmt.Errorf("cannot get the %s docker client: %w", name, err)
		}
		suite.clients[which] = strings.TrimSpace(string(path))
	}
	// A lab is booted by a parallel test, so this bounds how many labs are up, whatever the number of processors.
	labs, err := strconv.Atoi(environment("LRD_LABS", "3"))
	if err != nil || labs < 1 {
		return fmt.Errorf("LRD_LABS must be a number from 1 on, not %q", os.Getenv("LRD_LABS"))
	}
	return flag.Set("test.parallel", strconv.Itoa(labs))
}

func environment(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// skip says that a test cannot show here what it is there for, and why.
// It is counted at the end of the run, so that nobody takes it for a pass.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	reason := fmt.Sprintf(format, args...)
	suite.mu.Lock()
	suite.skipped = append(suite.skipped, t.Name()+": "+reason)
	suite.mu.Unlock()
	t.Skip("SKIPPED: " + reason)
}

// rounds is how often a test does what it repeats: short in `make test`, long in `make soak` (LRD_SOAK=1).
func rounds(t *testing.T, short, long int) int {
	t.Helper()
	if os.Getenv("LRD_SOAK") != "" {
		return long
	}
	return short
}
