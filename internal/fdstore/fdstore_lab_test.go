//go:build integration

package fdstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// TestLabService runs as root on a machine whose PID 1 is systemd, that is in the lab:
//
//	go test -c -tags integration -o fdstore.test ./internal/fdstore
//	test/lab/lab exec /path/in/the/lab/fdstore.test -test.v -test.run Lab
//
// It runs this test binary as a service again, whose life is the steps below: each process of it does the next step, leaves a report and says
// READY=1.
func TestLabService(t *testing.T) {
	if dir := os.Getenv("FDSTORE_LAB_DIR"); dir != "" {
		labService(dir)
		return
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		t.Skip("SKIPPED: this machine's PID 1 is not systemd")
	}
	self, err := os.Executable()
	assert.NilError(t, err)
	dir, unit := t.TempDir(), fmt.Sprintf("lrd-test-fdstore-%d.service", os.Getpid())
	t.Cleanup(func() {
		_ = exec.Command("systemctl", "stop", unit).Run()
		_ = exec.Command("systemctl", "reset-failed", unit).Run()
	})
	// No "$" in the command: systemd 252 does not read back what it writes of it into the transient unit's file.
	run(t, "systemd-run", "--quiet", "--unit="+unit, "-p", "Type=notify", "-p", "FileDescriptorStoreMax=600", "-p", "LimitNOFILE=4096",
		"-p", "Restart=always", "-p", "RestartSec=0", "-p", "RemainAfterExit=no",
		"-E", "FDSTORE_LAB_DIR="+dir, "-E", "FDSTORE_LAB_UNIT="+unit, self, "-test.run=TestLabService")
	report(t, dir, "fill")
	run(t, "systemctl", "restart", unit)
	report(t, dir, "restarted")
	run(t, "systemctl", "daemon-reexec")
	run(t, "systemctl", "kill", "--signal=KILL", "--kill-who=main", unit)
	report(t, dir, "killed")
}

// steps are what the processes of the service do, one after the other.
var steps = []struct {
	name string
	do   func(ctx context.Context, set *Set, s *Store) error
}{{"fill", stepFill}, {"restarted", stepRestarted}, {"killed", stepKilled}}

func labService(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, step := range steps {
		file := filepath.Join(dir, step.name)
		if _, err := os.Stat(file); err == nil {
			continue
		}
		err := labStep(ctx, step.do)
		text := "ok"
		if err != nil {
			text = err.Error()
		}
		_ = os.WriteFile(file+".new", []byte(text), 0o600)
		_ = os.Rename(file+".new", file)
		break
	}
	time.Sleep(time.Hour)
}

func labStep(ctx context.Context, do func(context.Context, *Set, *Store) error) error {
	set, err := Receive()
	if err != nil {
		return err
	}
	s, err := Open(labCount)
	if err != nil {
		return err
	}
	if err := do(ctx, set, s); err != nil {
		return err
	}
	return s.notify.send(ctx, "READY=1")
}

func labCount(ctx context.Context) (uint32, error) {
	out, err := exec.CommandContext(ctx, "systemctl", "show", "-P", "NFileDescriptorStore", os.Getenv("FDSTORE_LAB_UNIT")).Output()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 32)
	return uint32(n), err
}

func stepFill(ctx context.Context, set *Set, s *Store) error {
	if names := set.Names(); len(names) != 0 {
		return fmt.Errorf("received %v", names)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	if _, err := w.WriteString("hello"); err != nil {
		return err
	}
	if err := s.PutAll(ctx, []Item{{"pipe.r", r}, {"pipe.w", w}}); err != nil {
		return err
	}
	// Another descriptor of the same description is skipped by systemd, whatever its name.
	if err := s.Put(ctx, "other name", r); !errors.Is(err, ErrRefused) {
		return fmt.Errorf("stored twice: %w", err)
	}
	begun := time.Now()
	if err := s.Put(ctx, "many", pipes(150)...); err != nil { // 300 descriptors
		return err
	}
	fmt.Println("300 descriptors stored in", time.Since(begun))
	begun = time.Now()
	for range 10 {
		if err := s.Barrier(ctx); err != nil {
			return err
		}
	}
	fmt.Println("10 barriers in", time.Since(begun))
	if err := counted(ctx, s, 302); err != nil {
		return err
	}
	if err := s.Put(ctx, "too many", pipes(150)...); !errors.Is(err, ErrRefused) {
		return fmt.Errorf("600 fit, 602 were stored: %w", err)
	}
	if err := counted(ctx, s, 600); err != nil {
		return err
	}
	if err := s.Remove(ctx, "too many", "never there"); err != nil {
		return err
	}
	file, err := os.CreateTemp("", "")
	if err != nil {
		return err
	}
	for range 2 { // the second time it is already there
		if err := s.Replace(ctx, "replaced", file); err != nil {
			return fmt.Errorf("replace: %w", err)
		}
	}
	return counted(ctx, s, 303)
}

func stepRestarted(ctx context.Context, set *Set, s *Store) error {
	if got, want := fmt.Sprint(set.Names()), "[many pipe.r pipe.w replaced]"; got != want {
		return fmt.Errorf("received %s, not %s", got, want)
	}
	if n := len(set.TakeAll("many")); n != 300 {
		return fmt.Errorf("%d of many", n)
	}
	r := set.Take("pipe.r")
	if err := r.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("a non-blocking pipe is not in the poller: %w", err)
	}
	b := make([]byte, 100)
	n, err := r.Read(b)
	if err != nil || string(b[:n]) != "hello" {
		return fmt.Errorf("read %q: %w", b[:n], err)
	}
	if err := s.Remove(ctx, "many"); err != nil {
		return err
	}
	// The other end has been closed everywhere but in the store, and FDPOLL=0 keeps this one there too.
	if err := s.Remove(ctx, "pipe.w"); err != nil {
		return err
	}
	set.Close()
	if n, err := r.Read(b); n != 0 || err == nil {
		return fmt.Errorf("no EOF after the last write end was removed: %d, %w", n, err)
	}
	return counted(ctx, s, 2)
}

func stepKilled(ctx context.Context, set *Set, s *Store) error {
	if got, want := fmt.Sprint(set.Names()), "[pipe.r replaced]"; got != want {
		return fmt.Errorf("received %s, not %s", got, want)
	}
	return counted(ctx, s, 2)
}

func counted(ctx context.Context, s *Store, want uint32) error {
	if n, err := s.Count(ctx); err != nil || n != want {
		return fmt.Errorf("%d descriptors are stored, not %d: %w", n, want, err)
	}
	return nil
}

// pipes returns both ends of n pipes.
func pipes(n int) []*os.File {
	var files []*os.File
	for range n {
		r, w, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		files = append(files, r, w)
	}
	return files
}

// report waits for the report of a step and fails if it tells of an error.
func report(t *testing.T, dir, step string) {
	t.Helper()
	for range 200 {
		text, err := os.ReadFile(filepath.Join(dir, step))
		if err == nil {
			assert.Assert(t, is.Equal(string(text), "ok"), step)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("no report of step %q", step)
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	assert.NilError(t, err, "%v: %s", argv, out)
}
