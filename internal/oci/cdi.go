package oci

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
)

// cdiDriver is what clients call a request for devices by their CDI names.
const cdiDriver = "cdi"

// checkDeviceRequests refuses requests for devices that no host could satisfy:
// what is left names CDI devices (`--device vendor.com/class=name`), or asks for GPUs (`--gpus`).
func checkDeviceRequests(requests []container.DeviceRequest) error {
	for _, r := range requests {
		if r.Driver != cdiDriver {
			if !wantsGPU(r) {
				return unsupported("could not select device driver %q with capabilities: %v", r.Driver, r.Capabilities)
			}
			continue
		}
		if len(r.DeviceIDs) == 0 {
			return invalid("invalid device request: no CDI device is named")
		}
		for _, name := range r.DeviceIDs {
			if _, _, _, err := parser.ParseQualifiedName(name); err != nil {
				return invalid("invalid CDI device name %q: it must be vendor.com/class=name", name)
			}
		}
	}
	return nil
}

// wantsGPU says whether one of the alternatives that a request names is a GPU.
func wantsGPU(r container.DeviceRequest) bool {
	return slices.ContainsFunc(r.Capabilities, func(all []string) bool { return slices.Contains(all, "gpu") })
}

// InjectCDI adds to a Spec what the CDI devices (Container Device Interface) of a
// request bring along: device nodes, mounts, variables and hooks, as the
// descriptions say that vendors' tools have put into dirs, the last one counting most. It
// returns what the unit has to allow besides. Errors are ErrInvalidArgument.
func InjectCDI(s *specs.Spec, requests []container.DeviceRequest, dirs []string) ([]DeviceAllow, error) {
	if len(requests) == 0 {
		return nil, nil
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil, invalid("cannot read the descriptions of CDI devices: %v", err)
	}
	var names []string
	for _, r := range requests {
		if r.Driver == cdiDriver {
			names = append(names, r.DeviceIDs...)
			continue
		}
		gpus, err := gpuNames(r, cache.ListDevices(), dirs)
		if err != nil {
			return nil, err
		}
		names = append(names, gpus...)
	}
	if unknown, err := cache.InjectDevices(s, names...); err != nil {
		if len(unknown) > 0 {
			return nil, invalid("CDI device injection failed: unresolvable CDI devices %s; the descriptions in %s have %s", strings.Join(unknown, ", "),
				strings.Join(dirs, " and "), cmp.Or(strings.Join(cache.ListDevices(), ", "), "none"))
		}
		return nil, invalid("CDI device injection failed: %v", err)
	}
	return allowInjected(s), nil
}

// allowInjected moves what injected devices may be used for from the Spec to the unit.
func allowInjected(s *specs.Spec) []DeviceAllow {
	if s.Linux == nil || s.Linux.Resources == nil {
		return nil
	}
	var allow []DeviceAllow
	for _, d := range s.Linux.Resources.Devices {
		if d.Allow && d.Major != nil && d.Minor != nil {
			allow = append(allow, DeviceAllow{numberedNode(d.Type, *d.Major, *d.Minor), cmp.Or(d.Access, "rwm")})
		}
	}
	s.Linux.Resources = nil
	return allow
}

// gpuNames are the CDI devices that `--gpus` asks for: all of the class gpu of one vendor, so many, or certain ones.
func gpuNames(r container.DeviceRequest, known, dirs []string) ([]string, error) {
	kind := ""
	var gpus []string
	for _, name := range known { // sorted
		vendor, class, device, err := parser.ParseQualifiedName(name)
		if err != nil || class != "gpu" || r.Driver != "" && !strings.HasPrefix(vendor, r.Driver+".") {
			continue
		}
		if kind = cmp.Or(kind, vendor+"/"+class); kind == vendor+"/"+class {
			gpus = append(gpus, device)
		}
	}
	if kind == "" {
		return nil, invalid("could not select device driver %q with capabilities: %v: there are no CDI devices of a class gpu in %s; the vendor's toolkit makes their descriptions, "+
			"as nvidia-ctk cdi generate does", r.Driver, r.Capabilities, strings.Join(dirs, " and "))
	}
	chosen := r.DeviceIDs
	if len(chosen) == 0 {
		numbered := slices.DeleteFunc(slices.Clone(gpus), func(g string) bool { _, err := strconv.Atoi(g); return err != nil })
		switch {
		case r.Count >= 0 && r.Count > len(numbered):
			return nil, invalid("cannot give the container %d GPUs: there are %d", r.Count, len(numbered))
		case r.Count >= 0:
			chosen = numbered[:r.Count]
		case slices.Contains(gpus, "all"):
			chosen = []string{"all"}
		default:
			chosen = gpus
		}
	}
	names := make([]string, len(chosen))
	for i, device := range chosen {
		names[i] = kind + "=" + device
	}
	return names, nil
}
