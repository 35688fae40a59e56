package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"lrd/internal/journal"
)

// The test binary is lrd-standby too, in a directory of its own.
const (
	inDir = "LRD_STANDBY_TEST_DIR"
	// dieAt is after how many steps it kills itself; 0 for never.
	dieAt = "LRD_STANDBY_TEST_DIE_AT"
)

func TestMain(m *testing.M) {
	dir := os.Getenv(inDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	left, _ := strconv.Atoi(os.Getenv(dieAt))
	step = func(string) {
		if left--; left == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	log, _ := journal.New(os.Stderr, slog.LevelInfo)
	if err := run(context.Background(), placesIn(dir), log); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func placesIn(dir string) places {
	return places{filepath.Join(dir, "standby.sock"), filepath.Join(dir, "standby", "held.json")}
}

// service is lrd-standby.service under a systemd that has nothing but a descriptor store and Restart=always.
type service struct {
	t    *testing.T
	dir  string
	sock *net.UnixConn
	die  func() int // dieAt of the next process

	mu     sync.Mutex
	stored []storedFD
	cmd    *exec.Cmd
	starts atomic.Int64
	over   bool
	done   chan struct{}
}

type storedFD struct {
	name string
	fd   int
}

// startService starts the service, which ends with the test.
func startService(t *testing.T, die func() int) *service {
	s := &service{t: t, dir: t.TempDir(), die: die, done: make(chan struct{})}
	var err error
	s.sock, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: s.notifySocket()})
	assert.NilError(t, err)
	go s.listen()
	go s.keepRunning()
	t.Cleanup(s.end)
	return s
}

func (s *service) notifySocket() string { return filepath.Join(s.dir, "notify") }

func (s *service) end() {
	s.mu.Lock()
	s.over = true
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
	}
	s.mu.Unlock()
	<-s.done
	_ = s.sock.Close()
	for _, f := range s.stored {
		_ = unix.Close(f.fd)
	}
}

// kill kills the process, if there is one; it is started again.
func (s *service) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
	}
}

func (s *service) keepRunning() {
	defer close(s.done)
	for {
		cmd, ok := s.start()
		if !ok {
			return
		}
		_ = cmd.Wait()
	}
}

// start starts a process with the stored descriptors, as systemd does.
func (s *service) start() (*exec.Cmd, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil, false
	}
	s.starts.Add(1)
	// The shell knows the process ID that LISTEN_PID is to be.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Stderr = os.Stderr
	var names []string
	for _, f := range s.stored {
		own, err := unix.FcntlInt(uintptr(f.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			panic(err)
		}
		file := os.NewFile(uintptr(own), f.name)
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
		names = append(names, f.name)
	}
	cmd.Env = append(os.Environ(), inDir+"="+s.dir, dieAt+"="+strconv.Itoa(s.die()), "NOTIFY_SOCKET="+s.notifySocket(),
		"LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	s.cmd = cmd
	return cmd, true
}

// listen keeps descriptors as systemd does.
func (s *service) listen() {
	text, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*253))
	for {
		n, cn, _, _, err := s.sock.ReadMsgUnix(text, control)
		if err != nil {
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(control[:cn]); err == nil {
			for i := range messages {
				got, _ := unix.ParseUnixRights(&messages[i])
				fds = append(fds, got...)
			}
		}
		s.handle(string(text[:n]), fds)
	}
}

func (s *service) handle(text string, fds []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		fields[k] = v
	}
	switch {
	case fields["FDSTOREREMOVE"] == "1":
		var kept []storedFD
		for _, f := range s.stored {
			if f.name == fields["FDNAME"] {
				_ = unix.Close(f.fd)
			} else {
				kept = append(kept, f)
			}
		}
		s.stored = kept
	case fields["FDSTORE"] == "1":
		for _, fd := range fds {
			s.stored = append(s.stored, storedFD{fields["FDNAME"], fd})
		}
		return
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// names are those of what is stored.
func (s *service) names() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.stored {
		names = append(names, f.name)
	}
	return names
}

// eventually waits for a condition, on however busy a machine.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in a minute", what)
		}
	}
}
