package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/opencontainers/go-digest"
)

// keepInterrupted is how long the layers of a pull that was interrupted wait for the
// next one: long enough for a person who comes back to it on the next day.
const keepInterrupted = 24 * time.Hour

// pullNote says of a pull that is under way, or was interrupted, which layers it
// brings. It is a file below GraphRoot/lrd/pulls, named by the image's ID. What
// the collector finds without an image stays if a note has it; everything else
// goes.
type pullNote struct {
	// Ref is what was pulled.
	Ref string `json:"ref"`
	// Since is when the last pull of it began.
	Since time.Time `json:"since"`
	// Layers are the digests of the uncompressed layers.
	Layers []digest.Digest `json:"layers"`
}

func (s *Store) notesDir() string { return filepath.Join(s.opts.GraphRoot, "lrd", "pulls") }

func (s *Store) notePath(id digest.Digest) string {
	return filepath.Join(s.notesDir(), id.Encoded()+".json")
}

// notePull writes a note.
func (s *Store) notePull(id digest.Digest, n pullNote) error {
	raw, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("cannot note a pull: %w", err)
	}
	if err := os.MkdirAll(s.notesDir(), 0o700); err != nil {
		return fmt.Errorf("cannot note a pull: %w", err)
	}
	if err := renameio.WriteFile(s.notePath(id), raw, 0o600, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("cannot note a pull: %w", err)
	}
	return nil
}

// forgetPull deletes a note.
func (s *Store) forgetPull(id digest.Digest) {
	if err := os.Remove(s.notePath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("cannot delete the note of a pull", "image", id, "error", err)
	}
}

// notedLayers are the layers that notes have. Notes that are older than age, or cannot be
// read, are deleted.
func (s *Store) notedLayers(age time.Duration) (map[digest.Digest]bool, error) {
	files, err := os.ReadDir(s.notesDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read the notes of pulls: %w", err)
	}
	noted := map[digest.Digest]bool{}
	for _, f := range files {
		path := filepath.Join(s.notesDir(), f.Name())
		var n pullNote
		raw, err := os.ReadFile(path)
		if err == nil && strings.HasSuffix(f.Name(), ".json") && json.Unmarshal(raw, &n) == nil && time.Since(n.Since) < age {
			for _, l := range n.Layers {
				noted[l] = true
			}
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot delete the note of a pull: %w", err)
		}
	}
	return noted, nil
}
