package oci

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// addDevices makes the nodes of --device, and all of the host's for a
// privileged container. The usual ones (null, zero, full, random, urandom,
// tty, ptmx, console) are the runtime's own.
func addDevices(s *specs.Spec, in *Input) error {
	if in.Host.Privileged && in.Machine.Devices != nil {
		all, err := in.Machine.Devices("/dev")
		if err != nil {
			return fmt.Errorf("cannot list the host's devices: %w", err)
		}
		s.Linux.Devices = all
	}
	for _, mapping := range in.Host.Devices {
		devices, err := mappedDevices(mapping, in.Machine)
		if err != nil {
			return err
		}
		for _, d := range devices {
			s.Linux.Devices = slices.DeleteFunc(s.Linux.Devices, func(o specs.LinuxDevice) bool { return o.Path == d.Path })
			s.Linux.Devices = append(s.Linux.Devices, d)
		}
	}
	return nil
}

// mappedDevices are the devices of one --device, with the paths that they get
// in the container.
func mappedDevices(mapping container.DeviceMapping, m Machine) ([]specs.LinuxDevice, error) {
	source := mapping.PathOnHost
	target := mapping.PathInContainer
	if target == "" {
		target = source
	}
	if m.Devices == nil {
		return nil, invalid("error gathering device information while adding custom device %q: devices are not available", source)
	}
	devices, err := m.Devices(source)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &kindError{
			fmt.Sprintf("error gathering device information while adding custom device %q: no such file or directory", source),
			errdefs.ErrNotFound,
		}
	case err != nil:
		return nil, invalid("error gathering device information while adding custom device %q: %v", source, err)
	case len(devices) == 0:
		return nil, invalid("error gathering device information while adding custom device %q: not a device node", source)
	}
	mapped := slices.Clone(devices)
	for i := range mapped {
		// The device at the path itself (or behind the link there) takes the
		// target's name; those below a directory keep their names under it.
		below, isBelow := strings.CutPrefix(mapped[i].Path, path.Clean(source)+"/")
		if isBelow {
			mapped[i].Path = path.Join(target, below)
		} else {
			mapped[i].Path = path.Clean(target)
		}
	}
	return mapped, nil
}
