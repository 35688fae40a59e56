package api

import (
	"strconv"
	"strings"
)

// Versions of the API. The newest is that of the types of github.com/moby/moby/api v1.56.1; the oldest is the
// oldest that dockerd ever served since 2017.
const (
	MaxVersion = "1.56"
	MinVersion = "1.24"
)

var (
	maxVersion = mustVersion(MaxVersion)
	minVersion = mustVersion(MinVersion)
)

// version of the API that a request speaks.
type version struct{ major, minor int }

func (v version) String() string { return strconv.Itoa(v.major) + "." + strconv.Itoa(v.minor) }

func (v version) less(w version) bool {
	return v.major < w.major || v.major == w.major && v.minor < w.minor
}

// before tells whether the client speaks a version older than 1.minor, in which something changed.
func (v version) before(minor int) bool { return v.less(version{1, minor}) }

func parseVersion(s string) (version, bool) {
	major, minor, dotted := strings.Cut(s, ".")
	if !dotted {
		minor = "0"
	}
	a, err := strconv.ParseUint(major, 10, 16)
	b, err2 := strconv.ParseUint(minor, 10, 16)
	return version{int(a), int(b)}, err == nil && err2 == nil
}

func mustVersion(s string) version {
	v, ok := parseVersion(s)
	if !ok {
		panic("malformed API version " + s)
	}
	return v
}

// stripVersion takes /vN.NN off a path. A path without it speaks the newest version; one where no version
// follows /v is a path like any other.
func stripVersion(path string) (v version, rest string) {
	after, ok := strings.CutPrefix(path, "/v")
	if !ok {
		return maxVersion, path
	}
	number, rest, ok := strings.Cut(after, "/")
	if !ok {
		return maxVersion, path
	}
	if v, ok = parseVersion(number); !ok {
		return maxVersion, path
	}
	return v, "/" + rest
}

// supported returns dockerd's sentences for versions out of range.
func (v version) supported() error {
	switch {
	case v.less(minVersion):
		return invalid("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", v, minVersion)
	case maxVersion.less(v):
		return invalid("client version %s is too new. Maximum supported API version is %s", v, maxVersion)
	}
	return nil
}
