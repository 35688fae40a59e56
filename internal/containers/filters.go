package containers

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// condition is what one filter asks of a container.
type condition func(r Record, s Status) bool

// conditions must all hold.
type conditions []condition

func (all conditions) hold(r Record, s Status) bool {
	for _, c := range all {
		if !c(r, s) {
			return false
		}
	}
	return true
}

// filter is a key that `docker ps --filter` knows.
type filter struct {
	// all says that it asks for containers that do not run, too.
	all bool
	// parse makes a condition of one value. The conditions of several values of a
	// key are alternatives, unless every is set.
	parse func(ctx context.Context, m *Manager, value string) (condition, error)
	every bool
}

// filters are those of GET /containers/json in the Docker Engine API.
var filters = map[string]filter{
	"id":       {parse: parseID},
	"name":     {parse: parseName},
	"label":    {parse: parseLabel, every: true},
	"exited":   {parse: parseExited, all: true},
	"status":   {parse: parseStatus, all: true},
	"ancestor": {parse: parseAncestor},
	"before":   {parse: parseBefore, all: true},
	"since":    {parse: parseSince, all: true},
	"volume":   {parse: parseVolume},
	"network":  {parse: parseNetwork},
	"publish":  {parse: parsePublish},
	"expose":   {parse: parseExpose},
	"is-task":  {parse: parseIsTask},
	"health":   {parse: parseHealth},
}

// conditions makes conditions of filters, and tells whether these ask for
// containers that do not run, too.
func (m *Manager) conditions(ctx context.Context, f Filters) (conds conditions, all bool, err error) {
	for _, key := range slices.Sorted(maps.Keys(f)) {
		kind, ok := filters[key]
		if !ok {
			return nil, false, refused(errdefs.ErrInvalidArgument, "invalid filter '%s'", key)
		}
		var alternatives conditions
		for _, value := range slices.Sorted(maps.Keys(f[key])) {
			if !f[key][value] {
				continue
			}
			c, err := kind.parse(ctx, m, value)
			if err != nil {
				return nil, false, err
			}
			alternatives = append(alternatives, c)
		}
		if len(alternatives) == 0 {
			continue
		}
		all = all || kind.all
		if kind.every {
			conds = append(conds, alternatives...)
		} else {
			conds = append(conds, alternatives.any)
		}
	}
	return conds, all, nil
}

// any is the condition that one of them holds.
func (all conditions) any(r Record, s Status) bool {
	return slices.ContainsFunc(all, func(c condition) bool { return c(r, s) })
}

// badFilter refuses the value of a filter, with what would be right.
func badFilter(key, value, right string) error {
	return refused(errdefs.ErrInvalidArgument, "invalid filter '%s=%s': %s", key, value, right)
}

func parseID(_ context.Context, _ *Manager, value string) (condition, error) {
	re, err := regexp.Compile(value)
	if err != nil {
		return nil, badFilter("id", value, err.Error())
	}
	return func(r Record, _ Status) bool { return re.MatchString(r.ID) }, nil
}

// parseName takes a regular expression, which may or may not expect the slash before the name.
func parseName(_ context.Context, _ *Manager, value string) (condition, error) {
	re, err := regexp.Compile(value)
	if err != nil {
		return nil, badFilter("name", value, err.Error())
	}
	return func(r Record, _ Status) bool { return re.MatchString(r.Name) || re.MatchString("/"+r.Name) }, nil
}

// parseLabel takes a label's key, or key=value.
func parseLabel(_ context.Context, _ *Manager, value string) (condition, error) {
	key, want, exact := strings.Cut(value, "=")
	return func(r Record, _ Status) bool {
		config, _ := configs(r)
		got, ok := config.Labels[key]
		return ok && (!exact || got == want)
	}, nil
}

// parseExited takes the exit code of a container that has run and does not now.
func parseExited(_ context.Context, _ *Manager, value string) (condition, error) {
	code, err := strconv.Atoi(value)
	if err != nil {
		return nil, badFilter("exited", value, "it must be an exit code")
	}
	return func(_ Record, s Status) bool {
		return !s.Running() && !s.StartedAt.IsZero() && s.ExitCode == code
	}, nil
}

func parseStatus(_ context.Context, _ *Manager, value string) (condition, error) {
	state := container.ContainerState(value)
	if err := container.ValidateContainerState(state); err != nil {
		return nil, badFilter("status", value, err.Error())
	}
	return func(_ Record, s Status) bool { return s.State == state }, nil
}

// parseAncestor takes an image. One that there is not has no containers.
func parseAncestor(ctx context.Context, m *Manager, value string) (condition, error) {
	img, err := m.o.Images.Resolve(ctx, value)
	switch {
	case errdefs.IsNotFound(err):
		return func(Record, Status) bool { return false }, nil
	case errdefs.IsInvalidArgument(err):
		return nil, badFilter("ancestor", value, err.Error())
	case err != nil:
		return nil, err
	}
	id := img.ID.String()
	return func(r Record, _ Status) bool { return r.ImageID == id }, nil
}

func parseBefore(_ context.Context, m *Manager, value string) (condition, error) {
	c, err := m.find(value)
	if err != nil {
		return nil, err
	}
	return func(r Record, _ Status) bool { return r.Created.Before(c.created) }, nil
}

func parseSince(_ context.Context, m *Manager, value string) (condition, error) {
	c, err := m.find(value)
	if err != nil {
		return nil, err
	}
	return func(r Record, _ Status) bool { return r.Created.After(c.created) }, nil
}

// parseVolume takes a volume's name, or what is mounted or where, as a path.
func parseVolume(_ context.Context, _ *Manager, value string) (condition, error) {
	return func(r Record, _ Status) bool {
		return slices.ContainsFunc(mountPoints(r), func(p container.MountPoint) bool {
			return value != "" && (p.Destination == value || p.Name == value || p.Name == "" && p.Source == value)
		})
	}, nil
}

// parseNetwork takes the name of a network, or the beginning of its ID.
func parseNetwork(_ context.Context, _ *Manager, value string) (condition, error) {
	return func(r Record, _ Status) bool {
		return value != "" && slices.ContainsFunc(memberships(r), func(ms Membership) bool {
			id := ms.ID
			if e, ok := sandboxOf(r).Endpoint(ms.Network); ok {
				id = e.NetworkID // of one that was made again
			}
			return ms.Network == value || strings.HasPrefix(id, value)
		})
	}, nil
}

// parsePublish takes ports of containers, not of the host, as Docker does.
func parsePublish(_ context.Context, _ *Manager, value string) (condition, error) {
	ports, err := parsePorts("publish", value)
	if err != nil {
		return nil, err
	}
	return func(r Record, _ Status) bool {
		_, host := configs(r)
		for port := range host.PortBindings {
			if ports(port) {
				return true
			}
		}
		// `docker run -P` publishes what the request does not name.
		for port, bindings := range networkSettings(r).Ports {
			if len(bindings) > 0 && ports(port) {
				return true
			}
		}
		return false
	}, nil
}

func parseExpose(_ context.Context, _ *Manager, value string) (condition, error) {
	ports, err := parsePorts("expose", value)
	if err != nil {
		return nil, err
	}
	return func(r Record, _ Status) bool {
		config, _ := configs(r)
		for port := range config.ExposedPorts {
			if ports(port) {
				return true
			}
		}
		return false
	}, nil
}

// parsePorts reads "80", "80/udp" or "8000-8080/tcp"; the protocol is tcp if none is named.
func parsePorts(key, value string) (func(network.Port) bool, error) {
	want, err := network.ParsePortRange(value)
	if err != nil {
		return nil, badFilter(key, value, err.Error())
	}
	return func(p network.Port) bool {
		return p.Proto() == want.Proto() && p.Num() >= want.Start() && p.Num() <= want.End()
	}, nil
}

// parseIsTask takes a boolean. A task is a container of a swarm service, and there are none.
func parseIsTask(_ context.Context, _ *Manager, value string) (condition, error) {
	task, err := strconv.ParseBool(value)
	if err != nil {
		return nil, badFilter("is-task", value, "it must be true or false")
	}
	return func(Record, Status) bool { return !task }, nil
}

// parseHealth takes a health status; none is that of a container without a check.
func parseHealth(_ context.Context, _ *Manager, value string) (condition, error) {
	switch container.HealthStatus(value) {
	case container.NoHealthcheck, container.Starting, container.Healthy, container.Unhealthy:
	default:
		return nil, badFilter("health", value, "it must be none, starting, healthy or unhealthy")
	}
	return func(r Record, s Status) bool {
		state, _ := shownHealth(&r, s)
		return value == string(state.Status)
	}, nil
}
