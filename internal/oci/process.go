package oci

import (
	"slices"
	"sort"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultPath is the PATH of a container whose image sets none, as Docker's.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func addProcess(s *specs.Spec, in *Input) error {
	args := slices.Concat(in.Config.Entrypoint, in.Config.Cmd)
	if len(args) == 0 || args[0] == "" {
		return invalid("no command specified")
	}
	// A container that shares another's PID namespace is not its init: there is
	// nothing for a small init to reap.
	if in.useInit() {
		args = append([]string{InitPath, "--"}, args...)
	}
	rlimits, err := rlimits(in.Host.Ulimits, in.DefaultUlimits)
	if err != nil {
		return err
	}
	cwd := in.Config.WorkingDir
	if cwd == "" {
		cwd = "/"
	}
	s.Process = &specs.Process{
		Args:     args,
		Env:      environment(in),
		Cwd:      cwd,
		Terminal: in.Config.Tty,
		Rlimits:  rlimits,
		User: specs.User{
			UID:            in.User.UID,
			GID:            in.User.GID,
			AdditionalGids: slices.Clone(in.User.AdditionalGIDs),
			Umask:          in.Host.Umask,
		},
	}
	if size := in.Host.ConsoleSize; in.Config.Tty && size[0] > 0 && size[1] > 0 {
		s.Process.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
	}
	// Zero is what the unit gives anyway; writing it would need CAP_SYS_RESOURCE
	// where the unit's value is higher.
	if adj := in.Host.OomScoreAdj; adj != 0 {
		s.Process.OOMScoreAdj = &adj
	}
	return nil
}

func (in *Input) useInit() bool {
	return in.InitEnabled && in.InitBinary != "" && in.Host.PidMode.IsPrivate()
}

// environment is the process's: what every container has, overlaid with the
// request's.
func environment(in *Input) []string {
	env := []string{"PATH=" + defaultPath}
	name := in.Hostname
	if name == "" {
		name = in.Config.Hostname
	}
	if name != "" {
		env = append(env, "HOSTNAME="+name)
	}
	if in.Config.Tty {
		env = append(env, "TERM=xterm")
	}
	if in.User.Home != "" {
		env = append(env, "HOME="+in.User.Home)
	}
	return MergeEnv(env, in.Config.Env)
}

// MergeEnv is defaults overlaid with overrides: an override "KEY=value"
// replaces the default of that key in its place or is appended, and "KEY"
// alone removes it, as with `docker run -e`. Of several overrides of one key
// the last one counts.
func MergeEnv(defaults, overrides []string) []string {
	at := make(map[string]int, len(defaults)+len(overrides))
	merged := make([]string, 0, len(defaults)+len(overrides))
	put := func(entry string, keep bool) {
		key, _, _ := strings.Cut(entry, "=")
		i, known := at[key]
		switch {
		case known && keep:
			merged[i] = entry
		case known:
			merged[i] = "" // removed below, so that the indexes stay right
			delete(at, key)
		case keep:
			at[key] = len(merged)
			merged = append(merged, entry)
		}
	}
	for _, e := range defaults {
		put(e, true)
	}
	for _, e := range overrides {
		put(e, strings.Contains(e, "="))
	}
	return slices.DeleteFunc(merged, func(e string) bool { return e == "" })
}

// rlimits joins the request's ulimits with the daemon's defaults, in the order
// request first, then defaults by name, so that a Spec is the same each time.
func rlimits(own []*container.Ulimit, defaults map[string]*container.Ulimit) ([]specs.POSIXRlimit, error) {
	var limits []specs.POSIXRlimit
	seen := map[string]bool{}
	add := func(u *container.Ulimit) error {
		if u == nil || seen[u.Name] {
			return nil
		}
		seen[u.Name] = true
		limit, err := rlimit(u)
		if err != nil {
			return err
		}
		limits = append(limits, limit)
		return nil
	}
	for _, u := range own {
		if err := add(u); err != nil {
			return nil, err
		}
	}
	names := make([]string, 0, len(defaults))
	for name := range defaults {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if err := add(defaults[name]); err != nil {
			return nil, err
		}
	}
	return limits, nil
}

// rlimit translates one ulimit; -1 is unlimited (setrlimit(2)).
func rlimit(u *container.Ulimit) (specs.POSIXRlimit, error) {
	if _, err := u.GetRlimit(); err != nil {
		return specs.POSIXRlimit{}, invalid("%v", err)
	}
	// As unsigned numbers, -1 is RLIM_INFINITY and larger than all others.
	if uint64(u.Soft) > uint64(u.Hard) {
		return specs.POSIXRlimit{}, invalid("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
	}
	return specs.POSIXRlimit{
		Type: "RLIMIT_" + strings.ToUpper(u.Name),
		Soft: uint64(u.Soft),
		Hard: uint64(u.Hard),
	}, nil
}
