package oci

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ExecInput is everything that [ExecProcess] needs.
type ExecInput struct {
	// Container is the container's own process, as [Spec] made it.
	Container *specs.Process
	// Config is the container's configuration, and Hostname what it is called.
	Config   *container.Config
	Hostname string
	// Request is what is to be executed.
	Request *container.ExecCreateRequest
	// User is Request.User, resolved; it is used if the request names one.
	User User
	// Machine says what the host has.
	Machine Machine
}

// ExecProcess makes the process of a command that is executed in a container
// which runs, as Docker's daemon would: that of the container (limits,
// capabilities, profiles), with what the request says instead. It changes
// nothing in its argument. Errors are ErrInvalidArgument.
func ExecProcess(in ExecInput) (*specs.Process, error) {
	r := in.Request
	if len(r.Cmd) == 0 || r.Cmd[0] == "" {
		return nil, invalid("no exec command specified")
	}
	p := *in.Container
	p.Args = slices.Clone(r.Cmd)
	p.Terminal, p.ConsoleSize = r.Tty, nil
	if size := r.ConsoleSize; r.Tty && size != nil && size[0] > 0 && size[1] > 0 {
		p.ConsoleSize = &specs.Box{Height: size[0], Width: size[1]}
	}
	if r.WorkingDir != "" {
		p.Cwd = r.WorkingDir
	}
	if !strings.HasPrefix(p.Cwd, "/") {
		return nil, invalid("the working directory %q is not an absolute path", p.Cwd)
	}
	user := in.User
	if r.User == "" {
		user.Home = homeOf(in.Container.Env)
	} else {
		p.User = specs.User{
			UID: user.UID, GID: user.GID, AdditionalGids: slices.Clone(user.AdditionalGIDs),
			Umask: in.Container.User.Umask,
		}
	}
	config := *in.Config
	config.Tty = r.Tty
	config.Env = slices.Concat(in.Config.Env, r.Env)
	p.Env = environment(&Input{Config: &config, Hostname: in.Hostname, User: user})
	if r.Privileged {
		all := in.Machine.capabilities()
		p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: slices.Clone(all), Permitted: slices.Clone(all)}
		if p.ApparmorProfile == in.Machine.AppArmorProfile && p.ApparmorProfile != "" {
			p.ApparmorProfile = unconfined // the daemon's own; one that somebody chose holds
		}
	}
	return &p, nil
}

// homeOf is HOME in an environment, "" if it has none.
func homeOf(env []string) string {
	for _, e := range env {
		if home, ok := strings.CutPrefix(e, "HOME="); ok {
			return home
		}
	}
	return ""
}
