package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version = "dev"

// commit is the revision that this binary was built from, shortened, and its time (RFC 3339), which unlike that of the
// build is the same for all who build it; both empty when the build did not record them.
func commit() (revision, at string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	modified := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case "vcs.time":
			at = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				modified = "+modified"
			}
		}
	}
	return revision + modified, at
}

func runVersion(_ context.Context, c *cli) error {
	if err := c.parse(c.flagSet("version")); err != nil {
		return err
	}
	built, _ := commit()
	if built != "" {
		built = ", commit " + built
	}
	_, err := fmt.Fprintf(c.stdout, "lrd version %s%s (%s %s/%s)\n", version, built, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
