package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"lrd/internal/config"
)

// runConfig prints what `lrd serve` with the same flags would run with, each value with its origin. With --from-docker
// it prints the lrd.toml for a daemon.json instead, and on stderr what could not be taken over.
func runConfig(_ context.Context, c *cli) error {
	fs := c.flagSet("config")
	docker := fs.String("from-docker", "", "print the TOML for Docker's daemon.json in `FILE` (- for standard input)")
	sources := sourceFlags(fs)
	if err := c.parse(fs); err != nil {
		return err
	}
	if *docker != "" {
		return c.fromDocker(*docker)
	}
	cfg, err := config.Load(sources())
	if err != nil {
		return err
	}
	return config.Print(c.stdout, cfg)
}

func (c *cli) fromDocker(file string) error {
	read := func() ([]byte, error) { return os.ReadFile(file) }
	if file == "-" {
		read = func() ([]byte, error) { return io.ReadAll(os.Stdin) }
	}
	data, err := read()
	if err != nil {
		return fmt.Errorf("cannot read Docker's configuration: %w", err)
	}
	toml, noCounterpart, err := config.FromDocker(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for _, reason := range noCounterpart {
		fmt.Fprintln(c.stderr, "lrd: not taken over: "+reason)
	}
	_, err = io.WriteString(c.stdout, toml)
	return err
}
