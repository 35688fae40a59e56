package images

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
)

// gate lets any number of loads and pulls run side by side, and runs the
// collector when none is left and one has failed. A layer without an image is
// rubbish only then: before, it may be the lower half of an image that is just
// coming in.
type gate struct {
	// collect deletes layers without an image, but for those that a pull has
	// noted less than this long ago.
	collect func(keep time.Duration) error

	// mu guards what follows. It is held while collecting, so that nobody
	// comes in meanwhile; it is never held while an image is read.
	mu      sync.Mutex
	running int
	dirty   bool
}

// enter notes that an image is coming in.
func (g *gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running++
}

// leave notes that it is in, or with failed that it is not. The error is the
// collector's.
func (g *gate) leave(failed bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.dirty = g.dirty || failed
	if g.running > 0 || !g.dirty {
		return nil
	}
	return g.collectLocked(keepInterrupted)
}

// sweep runs the collector at once, if no image is coming in, and leaves
// nothing for pulls to take up again.
func (g *gate) sweep() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running > 0 {
		g.dirty = true // whoever is last does it
		return nil
	}
	return g.collectLocked(0)
}

func (g *gate) collectLocked(keep time.Duration) error {
	if err := g.collect(keep); err != nil {
		return err
	}
	g.dirty = false
	return nil
}

// collect deletes the layers that belong to no image, no root filesystem and no
// pull that began less than keep ago.
func (s *Store) collect(keep time.Duration) error {
	noted, err := s.notedLayers(keep)
	if err != nil {
		return err
	}
	layers, err := s.storage.Layers()
	if err != nil {
		return fmt.Errorf("cannot list layers: %w", err)
	}
	used, err := s.usedLayers(layers, noted)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range childrenFirst(layers) {
		if used[l.ID] || l.ReadOnly {
			continue
		}
		s.log.Info("deleting a layer that no image uses", "layer", l.ID)
		if err := s.storage.DeleteLayer(l.ID); err != nil && !errors.Is(err, storage.ErrLayerUnknown) && !errors.Is(err, storage.ErrNotALayer) {
			errs = append(errs, fmt.Errorf("cannot delete layer %s: %w", l.ID, err))
		}
	}
	return errors.Join(errs...)
}

// usedLayers is the set of IDs of layers that an image, a root filesystem or a layer that a pull has noted stands on.
func (s *Store) usedLayers(layers []storage.Layer, noted map[digest.Digest]bool) (map[string]bool, error) {
	parents := make(map[string]string, len(layers))
	for _, l := range layers {
		parents[l.ID] = l.Parent
	}
	used := map[string]bool{}
	use := func(id string) {
		for id != "" && !used[id] {
			used[id] = true
			id = parents[id]
		}
	}
	for _, l := range layers {
		if noted[l.UncompressedDigest] {
			use(l.ID)
		}
	}
	images, err := s.storage.Images()
	if err != nil {
		return nil, fmt.Errorf("cannot list images: %w", err)
	}
	for _, i := range images {
		use(i.TopLayer)
		for _, id := range i.MappedTopLayers {
			use(id)
		}
	}
	containers, err := s.storage.Containers()
	if err != nil {
		return nil, fmt.Errorf("cannot list root filesystems: %w", err)
	}
	for _, c := range containers {
		use(c.LayerID)
	}
	return used, nil
}

// childrenFirst orders layers so that each comes before the one it stands on.
func childrenFirst(layers []storage.Layer) []storage.Layer {
	children := map[string][]storage.Layer{}
	known := map[string]bool{}
	for _, l := range layers {
		known[l.ID] = true
	}
	for _, l := range layers {
		parent := l.Parent
		if !known[parent] {
			parent = ""
		}
		children[parent] = append(children[parent], l)
	}
	ordered := make([]storage.Layer, 0, len(layers))
	var add func(parent string)
	add = func(parent string) {
		for _, l := range children[parent] {
			add(l.ID)
			ordered = append(ordered, l)
		}
	}
	add("")
	return ordered
}
