package images

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// Filters are the values given for each key of a list's filter, as the Docker
// API sends them. A value that maps to false does not count.
type Filters map[string]map[string]bool

// values are the values given for key.
func (f Filters) values(key string) []string {
	var out []string
	for v, on := range f[key] {
		if on {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

// filter decides which images a list shows. All keys must let an image pass;
// among the values of one key, one is enough, except for labels, which must all
// be there, and for times, of which the narrowest counts.
type filter struct {
	dangling   *bool
	references []string
	labels     []string // "key" or "key=value", all wanted
	notLabels  []string // none wanted
	before     time.Time
	since      time.Time
}

// listKeys are the keys of `docker images --filter`.
var listKeys = []string{"before", "dangling", "label", "label!", "reference", "since", "until"}

// filter makes the API's filters into one that can be asked. before and since
// name images, whose times of creation count.
func (s *Store) filter(f Filters) (*filter, error) {
	for key := range f {
		if !slices.Contains(listKeys, key) {
			return nil, newError(errdefs.ErrInvalidArgument, "invalid filter '%s'", key)
		}
	}
	out := &filter{references: f.values("reference"), labels: f.values("label"), notLabels: f.values("label!")}
	for _, v := range f.values("dangling") {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return nil, newError(errdefs.ErrInvalidArgument, "invalid value for filter 'dangling': %q is neither true nor false", v)
		}
		if out.dangling != nil && *out.dangling != on {
			return nil, newError(errdefs.ErrInvalidArgument, "invalid value for filter 'dangling': true and false at once")
		}
		out.dangling = &on
	}
	for _, pattern := range out.references {
		if _, err := path.Match(pattern, "x"); err != nil {
			return nil, newError(errdefs.ErrInvalidArgument, "invalid value for filter 'reference': %q is no pattern", pattern)
		}
	}
	for _, v := range f.values("before") {
		img, err := s.resolve(v)
		if err != nil {
			return nil, err
		}
		out.notAfter(created(img))
	}
	for _, v := range f.values("until") {
		t, err := parseTime(v, time.Now())
		if err != nil {
			return nil, newError(errdefs.ErrInvalidArgument, "invalid value for filter 'until': %w", err)
		}
		out.notAfter(t)
	}
	for _, v := range f.values("since") {
		img, err := s.resolve(v)
		if err != nil {
			return nil, err
		}
		if t := created(img); t.After(out.since) {
			out.since = t
		}
	}
	return out, nil
}

// notAfter narrows the filter to images made before t.
func (f *filter) notAfter(t time.Time) {
	if f.before.IsZero() || t.Before(f.before) {
		f.before = t
	}
}

// parseTime reads a moment as Docker's filters give it: a duration before now,
// seconds of Unix time with or without a fraction, or RFC 3339 with or without
// its lower parts.
func parseTime(v string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	if secs, frac, _ := strings.Cut(v, "."); secs != "" {
		if s, err := strconv.ParseInt(secs, 10, 64); err == nil {
			n, err := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
			if err == nil {
				return time.Unix(s, n), nil
			}
		}
	}
	var err error
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		var t time.Time
		if t, err = time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, err
}

// created is when an image was made, the zero time if it does not say.
func created(img Image) time.Time {
	if img.Config.Created == nil {
		return time.Time{}
	}
	return *img.Config.Created
}

// pass tells whether a list shows an image, and with which of its names: a
// filter by reference hides the others.
func (f *filter) pass(img Image) (tags, digests []string, ok bool) {
	tags, digests = img.RepoTags, img.RepoDigests
	if f.dangling != nil && *f.dangling != (len(tags) == 0) {
		return nil, nil, false
	}
	if t := created(img); !f.before.IsZero() && !t.Before(f.before) || !f.since.IsZero() && !t.After(f.since) {
		return nil, nil, false
	}
	for _, l := range f.labels {
		if !hasLabel(img.Config.Config.Labels, l) {
			return nil, nil, false
		}
	}
	for _, l := range f.notLabels {
		if hasLabel(img.Config.Config.Labels, l) {
			return nil, nil, false
		}
	}
	if len(f.references) == 0 {
		return tags, digests, true
	}
	tags = slices.DeleteFunc(slices.Clone(tags), func(n string) bool { return !f.matches(n) })
	digests = slices.DeleteFunc(slices.Clone(digests), func(n string) bool { return !f.matches(n) })
	return tags, digests, len(tags)+len(digests) > 0
}

// matches tells whether one of the patterns fits a familiar name, as a whole or
// without its tag.
func (f *filter) matches(familiar string) bool {
	named, err := reference.ParseNormalizedNamed(familiar)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(f.references, func(pattern string) bool {
		ok, err := reference.FamiliarMatch(pattern, named)
		return err == nil && ok
	})
}

// hasLabel tells whether labels have what "key" or "key=value" asks for.
func hasLabel(labels map[string]string, want string) bool {
	key, value, exact := strings.Cut(want, "=")
	got, ok := labels[key]
	return ok && (!exact || got == value)
}
