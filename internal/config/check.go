package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lrd/internal/logopts"
)

// errLiveRestoreSwarm is Docker's sentence, word for word (moby, daemon/config): people and tools search for it.
const errLiveRestoreSwarm = "--live-restore daemon configuration is incompatible with swarm mode"

// LiveRestoreSwarm is what Docker says when live-restore meets swarm mode. The API answers it to swarm requests.
func LiveRestoreSwarm() string { return errLiveRestoreSwarm }

// check tells what does not fit together although each value alone is right.
func (c *Config) check() (errs Errors) {
	bad := func(key, problem, want string) {
		errs = append(errs, &Error{Origin: c.Origin(key), Key: key, Problem: problem, Want: want})
	}
	if c.LiveRestore && c.Swarm {
		bad("swarm", errLiveRestoreSwarm, "live-restore = false, or swarm = false")
	}
	if inside(c.DataRoot, c.ExecRoot) || inside(c.ExecRoot, c.DataRoot) {
		bad("data-root", fmt.Sprintf("data-root (%s) and exec-root (%s) lie in each other", quote(c.DataRoot), quote(c.ExecRoot)),
			"two directories apart: only one of them survives a reboot")
	}
	if f := c.FixedCIDR; f.IsValid() && (!c.Bip.Masked().Contains(f.Addr()) || f.Bits() < c.Bip.Bits()) {
		bad("fixed-cidr", fmt.Sprintf("%s is not part of the network of bip, %s", f, c.Bip.Masked()), "a part of that network")
	}
	if _, ok := c.Runtimes[c.DefaultRuntime]; !ok {
		names := slices.Sorted(maps.Keys(c.Runtimes))
		bad("default-runtime", fmt.Sprintf("there is no runtime %s%s", quote(c.DefaultRuntime), didYouMean(c.DefaultRuntime, names)),
			"one of: "+strings.Join(names, ", "))
	}
	if s, ok := c.LogOpts[optPipeSize]; ok && !c.Origin("pipe-size").IsDefault() && c.OutputPipeSize() != c.PipeSize {
		bad("log-opts."+optPipeSize, fmt.Sprintf("%s contradicts pipe-size = %s (%s)", quote(s), printSize(c.PipeSize), c.Origin("pipe-size")),
			"to say it in one place only")
	}
	if err := logopts.Validate(c.LogDriver, c.LogOpts); err != nil {
		key := "log-opts"
		var option *logopts.OptionError
		if errors.As(err, &option) {
			key += "." + option.Option
		}
		bad(key, err.Error(), "the options of log-driver = "+quote(c.LogDriver))
	}
	if k, a, b := conflictingLabels(c.Labels); k != "" {
		bad("labels", fmt.Sprintf("the label %s is both %s and %s", quote(k), quote(a), quote(b)), "each label once")
	}
	return errs
}

// inside reports whether the directory a is b or lies in it. Both are in their shortest form.
func inside(a, b string) bool { return a == b || strings.HasPrefix(a, b+"/") }

func conflictingLabels(labels []string) (key, a, b string) {
	seen := map[string]string{}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		if old, ok := seen[k]; ok && old != v {
			return k, old, v
		}
		seen[k] = v
	}
	return "", "", ""
}

// Warnings tells what is allowed but hardly meant, one sentence each.
func (c *Config) Warnings() []string {
	var out []string
	if c.Swarm {
		out = append(out, fmt.Sprintf("swarm = true (%s) has no effect: lrd has no swarm mode", c.Origin("swarm")))
	}
	return out
}
