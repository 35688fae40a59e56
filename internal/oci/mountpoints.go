package oci

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// Mount is one bind, volume or tmpfs of a request.
type Mount struct {
	// Type is bind, volume or tmpfs.
	Type mount.Type
	// Source is what the request names: a host path for a bind, a volume's name
	// ("" for an anonymous one), nothing for tmpfs.
	Source string
	// HostPath is where that is on the host; the caller fills it in before
	// Spec. MountPoints sets it for binds.
	HostPath string
	// Target is the absolute, clean path in the container.
	Target   string
	ReadOnly bool
	// RecursiveReadOnly insists that mounts below the source become read-only
	// as well; TopReadOnly leaves those writable. With neither, they become
	// read-only where the kernel can do it.
	RecursiveReadOnly bool
	TopReadOnly       bool
	// NonRecursive leaves mounts below the source out.
	NonRecursive bool
	Propagation  mount.Propagation
	// Mode is the option string of the short form, as inspect shows it.
	Mode string
	// CreateSource makes a bind's missing source as a directory, as
	// `docker run -v` does; otherwise it is an error.
	CreateSource bool
	// TmpfsOptions are mount options of a tmpfs.
	TmpfsOptions []string

	// The rest is for making a volume.

	// NoCopy leaves a new volume empty, instead of filling it with what the
	// image has at the target.
	NoCopy        bool
	Subpath       string
	Driver        string
	DriverOptions map[string]string
	Labels        map[string]string
}

// Anonymous says that a volume of no name is to be made for the container.
func (m Mount) Anonymous() bool { return m.Type == mount.TypeVolume && m.Source == "" }

// MountPoints lists what a request wants mounted: Binds, Mounts, Tmpfs and the
// configuration's Volumes (an anonymous one for each path that nothing else
// takes), ordered by target. It refuses two at one place, the root itself,
// relative targets, unknown modes and mount types that lrd does not have.
func MountPoints(cfg *container.Config, hc *container.HostConfig) ([]Mount, error) {
	var mounts []Mount
	taken := map[string]bool{}
	add := func(m Mount) error {
		if taken[m.Target] {
			return invalid("Duplicate mount point: %s", m.Target)
		}
		taken[m.Target] = true
		mounts = append(mounts, m)
		return nil
	}
	for _, raw := range hc.Binds {
		m, err := ParseBind(raw)
		if err != nil {
			return nil, err
		}
		m.Driver = cmp.Or(m.Driver, hc.VolumeDriver)
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for _, asked := range hc.Mounts {
		m, err := parseMount(asked)
		if err != nil {
			return nil, err
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for target, options := range hc.Tmpfs {
		m, err := parseTmpfs(target, options)
		if err != nil {
			return nil, err
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for target := range cfg.Volumes {
		clean, err := cleanTarget(target)
		if err != nil {
			return nil, invalid("invalid volume specification: '%s': %v", target, err)
		}
		if taken[clean] {
			continue
		}
		taken[clean] = true
		mounts = append(mounts, Mount{Type: mount.TypeVolume, Target: clean, Driver: hc.VolumeDriver})
	}
	// Two of the four sources are maps: without an order each start would
	// write another bundle.
	slices.SortFunc(mounts, func(a, b Mount) int { return strings.Compare(a.Target, b.Target) })
	return mounts, nil
}

// ParseBind reads the short form of `docker run -v`: TARGET,
// SOURCE:TARGET or SOURCE:TARGET:MODE. A source that is an absolute path is a
// bind, any other is the name of a volume. Mode is a comma-separated list of
// ro or rw, a propagation, nocopy, z or Z (SELinux labels, for a container that has one) and the
// consistency words of other platforms (no effect).
func ParseBind(raw string) (Mount, error) {
	m, err := parseBind(raw)
	if err != nil {
		return Mount{}, invalid("invalid volume specification: '%s'%s", raw, colon(err))
	}
	return m, nil
}

func colon(err error) string {
	if err.Error() == "" {
		return ""
	}
	return ": " + err.Error()
}

func parseBind(raw string) (Mount, error) {
	parts := strings.Split(raw, ":")
	var m Mount
	switch len(parts) {
	case 1:
		m.Target = parts[0]
	case 2:
		m.Source, m.Target = parts[0], parts[1]
		if m.Source == "" || isMode(m.Target) {
			// "/foo:ro": a volume without a name takes no mode.
			return m, invalid("")
		}
	case 3:
		m.Source, m.Target, m.Mode = parts[0], parts[1], parts[2]
		if m.Source == "" || m.Target == "" || m.Mode == "" {
			return m, invalid("")
		}
	default:
		return m, invalid("")
	}
	var err error
	if m.Target, err = cleanTarget(m.Target); err != nil {
		return m, err
	}
	m.Type = mount.TypeVolume
	if path.IsAbs(m.Source) {
		m.Type, m.Source, m.CreateSource = mount.TypeBind, path.Clean(m.Source), true
		m.HostPath = m.Source
	} else if m.Source != "" {
		err = checkVolumeName(m.Source)
	}
	if err != nil {
		return m, err
	}
	return m, m.applyMode()
}

// modeWords are the words of a mode and what each is about: two of the same
// kind contradict each other.
var modeWords = map[string]string{
	"ro": "write", "rw": "write",
	"z": "label", "Z": "label",
	"nocopy":     "copy",
	"consistent": "consistency", "cached": "consistency", "delegated": "consistency", "default": "consistency",
	"private": "propagation", "rprivate": "propagation",
	"shared": "propagation", "rshared": "propagation",
	"slave": "propagation", "rslave": "propagation",
}

func isMode(s string) bool {
	return (&Mount{Mode: s, Type: mount.TypeBind}).applyMode() == nil && s != ""
}

func (m *Mount) applyMode() error {
	if m.Mode == "" {
		return nil
	}
	seen := map[string]bool{}
	for word := range strings.SplitSeq(m.Mode, ",") {
		about, known := modeWords[word]
		if !known || seen[about] {
			return invalid("invalid mode: %s", m.Mode)
		}
		seen[about] = true
		switch {
		case word == "ro":
			m.ReadOnly = true
		case word == "nocopy":
			m.NoCopy = true
		case about == "propagation" && m.Type != mount.TypeBind:
			return invalid("invalid mode: %s: propagation is for bind mounts", m.Mode)
		case about == "propagation":
			m.Propagation = mount.Propagation(word)
		}
	}
	return nil
}

// parseMount reads one entry of HostConfig.Mounts, the long form of
// `docker run --mount`.
func parseMount(asked mount.Mount) (Mount, error) {
	m, err := translateMount(asked)
	if err != nil {
		return Mount{}, invalid("invalid mount config for type %q: %v", asked.Type, err)
	}
	return m, nil
}

func translateMount(asked mount.Mount) (Mount, error) {
	m := Mount{Type: asked.Type, Source: asked.Source, ReadOnly: asked.ReadOnly}
	var err error
	if asked.Target == "" {
		return m, invalid("field Target must not be empty")
	}
	if m.Target, err = cleanTarget(asked.Target); err != nil {
		return m, err
	}
	switch asked.Type {
	case mount.TypeBind:
		return m, m.applyBind(asked)
	case mount.TypeVolume:
		return m, m.applyVolume(asked)
	case mount.TypeTmpfs:
		return m, m.applyTmpfs(asked)
	default:
		return m, invalid("mount type unknown")
	}
}

func (m *Mount) applyBind(asked mount.Mount) error {
	switch {
	case asked.Source == "":
		return invalid("field Source must not be empty")
	case !path.IsAbs(asked.Source):
		return invalid("invalid mount path: '%s' mount path must be absolute", asked.Source)
	case asked.VolumeOptions != nil:
		return invalid("field VolumeOptions must not be specified")
	case asked.TmpfsOptions != nil:
		return invalid("field TmpfsOptions must not be specified")
	}
	m.Source = path.Clean(asked.Source)
	m.HostPath = m.Source
	o := asked.BindOptions
	if o == nil {
		return nil
	}
	if o.Propagation != "" && !slices.Contains(mount.Propagations, o.Propagation) {
		return invalid("invalid propagation mode: %s", o.Propagation)
	}
	if o.ReadOnlyForceRecursive {
		switch {
		case !asked.ReadOnly:
			return invalid("mount must be read-only for ReadOnlyForceRecursive")
		case o.ReadOnlyNonRecursive, o.NonRecursive:
			return invalid("ReadOnlyForceRecursive conflicts with the non-recursive options")
		}
	}
	m.Propagation = o.Propagation
	m.NonRecursive = o.NonRecursive
	m.CreateSource = o.CreateMountpoint
	m.RecursiveReadOnly, m.TopReadOnly = o.ReadOnlyForceRecursive, o.ReadOnlyNonRecursive
	return nil
}

func (m *Mount) applyVolume(asked mount.Mount) error {
	switch {
	case asked.BindOptions != nil:
		return invalid("field BindOptions must not be specified")
	case asked.TmpfsOptions != nil:
		return invalid("field TmpfsOptions must not be specified")
	}
	if asked.Source != "" {
		if err := checkVolumeName(asked.Source); err != nil {
			return err
		}
	} else if asked.ReadOnly {
		return invalid("must not set ReadOnly mode when using anonymous volumes")
	}
	o := asked.VolumeOptions
	if o == nil {
		return nil
	}
	if o.Subpath != "" && (path.IsAbs(o.Subpath) || strings.HasPrefix(path.Clean(o.Subpath), "..")) {
		return invalid("subpath must be a relative path within the volume")
	}
	m.NoCopy, m.Subpath, m.Labels = o.NoCopy, o.Subpath, o.Labels
	if o.DriverConfig != nil {
		m.Driver, m.DriverOptions = o.DriverConfig.Name, o.DriverConfig.Options
	}
	return nil
}

func (m *Mount) applyTmpfs(asked mount.Mount) error {
	switch {
	case asked.Source != "":
		return invalid("field Source must not be specified")
	case asked.BindOptions != nil:
		return invalid("field BindOptions must not be specified")
	case asked.VolumeOptions != nil:
		return invalid("field VolumeOptions must not be specified")
	}
	if asked.ReadOnly {
		m.TmpfsOptions = append(m.TmpfsOptions, "ro")
	}
	if o := asked.TmpfsOptions; o != nil {
		if o.SizeBytes < 0 {
			return invalid("invalid tmpfs size %d", o.SizeBytes)
		}
		if o.SizeBytes > 0 {
			m.TmpfsOptions = append(m.TmpfsOptions, fmt.Sprintf("size=%d", o.SizeBytes))
		}
		if o.Mode != 0 {
			m.TmpfsOptions = append(m.TmpfsOptions, fmt.Sprintf("mode=%o", uint32(o.Mode)))
		}
		for _, option := range o.Options {
			if len(option) != 1 && len(option) != 2 {
				return invalid("invalid tmpfs option %q", option)
			}
			m.TmpfsOptions = append(m.TmpfsOptions, strings.Join(option, "="))
		}
	}
	_, err := tmpfsOptions(m.TmpfsOptions)
	return err
}

// parseTmpfs reads one `docker run --tmpfs TARGET:OPTIONS`.
func parseTmpfs(target, options string) (Mount, error) {
	clean, err := cleanTarget(target)
	if err != nil {
		return Mount{}, invalid("invalid tmpfs mount '%s': %v", target, err)
	}
	m := Mount{Type: mount.TypeTmpfs, Target: clean, Mode: options}
	if options != "" {
		m.TmpfsOptions = strings.Split(options, ",")
	}
	if _, err := tmpfsOptions(m.TmpfsOptions); err != nil {
		return Mount{}, err
	}
	return m, nil
}

// cleanTarget is a mount's place in the container, normalised.
func cleanTarget(target string) (string, error) {
	if !path.IsAbs(target) {
		return "", invalid("invalid mount path: '%s' mount path must be absolute", target)
	}
	clean := path.Clean(target)
	if clean == "/" {
		return "", invalid("invalid specification: destination can't be '/'")
	}
	if strings.ContainsRune(clean, 0) {
		return "", invalid("invalid mount path: %q contains a NUL byte", clean)
	}
	return clean, nil
}

// volumeName is what a local volume may be called.
var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

func checkVolumeName(name string) error {
	if volumeName.MatchString(name) {
		return nil
	}
	if len(name) == 1 {
		return invalid("volume name is too short, names should be at least two alphanumeric characters")
	}
	return invalid("%q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", name)
}
