package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// files writes a configuration into a directory: "lrd.toml" and "lrd.toml.d/NAME" by their names.
func files(t *testing.T, texts map[string]string) Sources {
	t.Helper()
	dir := t.TempDir()
	assert.NilError(t, os.Mkdir(filepath.Join(dir, "lrd.toml.d"), 0o755))
	for name, text := range texts {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return SourcesFor(filepath.Join(dir, "lrd.toml"))
}

func load(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Load(files(t, map[string]string{"lrd.toml": text}))
	assert.NilError(t, err)
	return c
}

// TestLoadRefuses holds every kind of mistake that a person makes: where it is reported and in which words.
func TestLoadRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string // "LINE: KEY: …", each a part of its error
	}{
		{"unknown key", "\nlive_restore = true", []string{`:2: live_restore: unknown key; did you mean live-restore?`}},
		{"unknown key, nothing near", "colour = 1", []string{`:1: colour: unknown key`}},
		{"docker's key", "hosts = []", []string{`:1: hosts: Docker's key has no counterpart in lrd: the API's address is in lrd.socket`}},
		{"boolean as string", `live-restore = "yes"`, []string{`:1: live-restore: the string "yes" has the wrong type; right would be true or false`}},
		{"boolean as integer", "debug = 1", []string{`:1: debug: the integer 1 has the wrong type`}},
		{"integer as fraction", "mtu = 1.5", []string{`:1: mtu: the fraction 1.5 has the wrong type`}},
		{"integer as date", "mtu = 2024-01-01", []string{`:1: mtu: a date or time has the wrong type`}},
		{"integer as table", "[mtu]\na = 1", []string{`:1: mtu: a table has the wrong type; right would be a whole number`}},
		{"integer as dotted table", "\nmtu.a = 1", []string{`:2: mtu: a table has the wrong type`}},
		{"integer as array of tables", "\n[[mtu]]\na = 1", []string{`:2: mtu: a list has the wrong type`}},
		{"out of range", "mtu = 10\nmax-concurrent-downloads = 0", []string{
			`:1: mtu: 10 is out of range; right would be a whole number from 68 to 65535`, `:2: max-concurrent-downloads: 0 is out of range`,
		}},
		{"all errors at once, by line", "mtu = 1\nx = 2\ndebug = 3", []string{":1: mtu", ":2: x", ":3: debug"}},
		{"size", "default-shm-size = \"64q\"", []string{`:1: default-shm-size: the string "64q" is not a size`}},
		{"size too large", "default-shm-size = \"9e30g\"", []string{`:1: default-shm-size: the string "9e30g" is out of range`}},
		{"pipe too small", "pipe-size = 100", []string{`:1: pipe-size: the integer 100 is out of range; right would be 0 or a size from 4k to 1g`}},
		{"duration", "shutdown-timeout = \"ten\"", []string{`:1: shutdown-timeout: the string "ten" is not a duration; right would be seconds`}},
		{"negative duration", "shutdown-timeout = -2", []string{`:1: shutdown-timeout: -2 is out of range`}},
		{"one of", "log-level = \"warning\"", []string{`:1: log-level: "warning" is not known; did you mean warn?; right would be "debug", "info", "warn" or "error"`}},
		{"log driver", "log-driver = \"gelf\"", []string{`:1: log-driver: lrd has no log driver "gelf"; right would be one of "fluentd", "journald", "json-file", "local", "none", "syslog"`}},
		{"relative root", "data-root = \"lrd\"", []string{`:1: data-root: "lrd" is not an absolute path`}},
		{"unclean root", "data-root = \"/var/lib/lrd/\"", []string{`:1: data-root: "/var/lib/lrd/" is not in its shortest form, which is "/var/lib/lrd"`}},
		{"roots in each other", "data-root = \"/run/lrd/data\"", []string{`:1: data-root: data-root ("/run/lrd/data") and exec-root ("/run/lrd") lie in each other`}},
		{"bip without length", "bip = \"10.0.0.1\"", []string{`:1: bip: "10.0.0.1" is not an IPv4 address with a length`}},
		{"bip of the network", "bip = \"10.0.0.0/16\"", []string{`:1: bip: "10.0.0.0/16" is the network`}},
		{"bip of the broadcast", "bip = \"10.0.255.255/16\"", []string{`:1: bip: "10.0.255.255/16" is the network's broadcast address`}},
		{"bip v6", "bip = \"fd00::1/64\"", []string{`:1: bip: "fd00::1/64" is not an IPv4 address`}},
		{"bip too small", "bip = \"10.0.0.1/31\"", []string{`:1: bip: a network of /31 is out of range`}},
		{"dns", "dns = [\"192.0.2.1\", \"example\"]", []string{`:1: dns: "example" is not an IP address`}},
		{"list as string", "dns = \"192.0.2.1\"", []string{`:1: dns: the string "192.0.2.1" has the wrong type; right would be a list, each an IP address`}},
		{"label", "labels = [\"a\"]", []string{`:1: labels: "a" is not KEY=VALUE`}},
		{"labels contradict", "labels = [\"a=1\", \"a=2\"]", []string{`:1: labels: the label "a" is both "1" and "2"`}},
		{"mirror", "registry-mirrors = [\"mirror.example.com\"]", []string{`:1: registry-mirrors: "mirror.example.com" is not a URL`}},
		{"insecure registry", "insecure-registries = [\"https://example.com\"]", []string{`:1: insecure-registries: "https://example.com" is neither a host nor a network`}},
		{"runtime without path", "[runtimes]\nx = {}", []string{`:2: runtimes.x: the runtime has no path; right would be like crun = {`}},
		{"runtime with a wrong key", "[runtimes.x]\npath = \"x\"\nruntimeargs = []", []string{`:3: runtimes.x.runtimeargs: unknown key; did you mean runtimeArgs?`}},
		{"runtime with wrong types", "[runtimes.x]\npath = 1\nruntimeArgs = [2]", []string{
			`:2: runtimes.x.path: the integer 1 has the wrong type`, `:3: runtimes.x.runtimeArgs: the integer 2 has the wrong type`,
		}},
		{"default runtime", "\ndefault-runtime = \"runc\"", []string{`:2: default-runtime: there is no runtime "runc"; right would be one of: crun`}},
		{"log option", "[log-opts]\nmax-sise = \"1m\"", []string{`:2: log-opts.max-sise: unknown log option; did you mean max-size?`}},
		{"log option of another driver", "log-driver = \"journald\"\n[log-opts]\nmax-size = \"1m\"", []string{`:3: log-opts.max-size: unknown log opt 'max-size' for journald log driver`}},
		{"value of a log option", "log-driver = \"json-file\"\n[log-opts]\nmax-file = 0", []string{`:3: log-opts.max-file: log opt max-file=0: max-file cannot be less than 1`}},
		{"two pipe sizes", "pipe-size = \"64k\"\nlog-opts = { pipe-size = \"128k\" }", []string{`:2: log-opts.pipe-size: "128k" contradicts pipe-size = "64k"`}},
		{"ulimit name", "[default-ulimits]\nnofiles = 3", []string{`:2: default-ulimits.nofiles: there is no limit of this name; did you mean nofile?`}},
		{"ulimit order", "[default-ulimits]\nnofile = \"2:1\"", []string{`:2: default-ulimits.nofile: `}},
		{"ulimit order in a table", "[default-ulimits]\nnofile = { soft = -1, hard = 1 }", []string{`:2: default-ulimits.nofile: soft (unlimited) is above hard (1)`}},
		{"swarm", "swarm = true", []string{`:1: swarm: --live-restore daemon configuration is incompatible with swarm mode; right would be live-restore = false`}},
		{"duplicate", "debug = true\nmtu = 1500\ndebug = false", []string{`:3: debug: `}},
		{"duplicate names the first", "[runtimes]\nx = { path = \"x\" }\n[runtimes]", []string{`:3: runtimes: Key 'runtimes' has already been defined (runtimes is set in line 1 already); right would be each key once`}},
		{"syntax", "debug = true\nmtu = = 3", []string{`:2: mtu: `}},
		{"syntax at the end", "debug = true\n[runtimes", []string{`:2: `}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := files(t, map[string]string{"lrd.toml": tc.text})
			_, err := Load(src)
			assert.Assert(t, errdefs.IsInvalidArgument(err), "%v", err)
			lines := strings.Split(err.Error(), "\n")
			assert.Equal(t, len(lines), len(tc.want), "%v", err)
			for i, want := range tc.want {
				assert.Check(t, strings.HasPrefix(lines[i], src.File+want) || strings.Contains(lines[i], want), "got  %s\nwant %s", lines[i], want)
			}
		})
	}
}

func TestDuplicateNamesTheFirst(t *testing.T) {
	src := files(t, map[string]string{"lrd.toml": "debug = true\nmtu = 1500\ndebug = false"})
	_, err := Load(src)
	assert.Check(t, is.ErrorContains(err, "debug is set in line 1 already"))
}

func TestLoadValues(t *testing.T) {
	c := load(t, `
live-restore = false
shutdown-timeout = -1
default-stop-timeout = "1m30s"
default-shm-size = "128MiB"
max-load-size = 0
storage-driver = "overlay2"
bip = "192.168.84.1/24"
dns = ["192.0.2.1", "2001:db8::1"]
log-opts.pipe-size = 65536
[runtimes.youki]
path = "/usr/bin/youki"
runtimeArgs = ["--debug"]
[default-ulimits]
nofile = 1024
nproc = "10:20"
core = { Name = "core", Hard = -1, Soft = 0 }
`)
	assert.Check(t, !c.LiveRestore)
	assert.Check(t, is.Equal(c.ShutdownTimeout, Forever))
	assert.Check(t, is.Equal(c.DefaultStopTimeout, 90*time.Second))
	assert.Check(t, is.Equal(c.DefaultShmSize, int64(128<<20)))
	assert.Check(t, is.Equal(c.MaxLoadSize, int64(0)))
	assert.Check(t, is.Equal(c.StorageDriver, "overlay"))
	assert.Check(t, is.Equal(c.Bip.String(), "192.168.84.1/24"))
	assert.Check(t, is.Len(c.DNS, 2))
	assert.Check(t, is.Equal(c.OutputPipeSize(), int64(65536)))
	assert.Check(t, is.DeepEqual(c.Runtimes, map[string]Runtime{
		"crun": {Path: "crun"}, "youki": {Path: "/usr/bin/youki", Args: []string{"--debug"}},
	}))
	assert.Check(t, is.DeepEqual(c.DefaultUlimits, map[string]Ulimit{"nofile": {1024, 1024}, "nproc": {10, 20}, "core": {0, -1}}))
	assert.Check(t, is.Equal(c.Origin("bip").Line, 8))
	assert.Check(t, is.Equal(c.Origin("runtimes.youki").Line, 11))
	assert.Check(t, c.Origin("runtimes.crun").IsDefault())
}

func TestDropIns(t *testing.T) {
	src := files(t, map[string]string{
		"lrd.toml":                    "mtu = 1400\ndns = [\"192.0.2.1\", \"192.0.2.2\"]\nruntimes.a = { path = \"/a\" }\nruntimes.b = { path = \"/b\" }",
		"lrd.toml.d/20-late.toml":     "mtu = 1300",
		"lrd.toml.d/10-early.toml":    "mtu = 1200\ndns = [\"192.0.2.3\"]\n[runtimes]\nb = { path = \"/bb\" }",
		"lrd.toml.d/.hidden.toml":     "nonsense",
		"lrd.toml.d/not-ours.toml.sw": "nonsense",
	})
	c, err := Load(src)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(c.MTU, 1300))
	assert.Check(t, is.Equal(c.Origin("mtu").String(), filepath.Join(src.DropInDir, "20-late.toml")+":1"))
	assert.Check(t, is.Len(c.DNS, 1), "a list is replaced whole")
	assert.Check(t, is.DeepEqual(c.Runtimes, map[string]Runtime{"crun": {Path: "crun"}, "a": {Path: "/a"}, "b": {Path: "/bb"}}), "a table is merged")
}

func TestErrorsOfAllFilesAndFlags(t *testing.T) {
	src := files(t, map[string]string{"lrd.toml": "mtu = 1", "lrd.toml.d/a.toml": "x = 1", "lrd.toml.d/b.toml": "mtu = ="})
	src.Flags = map[string][]string{"bip": {"nonsense"}}
	_, err := Load(src)
	var all Errors
	assert.Assert(t, errors.As(err, &all))
	assert.Equal(t, len(all), 4, "%v", err)
	assert.Check(t, is.Contains(all[0].Error(), "lrd.toml:1: mtu"))
	assert.Check(t, is.Contains(all[1].Error(), "a.toml:1: x"))
	assert.Check(t, is.Contains(all[2].Error(), "b.toml:1: mtu"))
	assert.Check(t, is.Contains(all[3].Error(), "flag --bip: bip: "))
}

func TestMissingFile(t *testing.T) {
	src := Sources{File: filepath.Join(t.TempDir(), "lrd.toml")}
	c, err := Load(src)
	assert.NilError(t, err)
	assert.Check(t, is.Len(Diff(c, Default()), 0))

	src.Explicit = true
	_, err = Load(src)
	assert.Check(t, is.ErrorContains(err, src.File+": cannot read the configuration"))
}

func TestFlagsAndFiles(t *testing.T) {
	const text = "mtu = 1400\ndns = [\"192.0.2.1\"]\n[default-ulimits]\nnofile = 10"
	for _, tc := range []struct {
		name  string
		flags map[string][]string
		want  string // part of the error; empty: accepted
	}{
		{"another key", map[string][]string{"debug": {"true"}}, ""},
		{"the same value", map[string][]string{"mtu": {"1400"}}, ""},
		{"the same list", map[string][]string{"dns": {"192.0.2.1"}}, ""},
		{"the same entry, written otherwise", map[string][]string{"default-ulimits": {"nofile=10:10"}}, ""},
		{"another entry", map[string][]string{"default-ulimits": {"nproc=5"}}, ""},
		{"another value", map[string][]string{"mtu": {"1500"}}, "flag --mtu: mtu: the flag says 1500, but FILE:1 says 1400"},
		{"another list", map[string][]string{"dns": {"192.0.2.9"}}, `flag --dns: dns: the flag says ["192.0.2.9"], but FILE:2 says ["192.0.2.1"]`},
		{"another limit", map[string][]string{"default-ulimits": {"nofile=11"}}, "flag --default-ulimits: default-ulimits.nofile: the flag says { soft = 11, hard = 11 }, but FILE:4 says"},
		{"not NAME=VALUE", map[string][]string{"default-ulimits": {"nofile"}}, `flag --default-ulimits: default-ulimits: "nofile" is not NAME=VALUE`},
		{"wrong", map[string][]string{"live-restore": {"perhaps"}}, `flag --live-restore: live-restore: the string "perhaps" has the wrong type; right would be true or false`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			src := files(t, map[string]string{"lrd.toml": text})
			src.Flags = tc.flags
			_, err := Load(src)
			if tc.want == "" {
				assert.NilError(t, err)
				return
			}
			assert.Check(t, is.ErrorContains(err, strings.ReplaceAll(tc.want, "FILE", src.File)))
		})
	}
}

func TestLoadIsBounded(t *testing.T) {
	_, err := Load(Sources{File: "/dev/zero", Explicit: true})
	assert.Check(t, is.ErrorContains(err, "larger than"))
	_, err = Load(Sources{File: t.TempDir(), Explicit: true})
	assert.Check(t, is.ErrorContains(err, "is a directory"))
}
