package volumes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/volume"
)

// Filters are the values given for each key of a list's filter, as the Docker
// API sends them. A value that maps to false does not count.
type Filters map[string]map[string]bool

// listKeys are the keys of `docker volume ls --filter`, and label! of prune.
var listKeys = []string{"dangling", "driver", "label", "label!", "name"}

// List lists the volumes that pass the filters, by name. Keys: name (a part of
// it is enough), driver, label and label! ("key" or "key=value"), dangling, for
// which inUse tells whether any container has a volume. A volume that cannot be
// read is told of in Warnings. Error: errdefs.ErrInvalidArgument for a filter
// that does not exist.
func (s *Store) List(ctx context.Context, f Filters, inUse func(name string) bool) (volume.ListResponse, error) {
	dangling, err := f.check()
	if err != nil {
		return volume.ListResponse{}, err
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return volume.ListResponse{}, fmt.Errorf("cannot list volumes: %w", err)
	}
	out := volume.ListResponse{Volumes: []volume.Volume{}}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return volume.ListResponse{}, err
		}
		if !e.IsDir() || CheckName(e.Name()) != nil {
			continue
		}
		m, err := s.read(e.Name())
		if errors.Is(err, errdefs.ErrNotFound) { // removed since
			continue
		}
		if err != nil {
			out.Warnings = append(out.Warnings, err.Error())
			continue
		}
		if dangling != nil && *dangling == (inUse != nil && inUse(m.Name)) {
			continue
		}
		if f.pass(m) {
			out.Volumes = append(out.Volumes, s.describe(m))
		}
	}
	slices.SortFunc(out.Volumes, func(a, b volume.Volume) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// values are the values given for key.
func (f Filters) values(key string) []string {
	var out []string
	for v, on := range f[key] {
		if on {
			out = append(out, v)
		}
	}
	return out
}

// check refuses unknown keys, and reads dangling: nil if it was not asked for.
func (f Filters) check() (dangling *bool, err error) {
	for key := range f {
		if !slices.Contains(listKeys, key) {
			return nil, newError(errdefs.ErrInvalidArgument, "invalid filter '%s'", key)
		}
	}
	for _, v := range f.values("dangling") {
		on, err := strconv.ParseBool(v)
		if err != nil || dangling != nil && *dangling != on {
			return nil, newError(errdefs.ErrInvalidArgument, "invalid value for filter 'dangling': %s", strings.Join(f.values("dangling"), ", "))
		}
		dangling = &on
	}
	return dangling, nil
}

// pass tells whether a volume has one of the names, one of the drivers, all of
// the labels, and none of those not wanted.
func (f Filters) pass(m metadata) bool {
	if names := f.values("name"); len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(m.Name, n) }) {
		return false
	}
	if drivers := f.values("driver"); len(drivers) > 0 && !slices.Contains(drivers, Driver) {
		return false
	}
	has := func(want string) bool {
		key, value, exact := strings.Cut(want, "=")
		got, ok := m.Labels[key]
		return ok && (!exact || got == value)
	}
	return !slices.ContainsFunc(f.values("label"), func(l string) bool { return !has(l) }) &&
		!slices.ContainsFunc(f.values("label!"), has)
}
