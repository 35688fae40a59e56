package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"lrd/internal/containers"
)

// This file holds what requests of older clients mean in the terms of MaxVersion. Each function says which
// version changed what; the changes are those of the API's version history.

// oldCreateFields are fields of a create that the types of MaxVersion have no more.
type oldCreateFields struct {
	// MacAddress of the container was replaced in 1.44 by that of its endpoint, and removed in 1.52.
	MacAddress string
}

// createFrom makes a create of version v one of MaxVersion.
func createFrom(v version, old oldCreateFields, req *containers.CreateRequest) (warnings []string, err error) {
	h := req.HostConfig
	if v.before(25) {
		h.AutoRemove = false // such clients remove the container themselves
	}
	if v.before(40) && h.IpcMode.IsEmpty() {
		h.IpcMode = container.IPCModeShareable // the default then
	}
	if v.before(42) {
		h.ConsoleSize = [2]uint{}
		dropMisplacedMountOptions(h.Mounts)
	}
	if v.before(43) {
		h.Annotations = nil
	}
	if v.before(44) {
		if err := createFromBefore144(req); err != nil {
			return nil, err
		}
	}
	if v.before(48) {
		for _, ep := range req.NetworkingConfig.EndpointsConfig {
			ep.GwPriority = 0
		}
	}
	w, err := moveMacAddress(v, old.MacAddress, req)
	if err != nil {
		return nil, err
	}
	return append(w, fillPortBindings(v, h)...), nil
}

// createFromBefore144: one endpoint at most, read-only binds that stop at the mount, and no start interval of
// health checks.
func createFromBefore144(req *containers.CreateRequest) error {
	if hc := req.Config.Healthcheck; hc != nil {
		hc.StartInterval = 0
	}
	if eps := req.NetworkingConfig.EndpointsConfig; len(eps) > 1 {
		return invalid("Container cannot be created with multiple network endpoints: %s", strings.Join(slices.Sorted(maps.Keys(eps)), ", "))
	}
	for i := range req.HostConfig.Mounts {
		m := &req.HostConfig.Mounts[i]
		if m.Type != mount.TypeBind {
			continue
		}
		if m.BindOptions != nil && m.BindOptions.ReadOnlyForceRecursive {
			return invalid("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
		}
		if m.ReadOnly {
			if m.BindOptions == nil {
				m.BindOptions = &mount.BindOptions{}
			}
			m.BindOptions.ReadOnlyNonRecursive = true
		}
	}
	return nil
}

// dropMisplacedMountOptions: before 1.42 options of another type of mount were let pass, and CreateMountpoint
// did not exist.
func dropMisplacedMountOptions(mounts []mount.Mount) {
	for i := range mounts {
		m := &mounts[i]
		if m.Type != mount.TypeVolume {
			m.VolumeOptions = nil
		}
		if m.Type != mount.TypeTmpfs {
			m.TmpfsOptions = nil
		}
		if m.BindOptions != nil {
			m.BindOptions.CreateMountpoint = false
		}
	}
}

// moveMacAddress moves the container's MAC address to its endpoint, where it belongs since 1.44. Since 1.52
// the old field is ignored like any unknown one.
func moveMacAddress(v version, mac string, req *containers.CreateRequest) (warnings []string, err error) {
	if mac == "" || !v.before(52) {
		return nil, nil
	}
	var addr network.HardwareAddr
	if err := addr.UnmarshalText([]byte(mac)); err != nil {
		return nil, invalid("invalid value for MacAddress: %v", err)
	}
	mode := req.HostConfig.NetworkMode
	if mode.IsHost() || mode.IsNone() || mode.IsContainer() {
		return nil, invalid("conflicting options: mac-address and the network mode")
	}
	eps := &req.NetworkingConfig.EndpointsConfig
	if *eps == nil {
		*eps = map[string]*network.EndpointSettings{}
	}
	ep := (*eps)[string(mode)]
	if ep == nil {
		ep = &network.EndpointSettings{}
		(*eps)[string(mode)] = ep
	}
	ep.MacAddress = addr
	if v.before(44) {
		return nil, nil
	}
	return []string{"The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."}, nil
}

// fillPortBindings: an empty list of bindings of a port meant any port of the host up to 1.52, and means none since.
func fillPortBindings(v version, h *container.HostConfig) (warnings []string) {
	var empty []string
	for port, bindings := range h.PortBindings {
		switch {
		case len(bindings) > 0:
		case v.before(53):
			h.PortBindings[port] = []network.PortBinding{{}}
			empty = append(empty, port.String())
		default:
			delete(h.PortBindings, port)
		}
	}
	if len(empty) == 0 || v.before(52) {
		return nil
	}
	slices.Sort(empty)
	return []string{fmt.Sprintf("Following container port(s) have an empty list of port-bindings: %s. Starting with API 1.53, such bindings will be discarded.",
		strings.Join(empty, ", "))}
}

// stopSignalOf: the signal of a stop came with 1.42; older clients may send something else under that name.
func stopSignalOf(v version, q *params) string {
	if v.before(42) {
		return ""
	}
	return q.text("signal")
}

// oldListFilters: before and since were parameters of their own before they became filters, and old clients
// still send them.
func oldListFilters(q *params, f containers.Filters) {
	for _, key := range []string{"before", "since"} {
		if s := q.text(key); s != "" && !f.Has(key) {
			f[key] = map[string]bool{s: true}
		}
	}
}

// oldImageFilter: up to 1.24 a pattern for names was the parameter filter, now the filter reference.
func oldImageFilter(v version, q *params, f containers.Filters) {
	if s := q.text("filter"); s != "" && v.before(25) && !f.Has("reference") {
		f["reference"] = map[string]bool{s: true}
	}
}

// pruneAllBefore142: up to 1.41 a prune of volumes took the named ones too.
func pruneAllBefore142(v version, f containers.Filters) {
	if v.before(42) && !f.Has("all") {
		f["all"] = map[string]bool{"true": true}
	}
}
