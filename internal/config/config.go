package config

import (
	"log/slog"
	"net/netip"
	"strconv"
	"time"

	units "github.com/docker/go-units"
)

// Where lrd looks when nobody says otherwise.
const (
	DefaultFile   = "/etc/lrd/lrd.toml"
	DefaultSocket = "/run/lrd.sock"
)

// Forever is the duration that never ends. It is written as -1, as in Docker's daemon.json.
const Forever = time.Duration(-1)

// Config is the configuration of one daemon at one moment. Each field is described in the table of keys
// (keys.go), under the key's name. It is immutable: read it, pass it on, do not write to it or to what it points to.
type Config struct {
	LiveRestore bool // containers outlive a stop of the daemon
	Standby     bool // lrd-standby drains while the daemon is stopped
	Swarm       bool // the administrator says that this host is a swarm node

	MaxSessions int // streams of clients at once

	DataRoot string // absolute
	ExecRoot string // absolute
	Group    string // group of the API socket

	Debug    bool
	LogLevel string // debug, info, warn, error; see Level
	Labels   []string

	ShutdownTimeout    time.Duration // Forever or ≥ 0
	DefaultStopTimeout time.Duration // Forever or ≥ 0

	StorageDriver          string
	MaxLoadSize            int64    // bytes; 0: no limit
	AdditionalImageStores  []string // absolute paths
	MaxConcurrentDownloads int
	MaxConcurrentUploads   int
	MaxDownloadAttempts    int
	InsecureRegistries     []string // host, host:port or CIDR
	RegistryMirrors        []string // URLs

	CDISpecDirs []string // absolute paths; see CDIDirs

	Bip netip.Prefix // the bridge's own address and the prefix length of its network
	// FixedCIDR is the part of it that containers get addresses from; the zero value is all of it.
	FixedCIDR netip.Prefix
	// AddressPools are where networks that name no subnet get theirs; empty for lrd's own.
	AddressPools []AddressPool
	MTU          int
	DNS          []netip.Addr
	DNSSearch    []string
	DNSOpts      []string

	DefaultRuntime string
	Runtimes       map[string]Runtime // by name; holds DefaultRuntime

	LogDriver string
	LogOpts   map[string]string
	PipeSize  int64 // bytes; 0: as large as the kernel allows; see OutputPipeSize

	Init                bool
	InitPath            string
	NoNewPrivileges     bool
	SeccompProfile      string            // "builtin", "unconfined" or an absolute path
	DefaultShmSize      int64             // bytes
	DefaultIPCMode      string            // private, shareable
	DefaultCgroupnsMode string            // private, host
	DefaultUlimits      map[string]Ulimit // by name without RLIMIT_: nofile, nproc, …

	// origins holds what does not come from the defaults: by key, and for tables by "key.entry".
	origins map[string]Origin
}

// Runtime is an OCI runtime that a container can ask for by name.
type Runtime struct {
	Path string   // absolute, or a name looked up in PATH
	Args []string // before the runtime's subcommand
}

// Ulimit is a pair of resource limits, in setrlimit(2)'s own unit of the resource; -1 is unlimited.
type Ulimit struct {
	Soft, Hard int64
}

// Level is the least severe level that is logged: debug when `debug` is on, else what `log-level` says.
func (c *Config) Level() slog.Level {
	if c.Debug {
		return slog.LevelDebug
	}
	return logLevels[c.LogLevel]
}

// OutputPipeSize is the size in bytes of the pipes that carry a new container's output, unless the container's own
// log options say otherwise: `log-opts.pipe-size`, else `pipe-size`. 0 asks for as much as the kernel allows.
func (c *Config) OutputPipeSize() int64 {
	if s, ok := c.LogOpts[optPipeSize]; ok {
		n, err := units.RAMInBytes(s)
		if err == nil { // Load has checked it; a Config made by a test may hold anything
			return n
		}
	}
	return c.PipeSize
}

// Origin tells where the value of key comes from. For a table, key may name one entry: "runtimes.crun".
func (c *Config) Origin(key string) Origin { return c.origins[key] }

// Default is the configuration of an lrd that nobody configured.
func Default() *Config {
	c := &Config{origins: map[string]Origin{}}
	for _, k := range table {
		k.reset(c)
	}
	return c
}

// Origin is where a value comes from. The zero Origin is the default.
type Origin struct {
	File string // path of a file; empty for a flag and a default
	Line int    // line in File, counted from 1; 0 when the whole file is meant
	Flag string // name of a flag without its dashes; empty for a file and a default
}

// String is "FILE:LINE", "flag --NAME" or "default".
func (o Origin) String() string {
	switch {
	case o.Flag != "":
		return "flag --" + o.Flag
	case o.File != "" && o.Line > 0:
		return o.File + ":" + strconv.Itoa(o.Line)
	case o.File != "":
		return o.File
	default:
		return "default"
	}
}

// IsDefault reports whether nobody set the value.
func (o Origin) IsDefault() bool { return o == Origin{} }

// CDIDirs are CDISpecDirs, or, if there are none, the usual ones.
func (c *Config) CDIDirs() []string {
	if len(c.CDISpecDirs) > 0 {
		return c.CDISpecDirs
	}
	return []string{"/etc/cdi", "/var/run/cdi"}
}
