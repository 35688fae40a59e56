package api

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"lrd/internal/containers"
)

// createBody is the body of POST /containers/create.
type createBody struct {
	*container.Config
	HostConfig       *container.HostConfig
	NetworkingConfig *network.NetworkingConfig
	oldCreateFields
}

// createRequest parses a create. What is checked here is what can be told from the request alone; whether it
// can be fulfilled is the Manager's.
func (r *request) createRequest(w http.ResponseWriter) (req containers.CreateRequest, warnings []string, err error) {
	var body createBody
	if err := r.decode(w, &body); err != nil {
		return req, nil, err
	}
	if body.Config == nil {
		return req, nil, invalid("config cannot be empty in order to create a container")
	}
	q := r.query()
	req = containers.CreateRequest{
		Name:             strings.TrimPrefix(q.text("name"), "/"),
		Config:           body.Config,
		HostConfig:       body.HostConfig,
		NetworkingConfig: body.NetworkingConfig,
		Platform:         q.platform(),
	}
	if q.err != nil {
		return req, nil, q.err
	}
	fillCreate(&req)
	if warnings, err = createFrom(r.version, body.oldCreateFields, &req); err != nil {
		return req, nil, err
	}
	return req, warnings, checkCreate(req)
}

// fillCreate makes what may be left out of a create what it stands for, so that nobody behind the API asks for nil.
func fillCreate(req *containers.CreateRequest) {
	if req.HostConfig == nil {
		req.HostConfig = &container.HostConfig{}
	}
	if req.HostConfig.NetworkMode == "" {
		req.HostConfig.NetworkMode = network.NetworkDefault
	}
	if req.NetworkingConfig == nil {
		req.NetworkingConfig = &network.NetworkingConfig{}
	}
	for name, ep := range req.NetworkingConfig.EndpointsConfig {
		if ep == nil {
			req.NetworkingConfig.EndpointsConfig[name] = &network.EndpointSettings{}
		}
	}
	if n := req.HostConfig.PidsLimit; n != nil && *n <= 0 {
		req.HostConfig.PidsLimit = nil // 0 and -1 both mean: no limit
	}
}

// checkCreate refuses values that no version of the API knows, and names their field.
func checkCreate(req containers.CreateRequest) error {
	h := req.HostConfig
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return invalid("invalid value for HostConfig.RestartPolicy: %v", err)
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return invalid("can't create 'AutoRemove' container with restart policy")
	}
	for _, c := range []struct {
		field, value string
		ok           bool
	}{
		{"HostConfig.CgroupnsMode", string(h.CgroupnsMode), h.CgroupnsMode.Valid()},
		{"HostConfig.IpcMode", string(h.IpcMode), h.IpcMode.Valid()},
		{"HostConfig.PidMode", string(h.PidMode), h.PidMode.Valid()},
		{"HostConfig.UTSMode", string(h.UTSMode), h.UTSMode.Valid()},
		{"HostConfig.UsernsMode", string(h.UsernsMode), h.UsernsMode.Valid()},
		{"HostConfig.Cgroup", string(h.Cgroup), h.Cgroup.Valid()},
		{"HostConfig.Isolation", string(h.Isolation), h.Isolation.IsDefault()},
	} {
		if !c.ok {
			return invalid("invalid value for %s: %q", c.field, c.value)
		}
	}
	for _, c := range []struct {
		field string
		value int64
		least int64
	}{
		{"HostConfig.Memory", h.Memory, 0},
		{"HostConfig.MemoryReservation", h.MemoryReservation, 0},
		{"HostConfig.MemorySwap", h.MemorySwap, -1},
		{"HostConfig.NanoCpus", h.NanoCPUs, 0},
		{"HostConfig.CpuShares", h.CPUShares, 0},
		{"HostConfig.CpuPeriod", h.CPUPeriod, 0},
		{"HostConfig.CpuQuota", h.CPUQuota, -1},
		{"HostConfig.ShmSize", h.ShmSize, 0},
		{"HostConfig.OomScoreAdj", int64(h.OomScoreAdj), -1000},
	} {
		if c.value < c.least {
			return invalid("invalid value for %s: %d is less than %d", c.field, c.value, c.least)
		}
	}
	if h.OomScoreAdj > 1000 {
		return invalid("invalid value for HostConfig.OomScoreAdj: %d is more than 1000", h.OomScoreAdj)
	}
	if t := req.Config.StopTimeout; t != nil && *t < -1 {
		return invalid("invalid value for StopTimeout: %d; -1 waits for ever", *t)
	}
	return checkMounts(h.Mounts)
}

func checkMounts(mounts []mount.Mount) error {
	for i, m := range mounts {
		field := fmt.Sprintf("HostConfig.Mounts[%d]", i)
		switch m.Type {
		case mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs:
		case mount.TypeImage, mount.TypeCluster, mount.TypeNamedPipe:
			return notImplemented(fmt.Sprintf("%s: lrd has no mounts of type %q", field, string(m.Type)))
		default:
			return invalid("invalid value for %s.Type: mount type %q unknown", field, string(m.Type))
		}
		if m.Target == "" {
			return invalid("invalid value for %s.Target: it must not be empty", field)
		}
		for name, wrong := range map[string]bool{
			"BindOptions":   m.BindOptions != nil && m.Type != mount.TypeBind,
			"VolumeOptions": m.VolumeOptions != nil && m.Type != mount.TypeVolume,
			"TmpfsOptions":  m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs,
		} {
			if wrong {
				return invalid("%s must not be specified on mount type %q", name, string(m.Type))
			}
		}
	}
	return nil
}
