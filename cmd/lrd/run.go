package main

import (
	"context"
	"errors"
	"log/slog"

	"lrd/internal/config"
)

// serve runs the daemon until ctx ends. Placeholder: the composition root is still to come.
func serve(ctx context.Context, src config.Sources, cfg *config.Config, log *slog.Logger, level *slog.LevelVar) error {
	return errors.New("cannot serve: this lrd has no daemon yet")
}
