package main

import (
	"context"
	"fmt"

	"lrd/internal/config"
)

// runValidate checks what `lrd serve` with the same flags would read. It prints "ok", or everything that is wrong.
func runValidate(_ context.Context, c *cli) error {
	fs := c.flagSet("validate")
	sources := sourceFlags(fs)
	if err := c.parse(fs); err != nil {
		return err
	}
	cfg, err := config.Load(sources())
	if err != nil {
		return err
	}
	for _, w := range warnings(cfg) {
		fmt.Fprintln(c.stderr, "lrd: warning: "+w)
	}
	_, err = fmt.Fprintln(c.stdout, "ok")
	return err
}
