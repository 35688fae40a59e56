package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = "dev"

// commit is the revision that this binary was built from, shortened; empty when the build did not record it.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	revision, modified := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				modified = "+modified"
			}
		}
	}
	return revision + modified
}

func runVersion(_ context.Context, c *cli) error {
	if err := c.parse(c.flagSet("version")); err != nil {
		return err
	}
	built := commit()
	if built != "" {
		built = ", commit " + built
	}
	_, err := fmt.Fprintf(c.stdout, "lrd version %s%s (%s %s/%s)\n", version, built, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
