package api

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/plugin"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"

	"lrd/internal/containers"
)

func (s *Server) ping(w http.ResponseWriter, r *request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Swarm", "inactive")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (s *Server) version(w http.ResponseWriter, _ *request) error {
	v := system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "lrd"},
		Version:       s.Build.Version,
		APIVersion:    MaxVersion,
		MinAPIVersion: MinVersion,
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		GitCommit:     s.Build.GitCommit,
		GoVersion:     runtime.Version(),
		KernelVersion: s.host.kernel,
		BuildTime:     s.Build.Time,
	}
	v.Components = append(v.Components, system.ComponentVersion{
		Name: "Engine", Version: v.Version, Details: map[string]string{
			"ApiVersion": v.APIVersion, "MinAPIVersion": v.MinAPIVersion, "Os": v.Os, "Arch": v.Arch, "GitCommit": v.GitCommit,
			"GoVersion": v.GoVersion, "KernelVersion": v.KernelVersion, "BuildTime": v.BuildTime, "Experimental": "false",
		},
	})
	if s.Build.Components != nil {
		v.Components = append(v.Components, s.Build.Components()...)
	}
	return answerJSON(w, http.StatusOK, v)
}

func (s *Server) login(w http.ResponseWriter, r *request) error {
	if err := checkJSON(r.Header.Get("Content-Type")); err != nil {
		return err
	}
	auth, err := authconfig.DecodeRequestBody(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return invalid("invalid credentials: %v", err)
	}
	if err := s.Images.Login(r.Context(), *auth); err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, registry.AuthResponse{Status: "Login Succeeded"})
}

func (s *Server) pluginList(w http.ResponseWriter, _ *request) error {
	return answerJSON(w, http.StatusOK, []plugin.Plugin{})
}

// pluginInspect is the last place where `docker inspect NAME` looks for an object of that name.
func (s *Server) pluginInspect(_ http.ResponseWriter, r *request) error {
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("plugin %q not found", r.vars["name"]))
}

func (s *Server) reload(w http.ResponseWriter, r *request) error {
	s.Reload.ServeHTTP(w, r.Request)
	return nil
}

// diskUsage adds up what images, containers and volumes say of themselves.
func (s *Server) diskUsage(w http.ResponseWriter, r *request) error {
	q := r.query()
	want := map[system.DiskUsageObject]bool{}
	types := q.values["type"]
	if len(types) == 0 || r.version.before(42) {
		types = []string{string(system.ContainerObject), string(system.ImageObject), string(system.VolumeObject), string(system.BuildCacheObject)}
	}
	for _, t := range types {
		switch o := system.DiskUsageObject(t); o {
		case system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject:
			want[o] = true
		default:
			q.fail("unknown object type: %s", t)
		}
	}
	verbose, old := diskUsageForm(r.version, q)
	if q.err != nil {
		return q.err
	}
	du, err := s.measure(r, want)
	if err != nil {
		return err
	}
	body, err := diskUsageFor(du, verbose, old)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, body)
}

func (s *Server) measure(r *request, want map[system.DiskUsageObject]bool) (du system.DiskUsage, err error) {
	ctx := r.Context()
	users, err := s.Containers.List(ctx, containers.ListOptions{All: true, Size: want[system.ContainerObject]})
	if err != nil {
		return du, err
	}
	if want[system.ContainerObject] {
		du.ContainerUsage = containerUsage(users)
	}
	if want[system.ImageObject] {
		list, err := s.Images.List(ctx, ImageListOptions{SharedSize: true})
		if err != nil {
			return du, err
		}
		usage, err := s.Images.Usage(ctx)
		if err != nil {
			return du, err
		}
		du.ImageUsage = imageUsage(usage, list)
	}
	if want[system.VolumeObject] {
		list, err := s.Volumes.List(ctx, nil)
		if err != nil {
			return du, err
		}
		for i := range list.Volumes {
			v := &list.Volumes[i]
			size, err := s.Volumes.Size(ctx, v.Name)
			if err != nil {
				size = -1 // removed meanwhile, perhaps
			}
			v.UsageData = &volume.UsageData{Size: size}
		}
		du.VolumeUsage = volumeUsage(list.Volumes, users)
	}
	if want[system.BuildCacheObject] {
		du.BuildCacheUsage = &build.DiskUsage{}
	}
	return du, nil
}

func containerUsage(list []container.Summary) *container.DiskUsage {
	u := &container.DiskUsage{Items: list, TotalCount: int64(len(list))}
	for _, c := range list {
		u.TotalSize += c.SizeRw
		switch c.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			u.ActiveCount++
		case container.StateCreated, container.StateRemoving, container.StateExited, container.StateDead:
			u.Reclaimable += c.SizeRw
		}
	}
	return u
}

// imageUsage counts images; their space is known, with layers that they share counted once.
func imageUsage(u image.DiskUsage, list []image.Summary) *image.DiskUsage {
	u.Items, u.TotalCount, u.ActiveCount = list, int64(len(list)), 0
	for _, img := range list {
		if img.Containers > 0 {
			u.ActiveCount++
		}
	}
	return &u
}

// buildPrune has nothing to remove: there is no build cache. `docker system prune` asks for it at its end.
func (s *Server) buildPrune(w http.ResponseWriter, _ *request) error {
	return answerJSON(w, http.StatusOK, build.CachePruneReport{CachesDeleted: []string{}})
}

// volumeUsage counts the users of each volume. A size that is not known is -1, as the API has it, and adds nothing.
func volumeUsage(list []volume.Volume, users []container.Summary) *volume.DiskUsage {
	used := map[string]int64{}
	for _, c := range users {
		for _, m := range c.Mounts {
			used[m.Name]++
		}
	}
	u := &volume.DiskUsage{Items: list, TotalCount: int64(len(list))}
	for i := range list {
		v := &list[i]
		if v.UsageData == nil {
			v.UsageData = &volume.UsageData{Size: -1}
		}
		v.UsageData.RefCount = used[v.Name]
		size := max(v.UsageData.Size, 0)
		u.TotalSize += size
		if v.UsageData.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += size
		}
	}
	return u
}

// diskUsageForm decides what of the answer this client expects: items, and the fields of before API 1.52.
func diskUsageForm(v version, q *params) (verbose, old bool) {
	if s := q.text("verbose"); !v.before(52) && s != "" {
		verbose, err := strconv.ParseBool(s)
		if err != nil {
			q.fail("invalid value for verbose: %s", s)
		}
		return verbose, false
	}
	return false, v.before(53)
}
