package logopts

import (
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestValidate(t *testing.T) {
	type opts map[string]string
	for _, c := range []struct {
		driver string
		opts   opts
		want   string // empty: it is fine
	}{
		{Local, nil, ""},
		{Local, opts{"pipe-size": "256k"}, ""},
		{Local, opts{"max-size": "10m", "max-file": "3", "compress": "false", "mode": "non-blocking", "max-buffer-size": "1m"}, ""},
		{None, opts{"whatever": "x"}, ""},
		{Journald, opts{"mode": "sometimes"}, "sometimes"},
		{JSONFile, opts{"max-size": "10m", "max-file": "3", "compress": "true", "labels": "a,b", "env-regex": "^X", "tag": "{{.Name}}/{{.ID}}"}, ""},
		{Journald, opts{"tag": `{{json .Name}} {{upper "a"}}`}, ""},
		{Syslog, opts{"syslog-address": "tcp+tls://logs.example:6514", "syslog-facility": "23", "syslog-format": "rfc5424micro"}, ""},

		{FluentdDriver, opts{"fluentd-address": "logs.example:24225", "fluentd-async": "true", "fluentd-buffer-limit": "1m", "fluentd-retry-wait": "1s", "env": "A"}, ""},
		{FluentdDriver, opts{"fluentd-address": "udp://x:1"}, "unsupported scheme: 'udp'"},
		{FluentdDriver, opts{"fluentd-address": "x:0"}, "want a port from 1 to 65535"},
		{FluentdDriver, opts{"fluentd-acync": "true"}, "unknown log opt 'fluentd-acync' for fluentd log driver"},

		{"gelf", nil, "logger: no log driver named 'gelf' is registered"},
		{JSONFile, opts{"max-sise": "1m"}, "unknown log opt 'max-sise' for json-file log driver"},
		{Journald, opts{"max-size": "1m"}, "unknown log opt 'max-size' for journald log driver"},
		{JSONFile, opts{"max-size": "-1"}, "log opt max-size=-1: "},
		{JSONFile, opts{"max-size": "0"}, "max-size must be a positive number"},
		{JSONFile, opts{"max-file": "0"}, "max-file cannot be less than 1"},
		{JSONFile, opts{"compress": "true"}, "compress cannot be true when max-file is less than 2 or max-size is not set"},
		{JSONFile, opts{"labels-regex": "("}, "log opt labels-regex=(: "},
		{JSONFile, opts{"tag": "{{.Nam}}"}, "Nam"},
		{Syslog, opts{"syslog-address": "http://x"}, "unsupported scheme: 'http'"},
		{Syslog, opts{"syslog-facility": "24"}, "invalid syslog facility"},
		{Syslog, opts{"syslog-format": "json"}, "invalid syslog format"},
		{Local, opts{"pipe-size": "much"}, "log opt pipe-size=much: want a size like 256k or 1m"},
	} {
		err := Validate(c.driver, c.opts)
		if c.want == "" {
			assert.Check(t, err, "%s %v", c.driver, c.opts)
		} else {
			assert.Check(t, is.ErrorContains(err, c.want), "%s %v", c.driver, c.opts)
		}
	}
}

func TestSyslogAddress(t *testing.T) {
	for in, want := range map[string][2]string{
		"":                      {"", ""},
		"unix:///dev/log":       {"unix", "/dev/log"},
		"udp://10.0.0.1":        {"udp", "10.0.0.1:514"},
		"tcp://[2001:db8::1]":   {"tcp", "[2001:db8::1]:514"},
		"tcp+tls://logs.x:6514": {"tcp+tls", "logs.x:6514"},
	} {
		network, address, err := ParseSyslogAddress(in)
		assert.NilError(t, err)
		assert.DeepEqual(t, [2]string{network, address}, want)
	}
	for _, in := range []string{"tcp://", "unix://relative", "10.0.0.1:514"} {
		_, _, err := ParseSyslogAddress(in)
		assert.Assert(t, err != nil, in)
	}
}

func TestAttributes(t *testing.T) {
	i := Info{
		ContainerID: "0123456789abcdef", ContainerName: "/web", ContainerImageID: "sha256:fedcba9876543210", ContainerImageName: "nginx:1",
		ContainerEntrypoint: "/entry", ContainerArgs: []string{"-x", "y"}, DaemonName: "lrd",
		ContainerLabels: map[string]string{"team": "core", "tier": "front"}, ContainerEnv: []string{"A=1=2", "B", "MODE=x y"},
		Config: map[string]string{"labels": "team,none", "env": "A,B", "env-regex": "^MO", "tag": "{{.DaemonName}}/{{.Name}}/{{.ID}}/{{.ImageID}}/{{.Command}}"},
	}
	attrs, err := i.AllAttributes()
	assert.NilError(t, err)
	assert.DeepEqual(t, attrs, map[string]string{
		"team": "core", "A": "1=2", "MODE": "x y", "tag": "lrd/web/0123456789ab/fedcba987654//entry -x y",
	})
	assert.Equal(t, Details(attrs), "A=1%3D2,MODE=x+y,tag=lrd%2Fweb%2F0123456789ab%2Ffedcba987654%2F%2Fentry+-x+y,team=core ")
	i.Config = map[string]string{"labels-regex": "^t"}
	attrs, err = i.AllAttributes()
	assert.NilError(t, err)
	assert.DeepEqual(t, attrs, map[string]string{"team": "core", "tier": "front"})
	assert.Equal(t, Details(nil), " ")
}

// TestStore: whatever the driver, the store is bounded as its user would expect.
func TestStore(t *testing.T) {
	type opts map[string]string
	for _, c := range []struct {
		driver string
		opts   opts
		size   int64
		files  int
	}{
		{Local, nil, 20 << 20, 5},
		{Local, opts{"max-size": "1m", "max-file": "2"}, 1_000_000, 2},
		{JSONFile, nil, 20 << 20, 0},
		{JSONFile, opts{"max-size": "10m", "max-file": "3"}, 10_000_000, 3},
		{JSONFile, opts{"max-size": "1k"}, 4 << 20, 2},
		{Journald, nil, 20 << 20, 5},
		{None, opts{"max-size": "x"}, 1 << 20, 2},
	} {
		o, err := Store(c.driver, c.opts)
		assert.NilError(t, err)
		assert.Check(t, is.DeepEqual([2]int64{o.MaxSize, int64(o.MaxFiles)}, [2]int64{c.size, int64(c.files)}), "%s %v", c.driver, c.opts)
	}
}

func TestFluentd(t *testing.T) {
	for in, want := range map[string]Fluentd{
		"":                    {Network: "tcp", Host: "127.0.0.1", Port: 24224},
		"logs":                {Network: "tcp", Host: "logs", Port: 24224},
		"logs:1":              {Network: "tcp", Host: "logs", Port: 1},
		"tls://logs:1":        {Network: "tls", Host: "logs", Port: 1},
		"tcp://[2001:db8::1]": {Network: "tcp", Host: "2001:db8::1", Port: 24224},
		"unix:///run/fluentd": {Network: "unix", Host: "127.0.0.1", Port: 24224, Path: "/run/fluentd"},
	} {
		want.RequestAck = true
		got, err := ParseFluentd(map[string]string{"fluentd-address": in})
		assert.NilError(t, err)
		assert.Check(t, is.DeepEqual(got, want), in)
	}
	got, err := ParseFluentd(map[string]string{"fluentd-request-ack": "false", "fluentd-sub-second-precision": "true"})
	assert.NilError(t, err)
	assert.Assert(t, !got.RequestAck && got.SubSecondPrecision)
}
