package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"lrd/internal/config"
)

// A reload refuses what is named and not there, with its place; what was so before keeps nobody from changing something else.
func TestFilesOfTheConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lrd.toml")
	load := func(text string) *config.Config {
		assert.NilError(t, os.WriteFile(file, []byte(text), 0o600))
		cfg, err := config.Load(config.SourcesFor(file))
		assert.NilError(t, err)
		return cfg
	}
	profile := filepath.Join(t.TempDir(), "profile.json")
	assert.NilError(t, os.WriteFile(profile, []byte(`{"defaultAction": `), 0o600))
	own, err := os.Executable()
	assert.NilError(t, err)
	fine := "default-runtime = \"own\"\nruntimes = { crun = { path = \"" + own + "\" }, own = { path = \"" + own + "\" } }\n"
	bad := load(fine + "seccomp-profile = \"" + profile + "\"")

	missing := checkFiles(load(fine), bad)
	assert.Assert(t, is.Len(missing, 1))
	assert.Check(t, is.ErrorContains(missing, file+":3: seccomp-profile: cannot use it: invalid seccomp profile"))
	assert.Check(t, errdefs.IsInvalidArgument(missing))
	assert.Check(t, is.Len(checkFiles(bad, load(fine+"debug = true\nseccomp-profile = \""+profile+"\"")), 0))
	assert.NilError(t, os.WriteFile(profile, []byte(`{"defaultAction": "SCMP_ACT_ALLOW"}`), 0o600))
	assert.Check(t, is.Len(checkFiles(nil, bad), 0))
}
