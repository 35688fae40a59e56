package containers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/selinux/go-selinux/label"

	"lrd/internal/oci"
)

// labelsOf are the SELinux labels of a container's processes and of its files; empty for a container that asks for none, and on
// a host without SELinux.
func (m *Manager) labelsOf(r *Record) (process, files string, err error) {
	if len(oci.LabelOptions(r.HostConfig)) == 0 {
		return "", "", nil
	}
	return m.o.Images.RootfsLabels(r.ID)
}

// labelMounts gives what is mounted into a container a label that it may use: what is asked for with z, to be shared with
// others, or Z, and its volumes, as Docker does.
func labelMounts(mounts []oci.Mount, files string) error {
	if files == "" {
		return nil
	}
	for _, mt := range mounts {
		asked, shared := wantsLabel(mt)
		if !asked {
			continue
		}
		if err := label.Relabel(mt.HostPath, files, shared); err != nil {
			return fmt.Errorf("cannot label %s: %w", mt.HostPath, err)
		}
	}
	return nil
}

// wantsLabel says whether a mount is to be labelled, and for one container or for all.
func wantsLabel(mt oci.Mount) (asked, shared bool) {
	words := strings.Split(mt.Mode, ",")
	switch {
	case slices.Contains(words, "Z"):
		return true, false
	case slices.Contains(words, "z"):
		return true, true
	}
	return mt.Type == mount.TypeVolume, true
}

// labelFiles gives files of lrd's own that a container uses its label.
func labelFiles(files string, paths ...string) error {
	if files == "" {
		return nil
	}
	for _, p := range paths {
		if p == "" {
			continue
		}
		if err := label.SetFileLabel(p, files); err != nil {
			return fmt.Errorf("cannot label %s: %w", p, err)
		}
	}
	return nil
}
