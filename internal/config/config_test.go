package config

import (
	"bytes"
	"flag"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/golden"
)

// TestReference holds up to date what is made from the table.
func TestReference(t *testing.T) {
	for file, text := range map[string]string{
		"../../docs/configuration.md":    Reference(),
		"../../packaging/man/lrd.toml.5": Manual(),
	} {
		if golden.FlagUpdate() {
			assert.NilError(t, os.WriteFile(file, []byte(text), 0o644))
		}
		on, err := os.ReadFile(file)
		assert.NilError(t, err)
		assert.Check(t, string(on) == text, "%s is out of date: go test ./internal/config -run Reference -update", file)
	}
}

// TestTable holds what every key of the table must have.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for _, k := range table {
		for _, name := range append([]string{k.Name}, k.Aliases...) {
			assert.Check(t, !names[name], "%s is there twice", name)
			names[name] = true
		}
		assert.Check(t, strings.HasSuffix(k.Doc, "."), "%s: the doc is no sentence", k.Name)
		assert.Check(t, k.Type() != "" && k.Want() != "", k.Name)
		_, both := withoutCounterpart[k.Name]
		assert.Check(t, !both, "%s has a counterpart", k.Name)
	}
}

// roundTrip is the property that what Print writes is read back as the same configuration.
func roundTrip(t *testing.T, c *Config) {
	t.Helper()
	var b bytes.Buffer
	assert.NilError(t, Print(&b, c))
	l := loader{cfg: Default()}
	errs := l.text("printed", b.String())
	assert.Assert(t, is.Len(errs, 0), "%v\n%s", errs, b.String())
	assert.Assert(t, is.Len(Diff(c, l.cfg), 0), b.String())
}

func TestPrintIsReadBack(t *testing.T) {
	roundTrip(t, Default())
	c := load(t, seeds[0])
	roundTrip(t, c)
	c.origins["mtu"] = Origin{File: "a\nmtu = 0 #", Line: 1} // a file's name may hold anything
	roundTrip(t, c)
}

func TestPrintNamesOrigins(t *testing.T) {
	src := files(t, map[string]string{"lrd.toml": "mtu = 1400\n[runtimes]\nx = { path = \"/x\" }"})
	src.Flags = map[string][]string{"debug": {"true"}}
	c, err := Load(src)
	assert.NilError(t, err)
	var b bytes.Buffer
	assert.NilError(t, Print(&b, c))
	for _, want := range []string{
		"mtu = 1400  # " + src.File + ":1\n", "debug = true  # flag --debug\n", "live-restore = true  # default\n",
		"x = { path = \"/x\" }  # " + src.File + ":3\n", "crun = { path = \"crun\" }  # default\n",
	} {
		assert.Check(t, is.Contains(b.String(), want))
	}
}

func TestDiffAndReloaded(t *testing.T) {
	old := load(t, "mtu = 1400\ndebug = true\n[log-opts]\npipe-size = \"64k\"")
	loaded := load(t, "data-root = \"/srv/lrd\"\nlog-level = \"error\"")
	changes := Diff(old, loaded)
	var keys []string
	for _, c := range changes {
		keys = append(keys, c.Key)
	}
	assert.DeepEqual(t, keys, []string{"data-root", "debug", "log-level", "mtu", "log-opts"})
	assert.DeepEqual(t, changes[3], Change{Key: "mtu", Old: "1400", New: "1500"})

	now := Reloaded(old, loaded)
	assert.Check(t, is.Equal(now.MTU, 1400))
	assert.Check(t, is.Equal(now.Origin("mtu"), old.Origin("mtu")))
	assert.Check(t, is.Equal(now.DataRoot, "/var/lib/lrd"))
	assert.Check(t, now.Origin("data-root").IsDefault())
	assert.Check(t, !now.Debug, "a key that was removed has its default again")
	assert.Check(t, is.Equal(now.LogLevel, "error"))
	assert.Check(t, is.Len(now.LogOpts, 0))
	for _, c := range Diff(now, loaded) {
		assert.Check(t, !c.Reloadable, c.Key)
	}
	assert.Check(t, is.Len(Diff(now, loaded), 2))
	assert.Check(t, is.Equal(loaded.DataRoot, "/srv/lrd"), "the loaded one is not written to")
}

func TestAddFlags(t *testing.T) {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	given := AddFlags(fs)
	assert.NilError(t, fs.Parse([]string{
		"--live-restore=false", "-D", "--data-root", "/srv/lrd", "--dns", "192.0.2.1", "--dns=192.0.2.2",
		"--log-opt", "pipe-size=64k", "--mtu", "1400", "--shutdown-timeout", "-1",
	}))
	c, err := Load(Sources{Flags: given})
	assert.NilError(t, err)
	assert.Check(t, !c.LiveRestore)
	assert.Check(t, c.Debug)
	assert.Check(t, is.Equal(c.DataRoot, "/srv/lrd"))
	assert.Check(t, is.Len(c.DNS, 2))
	assert.Check(t, is.Equal(c.OutputPipeSize(), int64(65536)))
	assert.Check(t, is.Equal(c.ShutdownTimeout, Forever))
}

func TestFromDocker(t *testing.T) {
	toml, none, err := FromDocker([]byte(`{
	"debug": true, "bip": "192.168.84.1/24", "storage-driver": "overlay2", "log-driver": "json-file",
	"log-opts": {"max-size": "10m", "max-file": 3, "gelf-address": "udp://x", "pipe-size": "65536"}, "default-runtime": "nvidia",
	"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}, "bad": {"Name": "bad", "Hard": 1, "Soft": 1}},
	"runtimes": {"gone": {"path": "/usr/bin/gone", "runtimeArgs": ["-x"]}},
	"hosts": ["fd://"], "pipe-size": 4096, "liverestore": true, "shutdown-timeout": 30, "mtu": "1500", "labels": ["a=1", "a=2"]
	}`))
	assert.NilError(t, err)
	assert.Check(t, is.Equal(toml, `# live-restore is not in daemon.json: Docker's default is false, lrd's is true.
shutdown-timeout = "30s"
debug = true
storage-driver = "overlay"
bip = "192.168.84.1/24"
log-driver = "json-file"

[log-opts]
max-file = "3"
max-size = "10m"
pipe-size = "64k"

[runtimes]
crun = { path = "crun" }
gone = { path = "/usr/bin/gone", runtimeArgs = ["-x"] }

[default-ulimits]
nofile = { soft = 64000, hard = 64000 }
`))
	for i, key := range []string{"default-runtime", "default-ulimits.bad", "hosts", "labels", "liverestore", "log-opts.gelf-address", "mtu", "pipe-size"} {
		assert.Check(t, i < len(none) && strings.HasPrefix(none[i], key+": "), "%s: %q", key, none)
	}
	assert.Check(t, is.Len(none, 8))
	assert.Check(t, slices.Contains(none, "liverestore: neither Docker nor lrd has this key; did you mean live-restore?"), "%q", none)
	load(t, toml)
}

func TestFromDockerRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"{\n\"a\": ,}": "line 2", "[]": "line 1", "{} {}": "something follows", "{\"a\": 1": "line 1",
	} {
		_, _, err := FromDocker([]byte(text))
		assert.Check(t, is.ErrorContains(err, want), text)
	}
	toml, none, err := FromDocker([]byte(" \n"))
	assert.NilError(t, err)
	assert.Check(t, is.Len(none, 0))
	load(t, toml)
}

func TestWarnings(t *testing.T) {
	assert.Check(t, is.Len(Default().Warnings(), 0))
	assert.Check(t, is.Len(load(t, "swarm = true\nlive-restore = false").Warnings(), 1))
}
