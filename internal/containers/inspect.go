package containers

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/storage"

	"lrd/internal/logdrivers"
	"lrd/internal/logopts"
)

// Inspect tells all there is to know about a container, as `docker inspect`
// does. size adds SizeRw and SizeRootFs, which costs a walk over the files.
//
// It answers for every container there is, also for one that this daemon cannot
// take back: what is not known then is left empty.
func (m *Manager) Inspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error) {
	c, err := m.find(ref)
	if err != nil {
		return container.InspectResponse{}, err
	}
	r, s := c.snapshot()
	config, host := configs(r)
	host.Resources = m.liveResources(ctx, c, r)
	argv := commandLine(config)
	data := m.dataDir(c.id)
	driver := cmp.Or(r.Home.StorageDriver, m.o.Images.Driver())

	response := container.InspectResponse{
		ID:              c.id,
		Created:         apiTime(r.Created),
		Path:            argv[0],
		Args:            argv[1:],
		State:           inspectState(s),
		Image:           r.ImageID,
		ResolvConfPath:  filepath.Join(data, "resolv.conf"),
		HostnamePath:    filepath.Join(data, "hostname"),
		HostsPath:       filepath.Join(data, "hosts"),
		LogPath:         m.logPath(&r),
		Name:            "/" + r.Name,
		RestartCount:    s.RestartCount,
		Driver:          driver,
		Platform:        "linux",
		HostConfig:      &host,
		GraphDriver:     &storage.DriverData{Name: driver, Data: m.rootfsData(ctx, c.id)},
		Mounts:          mountPoints(r),
		Config:          &config,
		NetworkSettings: networkSettings(r),
		ExecIDs:         m.execIDs(c),
	}
	response.State.Health = m.inspectHealth(&r, s)
	if size {
		rw, root, err := m.rootfsSize(ctx, c.id)
		if err != nil {
			return container.InspectResponse{}, err
		}
		response.SizeRw, response.SizeRootFs = &rw, &root
	}
	return response, ctx.Err()
}

// logPath is the file, or for lrd's own driver the directory, that a container's output goes to.
func (m *Manager) logPath(r *Record) string {
	_, host := configs(*r)
	if driver := host.LogConfig.Type; logdrivers.Forwards(driver) || driver == logopts.None {
		return logdrivers.LogPath(driver, m.dataDir(r.ID), r.ID)
	}
	return m.outputDir(r.ID)
}

// configs are copies of a Record's configurations, empty ones if it could not be read.
func configs(r Record) (container.Config, container.HostConfig) {
	var config container.Config
	var host container.HostConfig
	if r.Config != nil {
		config = *r.Config
	}
	if r.HostConfig != nil {
		host = *r.HostConfig
	}
	return config, host
}

// commandLine is the path and the arguments of the container's process. The
// path is empty if the Record could not be read.
func commandLine(config container.Config) []string {
	argv := slices.Concat(config.Entrypoint, config.Cmd)
	if len(argv) == 0 {
		return []string{""}
	}
	return argv
}

// apiTime is a time as the API writes it. The zero one is 0001-01-01T00:00:00Z,
// which clients know to mean never.
func apiTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// inspectState is a Status in Docker's words, where running includes paused and restarting.
func inspectState(s Status) *container.State {
	why := s.Error
	switch {
	case why == "":
		why = s.Reason
	case s.Reason != "":
		why += "; " + s.Reason
	}
	return &container.State{
		Status:     s.State,
		Running:    s.Running(),
		Paused:     s.State == container.StatePaused,
		Restarting: s.State == container.StateRestarting,
		OOMKilled:  s.OOMKilled,
		Dead:       s.State == container.StateDead,
		Pid:        s.Pid,
		ExitCode:   s.ExitCode,
		Error:      why,
		StartedAt:  apiTime(s.StartedAt),
		FinishedAt: apiTime(s.FinishedAt),
	}
}

// rootfsData is what the storage driver tells of a container's root filesystem.
// It is for people to look at: what it cannot tell (another storage driver is
// configured now, the files are being removed) is not worth an error.
func (m *Manager) rootfsData(ctx context.Context, id string) map[string]string {
	data, err := m.o.Images.RootfsData(ctx, id)
	if err != nil || data == nil {
		return map[string]string{}
	}
	return data
}

// rootfsSize is 0, 0 for a container whose root filesystem is not there.
func (m *Manager) rootfsSize(ctx context.Context, id string) (rw, root int64, err error) {
	rw, root, err = m.o.Images.RootfsSize(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) {
		return 0, 0, fmt.Errorf("cannot find the size of container %s: %w", id, err)
	}
	return rw, root, nil
}

// mountPoints are the container's mounts as `docker inspect` shows them. Those
// of --tmpfs are not among them: HostConfig.Tmpfs has them.
func mountPoints(r Record) []container.MountPoint {
	short := map[string]bool{}
	if r.HostConfig != nil {
		for target := range r.HostConfig.Tmpfs {
			short[path.Clean(target)] = true
		}
	}
	points := []container.MountPoint{}
	for _, mt := range r.Mounts {
		if mt.Type == mount.TypeTmpfs && short[mt.Target] {
			continue
		}
		p := container.MountPoint{
			Type:        mt.Type,
			Source:      mt.HostPath,
			Destination: mt.Target,
			Mode:        mt.Mode,
			RW:          !mt.ReadOnly,
			Propagation: mt.Propagation,
		}
		if mt.Type == mount.TypeVolume {
			p.Name, p.Driver = mt.Volume, cmp.Or(mt.Driver, "local")
		}
		if mt.Type == mount.TypeBind {
			p.Propagation = cmp.Or(mt.Propagation, mount.PropagationRPrivate)
		}
		points = append(points, p)
	}
	return points
}

// derivedID makes an ID, 64 hexadecimal digits, of what it stands for.
func derivedID(parts ...string) string {
	h := sha256.New()
	for _, p := range append([]string{"lrd"}, parts...) {
		fmt.Fprintf(h, "%s\x00", p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
