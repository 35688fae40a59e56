package config

import (
	"testing"

	"gotest.tools/v3/assert"
)

// seeds are configurations that are right, for the fuzz targets and the round trip.
var seeds = []string{
	`
live-restore = false
swarm = true
shutdown-timeout = "1m30s"
default-stop-timeout = -1
labels = ["a=1", "quote=\"\\\u0007\u2028\U0001f600", "tab=\t"]
max-load-size = "1.5g"
insecure-registries = ["192.0.2.0/24", "registry.example.com:5000"]
registry-mirrors = ["https://mirror.example.com/hub"]
dns = ["192.0.2.1", "2001:db8::1"]
dns-opts = ["ndots:2"]
pipe-size = 65537
default-runtime = "b.c"
seccomp-profile = "/etc/lrd/seccomp.json"
[log-opts]
pipe-size = "65537"
[runtimes."b.c"]
path = "/opt/b c"
runtimeArgs = ["--x", "y z"]
[default-ulimits]
nofile = { soft = 1, hard = -1 }
`,
	"debug = true", "mtu.a = 1", "[[runtimes]]\npath = \"x\"", "runtimes.x.path = \"y\"", "a = [{ b = 1 }]", "\"\" = 1", "debug = true\ndebug = 1",
}

// FuzzLoad: no text makes Load panic; every error names a line, and a key unless the syntax is broken; and what is
// accepted is printed so that it reads back as the same.
func FuzzLoad(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l := loader{cfg: Default()}
		errs := l.text("fuzz.toml", text)
		for _, e := range errs {
			assert.Assert(t, e.Origin.File == "fuzz.toml" && e.Origin.Line > 0 && e.Problem != "", "%#v", e)
		}
		if _, syntax := parseTOML(text); syntax == nil {
			for _, e := range errs {
				assert.Assert(t, e.Key != "", "%#v", e)
			}
		}
		if len(errs) == 0 && len(l.cfg.check()) == 0 {
			roundTrip(t, l.cfg)
		}
	})
}

// FuzzFromDocker: no JSON makes FromDocker panic, and what it prints is a right configuration.
func FuzzFromDocker(f *testing.F) {
	f.Add(`{"debug": true, "log-opts": {"max-size": "1m"}, "runtimes": {"x": {"path": "/x"}}, "default-runtime": "x"}`)
	f.Add(`{"data-root": "/run/lrd", "labels": ["a=1", "a=2"], "mtu": 1e99, "hosts": null}`)
	f.Add(`{"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 1, "Soft": 1}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		toml, _, err := FromDocker([]byte(text))
		if err != nil {
			return
		}
		l := loader{cfg: Default()}
		errs := append(l.text("lrd.toml", toml), l.cfg.check()...)
		assert.Assert(t, len(errs) == 0, "%v\n%s", errs, toml)
	})
}
