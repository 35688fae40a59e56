package containers

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// Changes tells what of a container's files is not as in its image (`docker diff`), by path. Places that the runtime
// has made to mount something on are none of the container's doing, and are left out.
func (m *Manager) Changes(ctx context.Context, ref string) (_ []container.FilesystemChange, err error) {
	c, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	_, release, err := m.holdRootfs(ctx, c)
	if err != nil {
		return nil, err
	}
	all, err := m.o.Images.RootfsChanges(ctx, c.id)
	if err := release(); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	r, _ := c.snapshot()
	return withoutPlaces(all, &r), nil
}

// withoutPlaces leaves out what was added as a place to mount on, and the directories that differ for nothing else.
func withoutPlaces(all []container.FilesystemChange, r *Record) []container.FilesystemChange {
	places := append(stubs(r), "/dev", "/proc", "/sys")
	for _, mt := range r.Mounts {
		places = append(places, mt.Target)
	}
	kept := []container.FilesystemChange{}
	emptied := map[string]bool{} // directories that a place was in
	for _, change := range slices.Backward(all) {
		within := func(other container.FilesystemChange) bool { return strings.HasPrefix(other.Path, change.Path+"/") }
		switch {
		case change.Kind == container.ChangeAdd && place(change.Path, places) && !slices.ContainsFunc(kept, within):
			emptied[path.Dir(change.Path)] = true
		case change.Kind == container.ChangeModify && emptied[change.Path] && !slices.ContainsFunc(kept, within):
			emptied[path.Dir(change.Path)] = true
		default:
			kept = append(kept, change)
		}
	}
	slices.Reverse(kept)
	return kept
}

// place says whether something is mounted at a path, or below it: the directories on the way are made too.
func place(p string, places []string) bool {
	return slices.ContainsFunc(places, func(at string) bool { return at == p || strings.HasPrefix(at, p+"/") })
}
