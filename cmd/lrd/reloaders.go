package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"

	"lrd/internal/config"
	"lrd/internal/images"
	"lrd/internal/reload"
)

// reloaders are those who take part in a reload. Who reads the configuration in
// force for each operation, as the containers do, need not.
func (d *daemon) reloaders(level *slog.LevelVar) []reload.Reloader {
	return []reload.Reloader{
		reload.Func(func(_ context.Context, _, next *config.Config) (func(), error) {
			return func() { level.Set(next.Level()) }, nil
		}),
		reload.Func(func(_ context.Context, _, next *config.Config) (func(), error) { return nil, checkFiles(next) }),
		reload.Func(d.prepareRegistries),
	}
}

// checkFiles sees to it that what the configuration names is there.
func checkFiles(c *config.Config) error {
	var errs []error
	if p := c.SeccompProfile; p != "" && p != "builtin" && p != "unconfined" {
		_, err := os.Stat(p)
		errs = append(errs, err)
	}
	if rt, ok := c.Runtimes[c.DefaultRuntime]; ok {
		_, err := exec.LookPath(rt.Path)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
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
