package containers

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

// Prune removes the containers that do not run and that pass the filters: until (created before; a time, or a duration
// before now), label and label! ("key" or "key=value"). What of them cannot be removed is logged, and stays. The space
// is what they have written. Error: ErrInvalidArgument for a filter that makes no sense.
func (m *Manager) Prune(ctx context.Context, f Filters) (container.PruneReport, error) {
	report := container.PruneReport{ContainersDeleted: []string{}}
	wanted, err := pruneConditions(ctx, m, f)
	if err != nil {
		return report, err
	}
	for _, c := range m.all() {
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		r, s := c.snapshot()
		if s.Running() || s.State == container.StateRemoving || c.foreign || !wanted.hold(r, s) {
			continue
		}
		size, _, err := m.rootfsSize(ctx, c.id)
		if err != nil {
			m.logger(c.id, "prune").Warn("Cannot find out what the container has written", "error", err)
		}
		err = m.Remove(ctx, c.id, RemoveOptions{})
		switch {
		case err == nil:
			report.ContainersDeleted = append(report.ContainersDeleted, c.id)
			report.SpaceReclaimed += uint64(max(size, 0))
		case !errdefs.IsConflict(err) && !errdefs.IsNotFound(err): // started, or removed, meanwhile
			m.logger(c.id, "prune").Warn("Cannot remove the container", "error", err)
		}
	}
	return report, nil
}

func pruneConditions(ctx context.Context, m *Manager, f Filters) (all conditions, err error) {
	for _, key := range slices.Sorted(maps.Keys(f)) {
		for _, value := range slices.Sorted(maps.Keys(f[key])) {
			if !f[key][value] {
				continue
			}
			var c condition
			switch key {
			case "until":
				c, err = parseUntil(value, time.Now())
			case "label":
				c, err = parseLabel(ctx, m, value)
			case "label!":
				if c, err = parseLabel(ctx, m, value); err == nil {
					has := c
					c = func(r Record, s Status) bool { return !has(r, s) }
				}
			default:
				err = refused(errdefs.ErrInvalidArgument, "invalid filter '%s'", key)
			}
			if err != nil {
				return nil, err
			}
			all = append(all, c)
		}
	}
	if n := len(f["until"]); n > 1 {
		return nil, refused(errdefs.ErrInvalidArgument, "more than one until filter specified")
	}
	return all, nil
}

// untilForms are the times that Docker understands, besides seconds since 1970 and durations.
var untilForms = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02Z07:00", "2006-01-02"}

// parseUntil takes a time, or how long it is before now.
func parseUntil(value string, now time.Time) (condition, error) {
	until, err := untilTime(value, now)
	if err != nil {
		return nil, badFilter("until", value, "want a time like 2006-01-02T15:04:05, seconds since 1970, or a duration like 24h")
	}
	return func(r Record, _ Status) bool { return r.Created.Before(until) }, nil
}

func untilTime(value string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(value); err == nil {
		return now.Add(-d), nil
	}
	for _, form := range untilForms {
		if t, err := time.ParseInLocation(form, value, now.Location()); err == nil {
			return t, nil
		}
	}
	whole, fraction, _ := strings.Cut(value, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	nanos := int64(0)
	if fraction != "" {
		nanos, err = strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	}
	return time.Unix(seconds, nanos), err
}
