package containers

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
)

// List tells of the containers that o chooses, newest first, as `docker ps` does.
// errdefs.ErrInvalidArgument for a filter that there is not.
func (m *Manager) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	conds, all, err := m.conditions(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	all = all || o.All || o.Limit > 0
	now := time.Now()
	images := imageNames{m: m, ids: map[string]string{}}
	list := []container.Summary{}
	for _, c := range m.all() {
		if o.Limit > 0 && len(list) == o.Limit {
			break
		}
		r, s := c.snapshot()
		if !all && !s.Running() || !conds.hold(r, s) {
			continue
		}
		sum := summary(r, s, now)
		sum.Image = images.shown(ctx, sum.Image, r.ImageID)
		if o.Size {
			sum.SizeRw, sum.SizeRootFs, err = m.rootfsSize(ctx, c.id)
			if err != nil {
				return nil, err
			}
		}
		list = append(list, sum)
	}
	return list, ctx.Err()
}

// summary is one line of `docker ps`.
func summary(r Record, s Status, now time.Time) container.Summary {
	config, host := configs(r)
	settings := networkSettings(r)
	sum := container.Summary{
		ID:              r.ID,
		Names:           []string{"/" + r.Name},
		Image:           config.Image,
		ImageID:         r.ImageID,
		Command:         commandText(commandLine(config)),
		Created:         r.Created.Unix(),
		Ports:           portSummaries(settings),
		Labels:          config.Labels,
		State:           s.State,
		Status:          statusText(s, healthText(&r, s), now),
		NetworkSettings: &container.NetworkSettingsSummary{Networks: settings.Networks},
		Mounts:          mountPoints(r),
	}
	state, _ := shownHealth(&r, s)
	sum.Health = &container.HealthSummary{Status: state.Status, FailingStreak: state.Streak}
	if sum.Labels == nil {
		sum.Labels = map[string]string{}
	}
	sum.HostConfig.NetworkMode = string(host.NetworkMode)
	sum.HostConfig.Annotations = host.Annotations
	return sum
}

// commandText is a command line for people: arguments with a space in them are quoted, as Docker does it.
func commandText(argv []string) string {
	words := slices.Clone(argv)
	for i, w := range words[1:] {
		if strings.Contains(w, " ") {
			words[i+1] = "'" + w + "'"
		}
	}
	return strings.Join(words, " ")
}

// Reasons are sentences, and a line of `docker ps` is as wide as a terminal; `docker inspect` has the whole.
const maxReason = 60

// statusText is the STATUS column of `docker ps`, word for word Docker's,
// which people's scripts look at; the reason of a container that this daemon
// cannot do everything for comes last.
func statusText(s Status, health string, now time.Time) string {
	text := stateText(s, now) + health
	if s.Reason == "" {
		return text
	}
	reason, _, _ := strings.Cut(s.Reason, "\n")
	if runes := []rune(reason); len(runes) > maxReason {
		reason = string(runes[:maxReason-1]) + "…"
	}
	return text + " (" + reason + ")"
}

func stateText(s Status, now time.Time) string {
	switch s.State {
	case container.StateCreated:
		return "Created"
	case container.StateRunning:
		return "Up " + since(s.StartedAt, now)
	case container.StatePaused:
		return "Up " + since(s.StartedAt, now) + " (Paused)"
	case container.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, since(s.FinishedAt, now))
	case container.StateRemoving:
		return "Removal In Progress"
	case container.StateDead:
		return "Dead"
	case container.StateExited:
		if s.FinishedAt.IsZero() {
			return fmt.Sprintf("Exited (%d)", s.ExitCode)
		}
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, since(s.FinishedAt, now))
	}
	return string(s.State)
}

// since is a time span in words. A clock that was set back makes it negative, which reads "Less than a second".
func since(t, now time.Time) string { return units.HumanDuration(now.Sub(t)) }

// portSummaries are the ports of `docker ps`, sorted. Published ones have an
// address, 0.0.0.0 for all of the host's: a client hides a mapping without.
func portSummaries(settings *container.NetworkSettings) []container.PortSummary {
	list := []container.PortSummary{}
	for port, bindings := range settings.Ports {
		if len(bindings) == 0 {
			list = append(list, container.PortSummary{PrivatePort: port.Num(), Type: string(port.Proto())})
		}
		for _, b := range bindings {
			p := container.PortSummary{IP: b.HostIP, PrivatePort: port.Num(), Type: string(port.Proto())}
			if !p.IP.IsValid() {
				p.IP = netip.IPv4Unspecified()
			}
			if _, err := fmt.Sscan(b.HostPort, &p.PublicPort); err != nil {
				continue
			}
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), cmp.Compare(a.Type, b.Type),
			a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort))
	})
	return list
}

// imageNames looks images up for one list, each name once.
type imageNames struct {
	m   *Manager
	ids map[string]string // name → ID; "" where it names no image
}

// shown is the name that a container's image was given as, or its ID when that
// name means another image now, or none. A store that cannot answer leaves the
// name: a list is not the place to fail over it.
func (n imageNames) shown(ctx context.Context, name, id string) string {
	if id == "" {
		return name
	}
	now, ok := n.ids[name]
	if !ok {
		img, err := n.m.o.Images.Resolve(ctx, name)
		switch {
		case err == nil:
			now = img.ID.String()
		case !errdefs.IsNotFound(err):
			return name
		}
		n.ids[name] = now
	}
	if now != id {
		return id
	}
	return name
}
