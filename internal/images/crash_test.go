package images

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// workerEnv makes this binary, run again, work on a store as another process.
const workerEnv = "LRD_TEST_WORKER"

// crashRounds is how often a process is killed: few, or with LRD_SOAK many.
func crashRounds() int {
	if os.Getenv("LRD_SOAK") != "" {
		return 50
	}
	return 4
}

// A process that is killed at any point of a load, a pull, a removal or a root filesystem's life
// leaves nothing that the next one does not put right: every image is whole, no layer belongs to
// nobody, nothing is on its way in.
func TestKilledAtAnyPoint(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: unpacking a layer needs root (chroot, chown)")
	}
	dir := t.TempDir()
	r := startRegistry(t, nil)
	pulled, loaded := crashImage(t, "pulled"), crashImage(t, "loaded")
	loaded.tags = []string{"loaded:1"}
	r.push(t, "x", "1", pulled)
	archive := filepath.Join(dir, "archive.tar")
	assert.NilError(t, os.WriteFile(archive, dockerArchive(t, []testImage{loaded}), 0o600))

	var cost time.Duration
	rounds := crashRounds()
	for range rounds {
		killWorker(t, dir, archive, r.host+"/x:1")
		began := time.Now()
		s := openStoreIn(t, dir, func(o *Options) { o.Driver = "overlay" })
		cost += time.Since(began)
		assertWhole(t, s)
		assert.NilError(t, s.Close())
	}
	t.Logf("%d kills, each followed by a start that took %s", rounds, (cost / time.Duration(rounds)).Round(time.Millisecond))
}

// crashImage has three layers of some size.
func crashImage(t *testing.T, name string) testImage {
	img := simpleImage(t, name)
	for i := range 2 {
		files := []file{{name: "d/"}}
		for n := range 50 {
			files = append(files, file{name: fmt.Sprintf("d/%d-%d", i, n), body: string(bytes.Repeat([]byte(name), 2000))})
		}
		img.layers = append(img.layers, tarball(t, files...))
	}
	return img
}

// killWorker lets another process work on the store, and kills it and its children in the middle of that.
func killWorker(t *testing.T, args ...string) {
	t.Helper()
	self, err := os.Executable()
	assert.NilError(t, err)
	cmd := exec.CommandContext(t.Context(), self, append([]string{"loop"}, args...)...)
	cmd.Env = append(os.Environ(), workerEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	// After some steps, and some time into the next one.
	lines := bufio.NewScanner(out)
	for range 1 + rand.IntN(5) {
		assert.Assert(t, lines.Scan(), "the worker has ended by itself")
		t.Log("did", lines.Text())
	}
	time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
	assert.NilError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
	_, err = io.Copy(io.Discard, out) // until the last of them is gone
	assert.NilError(t, err)
	_ = cmd.Wait()
}

// inOtherProcess has another process do one thing to the store below dir.
func inOtherProcess(t *testing.T, do, dir, arg string) {
	t.Helper()
	self, err := os.Executable()
	assert.NilError(t, err)
	cmd := exec.CommandContext(t.Context(), self, do, dir, arg)
	t.Cleanup(func() { unmountHome(dir) })
	cmd.Env = append(os.Environ(), workerEnv+"=1")
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s", out)
}

// work is what a worker does: "load" an archive into a store, "remove" an image, or all sorts of things in a
// "loop" until it is killed. The directory of the store is the first argument after that.
func work(args []string) error {
	ctx := context.Background()
	s, err := Open(ctx, Options{
		GraphRoot: filepath.Join(args[1], "graph"), RunRoot: filepath.Join(args[1], "run"), TempDir: filepath.Join(args[1], "tmp"),
		Driver: "overlay", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	switch args[0] {
	case "load":
		return loadFile(ctx, s, args[2])
	case "remove":
		_, err := s.Remove(ctx, args[2], false, nil)
		return err
	}
	return loop(ctx, s, args[2], args[3])
}

func loadFile(ctx context.Context, s *Store, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.Load(ctx, f, nil)
}

// loop goes through the life of two images, one of an archive and one of a registry, again and again.
func loop(ctx context.Context, s *Store, archive, ref string) error {
	const container = zeros64
	if err := s.RemoveRootfs(ctx, container); err != nil { // of the one before
		return err
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"load", func() error { return loadFile(ctx, s, archive) }},
		{"pull", func() error { return s.Pull(ctx, ref, PullOptions{}, nil) }},
		{"tag", func() error { return s.Tag(ctx, "loaded:1", "again:1") }},
		{"create", func() error {
			img, err := s.resolve("loaded:1")
			if err != nil {
				return err
			}
			return s.CreateRootfs(ctx, container, img.ID.String())
		}},
		{"remove a root filesystem", func() error { return s.RemoveRootfs(ctx, container) }},
		{"remove what was pulled", func() error { _, err := s.Remove(ctx, ref, false, nil); return err }},
		{"untag", func() error { _, err := s.Remove(ctx, "again:1", false, nil); return err }},
		{"remove what was loaded", func() error { _, err := s.Remove(ctx, "loaded:1", false, nil); return err }},
	}
	for {
		for _, step := range steps {
			if err := step.do(); err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
			fmt.Println(step.name)
		}
	}
}

// assertWhole checks a store after a crash: the storage's own check finds nothing, and what has no
// image is noted by a pull.
func assertWhole(t *testing.T, s *Store) {
	t.Helper()
	list, err := s.List(t.Context(), ListOptions{})
	assert.NilError(t, err)
	stored, err := s.visible()
	assert.NilError(t, err)
	assert.Equal(t, len(list), len(stored), "an image cannot be read")
	noted, err := s.notedLayers(keepInterrupted)
	assert.NilError(t, err)
	layers, err := s.storage.Layers()
	assert.NilError(t, err)
	used, err := s.usedLayers(layers, nil)
	assert.NilError(t, err)
	for _, l := range layers {
		assert.Assert(t, used[l.ID] || noted[l.UncompressedDigest], "layer %s belongs to nobody", l.ID)
	}
	assertSound(t, s)
}
