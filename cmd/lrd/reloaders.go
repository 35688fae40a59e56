package main

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"slices"

	"lrd/internal/config"
	"lrd/internal/images"
	"lrd/internal/oci"
	"lrd/internal/reload"
)

// reloaders are those who take part in a reload. Who reads the configuration in
// force for each operation, as the containers do, need not.
func (d *daemon) reloaders(level *slog.LevelVar) []reload.Reloader {
	return []reload.Reloader{
		reload.Func(func(_ context.Context, _, next *config.Config) (func(), error) {
			return func() { level.Set(next.Level()) }, nil
		}),
		reload.Func(func(_ context.Context, old, next *config.Config) (func(), error) {
			if missing := checkFiles(old, next); missing != nil {
				return nil, missing
			}
			return nil, nil
		}),
		reload.Func(d.prepareRegistries),
	}
}

// checkFiles says what the configuration names and is not there, as far as it changed from old; with a nil old, all of it.
func checkFiles(old, c *config.Config) (missing config.Errors) {
	changed := map[string]bool{}
	if old != nil {
		for _, change := range config.Diff(old, c) {
			changed[change.Key] = true
		}
	}
	check := func(key, entry string, err error) {
		if err != nil && (old == nil || changed[key]) {
			missing = append(missing, &config.Error{Origin: c.Origin(key + entry), Key: key + entry, Problem: "cannot use it: " + err.Error()})
		}
	}
	if p := c.SeccompProfile; p != "builtin" && p != "unconfined" {
		text, err := os.ReadFile(p)
		if err == nil {
			err = oci.CheckSeccompProfile(string(text))
		}
		check("seccomp-profile", "", err)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Runtimes)) {
		_, err := exec.LookPath(c.Runtimes[name].Path)
		check("runtimes", "."+name, err)
	}
	return missing
}

// prepareRegistries lets the image store know how registries are reached.
func (d *daemon) prepareRegistries(_ context.Context, _, next *config.Config) (func(), error) {
	r := images.Registries{Mirrors: next.RegistryMirrors, Insecure: next.InsecureRegistries}
	if err := r.Check(); err != nil {
		return nil, err
	}
	return func() {
		if err := d.images.SetRegistries(r); err != nil {
			d.log.Error("Cannot use the registries of the new configuration", "error", err)
		}
	}, nil
}
