package containers

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"

	"gotest.tools/v3/assert"

	"lrd/internal/fdstore"
)

// fakeStore is systemd's descriptor store: it has descriptors of its own, and
// several of one name if nobody takes care.
type fakeStore struct {
	*faults
	mu    sync.Mutex
	files map[string][]*os.File
}

func (s *fakeStore) PutAll(_ context.Context, items []fdstore.Item) error {
	if err := s.hit("Descriptors.PutAll"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, item := range items {
		f, err := duplicate(item.File)
		if err != nil {
			return err
		}
		s.files[item.Name] = append(s.files[item.Name], f)
	}
	return nil
}

func (s *fakeStore) Remove(_ context.Context, names ...string) error {
	if err := s.hit("Descriptors.Remove"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		for _, f := range s.files[name] {
			_ = f.Close()
		}
		delete(s.files, name)
	}
	return nil
}

func (s *fakeStore) Replace(ctx context.Context, name string, file *os.File) error {
	return errors.Join(s.Remove(ctx, name), s.PutAll(ctx, []fdstore.Item{{Name: name, File: file}}))
}

func (s *fakeStore) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.files))
}

// handBack is what systemd gives to the next daemon: duplicates, as over an exec.
func (s *fakeStore) handBack(t *testing.T) *handedBack {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &handedBack{files: map[string][]*os.File{}}
	for name, files := range s.files {
		for _, f := range files {
			again, err := duplicate(f)
			assert.NilError(t, err)
			h.files[name] = append(h.files[name], again)
		}
	}
	t.Cleanup(func() {
		for _, files := range h.files {
			for _, f := range files {
				_ = f.Close()
			}
		}
	})
	return h
}

// handedBack is a Stored.
type handedBack struct{ files map[string][]*os.File }

func (h *handedBack) Names() []string { return slices.Sorted(maps.Keys(h.files)) }

func (h *handedBack) Take(name string) *os.File {
	files := h.files[name]
	if len(files) == 0 {
		return nil
	}
	if h.files[name] = files[1:]; len(files) == 1 {
		delete(h.files, name)
	}
	return files[0]
}
