package images

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// busyboxLike is an image about as large as busybox: one file of 4 MB and 400
// links to it.
func busyboxLike(b *testing.B) testImage {
	b.Helper()
	body := make([]byte, 4<<20)
	_, _ = rand.Read(body)
	files := []file{{name: "bin/"}, {name: "bin/busybox", body: string(body)}}
	for i := range 400 {
		files = append(files, file{name: fmt.Sprintf("bin/cmd%d", i), hard: "bin/busybox"})
	}
	return testImage{tags: []string{"busybox:latest"}, layers: [][]byte{tarball(b, files...)}}
}

func BenchmarkStore(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("SKIPPED: mounting overlay needs root")
	}
	dir := b.TempDir()
	s, err := Open(b.Context(), Options{
		GraphRoot: filepath.Join(dir, "graph"), RunRoot: filepath.Join(dir, "run"), TempDir: filepath.Join(dir, "tmp"),
		Log: discard,
	})
	assert.NilError(b, err)
	defer s.Close() // the directory goes
	img := busyboxLike(b)
	archive := dockerArchive(b, []testImage{img})
	ctx := b.Context()
	b.Run("load and remove", func(b *testing.B) {
		for b.Loop() {
			assert.NilError(b, s.Load(ctx, bytes.NewReader(archive), nil))
			b.StopTimer()
			_, err := s.Remove(ctx, "busybox", false, nil)
			assert.NilError(b, err)
			b.StartTimer()
		}
	})
	assert.NilError(b, s.Load(ctx, bytes.NewReader(archive), nil))
	id := img.id(b).String()
	b.Run("create", func(b *testing.B) {
		for b.Loop() {
			assert.NilError(b, s.CreateRootfs(ctx, zeros64, id))
			b.StopTimer()
			assert.NilError(b, s.RemoveRootfs(ctx, zeros64))
			b.StartTimer()
		}
	})
	assert.NilError(b, s.CreateRootfs(ctx, zeros64, id))
	b.Run("mount", func(b *testing.B) {
		for b.Loop() {
			_, err := s.MountRootfs(ctx, zeros64)
			assert.NilError(b, err)
			b.StopTimer()
			assert.NilError(b, s.UnmountRootfs(ctx, zeros64))
			b.StartTimer()
		}
	})
	_, err = s.MountRootfs(ctx, zeros64)
	assert.NilError(b, err)
	b.Run("mount again", func(b *testing.B) {
		for b.Loop() {
			_, err := s.MountRootfs(ctx, zeros64)
			assert.NilError(b, err)
		}
	})
	b.Run("resolve", func(b *testing.B) {
		for b.Loop() {
			_, err := s.Resolve(ctx, "busybox")
			assert.NilError(b, err)
		}
	})
	b.Run("remove", func(b *testing.B) {
		for b.Loop() {
			assert.NilError(b, s.RemoveRootfs(ctx, zeros64))
			b.StopTimer()
			assert.NilError(b, s.CreateRootfs(ctx, zeros64, id))
			_, err := s.MountRootfs(ctx, zeros64)
			assert.NilError(b, err)
			b.StartTimer()
		}
	})
	assert.NilError(b, s.RemoveRootfs(ctx, zeros64))
}
