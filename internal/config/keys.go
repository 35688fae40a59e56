package config

import (
	"net/netip"
	"slices"
	"time"
)

// Key is one setting, as the reference, the flags and `lrd config` show it.
type Key struct {
	Name       string   // in lrd.toml, and as a flag: --Name
	Aliases    []string // more names of the flag: those that dockerd uses
	Reloadable bool     // takes effect at a reload; others wait for a restart
	// Docker is false for a key that Docker's daemon.json does not have.
	Docker bool
	Doc    string // one paragraph

	binding
}

// Type names the type of the key's values: "boolean", "size", "list of strings", …
func (k *Key) Type() string { name, _ := k.describe(); return name }

// Want tells what a right value looks like.
func (k *Key) Want() string { _, want := k.describe(); return want }

// Default is the default as TOML.
func (k *Key) Default() string { return k.text(Default()) }

// Value is the key's value in c as TOML. Two values are equal if and only if their texts are.
func (k *Key) Value(c *Config) string { return k.text(c) }

// Keys is the table of all keys, in the order in which they are documented and printed.
func Keys() []*Key { return slices.Clone(table) }

func find(name string) *Key {
	i := slices.IndexFunc(table, func(k *Key) bool { return k.Name == name })
	if i < 0 {
		return nil
	}
	return table[i]
}

func one[T any](k kind[T], field func(*Config) *T, def T) binding {
	return single[T]{kind: k, field: field, def: def}
}

func many[T any](k kind[T], field func(*Config) *[]T) binding { return list[T]{kind: k, field: field} }

// table is the one place that knows every key. A key is reloadable when an operation that starts after the reload
// sees the new value; what was made before (a container, the bridge) keeps what it was made with.
var table = []*Key{
	{
		Name: "live-restore", Docker: true, Reloadable: true,
		Doc: "Containers go on while lrd is stopped. When it is off, a stopping lrd shuts all containers down, within " +
			"`shutdown-timeout`. What is in force at the moment of the stop decides. Docker's default is false; lrd exists for true.",
		binding: one(boolean, func(c *Config) *bool { return &c.LiveRestore }, true),
	},
	{
		Name: "standby", Reloadable: true,
		Doc: "While lrd is stopped (not: restarted), lrd-standby.service drains what containers write, and serves clients " +
			"that read it. When it is off, containers wait when their pipes are full (`pipe-size`). " +
			"What is in force at the moment of the stop decides. `systemctl stop lrd lrd-standby` stops both, as before " +
			"`data-root` is copied or moved.",
		binding: one(boolean, func(c *Config) *bool { return &c.Standby }, true),
	},
	{
		Name: "shutdown-timeout", Docker: true, Reloadable: true,
		Doc: "With `live-restore = false`: how long a stopping lrd waits for all containers together before it kills " +
			"those that are left.",
		binding: one(duration, func(c *Config) *time.Duration { return &c.ShutdownTimeout }, 15*time.Second),
	},
	{
		Name: "default-stop-timeout", Reloadable: true,
		Doc: "How long `docker stop` waits before it kills a container that was created without `--stop-timeout`, " +
			"when the client names no time either.",
		binding: one(duration, func(c *Config) *time.Duration { return &c.DefaultStopTimeout }, 10*time.Second),
	},
	{
		Name: "max-sessions", Reloadable: true,
		Doc: "How many streams clients may have open at once: `docker attach`, `run` in the foreground, `exec`, `logs`, " +
			"`wait`, `events` and `stats`. Each is kept over a restart, with a descriptor in systemd's store and a small file in " +
			"exec-root. One too many is refused. Raise `FileDescriptorStoreMax=` of lrd.service along with it.",
		binding: one(integer(1, 100000), func(c *Config) *int { return &c.MaxSessions }, 1000),
	},
	{
		Name: "swarm", Reloadable: true,
		Doc: "Says that this host is meant to be a Docker Swarm node. lrd has no swarm mode: the key exists so that " +
			"the combination with live-restore is refused in Docker's words; without live-restore it only warns.",
		binding: one(boolean, func(c *Config) *bool { return &c.Swarm }, false),
	},
	{
		Name: "data-root", Docker: true,
		Doc:     "Where lrd keeps what must survive a reboot: records, output, images, volumes.",
		binding: one(rootDir, func(c *Config) *string { return &c.DataRoot }, "/var/lib/lrd"),
	},
	{
		Name: "exec-root", Docker: true,
		Doc:     "Where lrd keeps what is worthless after a reboot: bundles, FIFOs, network namespaces.",
		binding: one(rootDir, func(c *Config) *string { return &c.ExecRoot }, "/run/lrd"),
	},
	{
		Name: "group", Docker: true, Aliases: []string{"G"},
		Doc: "The group that may use the API socket when lrd has to make the socket itself. Under systemd the socket is " +
			"lrd.socket's, and its group is `SocketGroup=` there.",
		binding: one(word("the name or number of a group"), func(c *Config) *string { return &c.Group }, "lrd"),
	},
	{
		Name: "debug", Docker: true, Reloadable: true, Aliases: []string{"D"},
		Doc:     "Log everything, whatever `log-level` says.",
		binding: one(boolean, func(c *Config) *bool { return &c.Debug }, false),
	},
	{
		Name: "log-level", Docker: true, Reloadable: true, Aliases: []string{"l"},
		Doc:     "The least severe messages of lrd itself that are logged.",
		binding: one(oneOf("debug", "info", "warn", "error"), func(c *Config) *string { return &c.LogLevel }, "info"),
	},
	{
		Name: "labels", Docker: true, Reloadable: true, Aliases: []string{"label"},
		Doc:     "Labels of this daemon, shown by `docker info`.",
		binding: many(label, func(c *Config) *[]string { return &c.Labels }),
	},
	{
		Name: "storage-driver", Docker: true, Aliases: []string{"s"},
		Doc: "How images and root filesystems are layered. `overlay2`, Docker's name, is taken for `overlay`. " +
			"Images and containers of another driver are not seen; containers that run are left running.",
		binding: one(storageDriver, func(c *Config) *string { return &c.StorageDriver }, "overlay"),
	},
	{
		Name: "additional-image-stores",
		Doc: "Storages of other tools whose images lrd may use and never changes, like podman's /var/lib/containers/storage. They " +
			"are of the driver `overlay`. An image that somebody removes there is gone under its containers. One that is not there at the start is left out, with a warning.",
		binding: many(foreignDir, func(c *Config) *[]string { return &c.AdditionalImageStores }),
	},
	{
		Name: "max-load-size",
		Doc: "The most bytes that the layers of one image may unpack to at `docker load`, `import` or `pull`: a larger one " +
			"is refused before it fills the disk. 0 is no limit.",
		binding: one(size(1<<20, 1<<50, true), func(c *Config) *int64 { return &c.MaxLoadSize }, 32<<30),
	},
	{
		Name: "max-concurrent-downloads", Docker: true,
		Doc:     "How many layers of one image are pulled at the same time.",
		binding: one(integer(1, 1000), func(c *Config) *int { return &c.MaxConcurrentDownloads }, 3),
	},
	{
		Name: "max-concurrent-uploads", Docker: true,
		Doc:     "How many layers of one image are pushed at the same time.",
		binding: one(integer(1, 1000), func(c *Config) *int { return &c.MaxConcurrentUploads }, 5),
	},
	{
		Name: "max-download-attempts", Docker: true,
		Doc:     "How often the download of a layer is tried before the pull fails, with a pause that doubles from one second on.",
		binding: one(integer(1, 1000), func(c *Config) *int { return &c.MaxDownloadAttempts }, 5),
	},
	{
		Name: "insecure-registries", Docker: true, Reloadable: true, Aliases: []string{"insecure-registry"},
		Doc:     "Registries that may answer over plain HTTP or with a certificate that nobody signed.",
		binding: many(insecureRegistry, func(c *Config) *[]string { return &c.InsecureRegistries }),
	},
	{
		Name: "registry-mirrors", Docker: true, Reloadable: true, Aliases: []string{"registry-mirror"},
		Doc:     "Mirrors of Docker Hub, tried in this order before it.",
		binding: many(mirror, func(c *Config) *[]string { return &c.RegistryMirrors }),
	},
	{
		Name: "cdi-spec-dirs", Docker: true, Reloadable: true, Aliases: []string{"cdi-spec-dir"},
		Doc: "Where the descriptions of CDI devices are, for `--device vendor.com/class=name` and `--gpus`; of two for one device, that in the later directory " +
			"counts. Without any: `/etc/cdi` and `/var/run/cdi`.",
		binding: many(anyDir, func(c *Config) *[]string { return &c.CDISpecDirs }),
	},
	{
		Name: "bip", Docker: true,
		Doc: "Address of the default bridge lrd0, with the length of its network; containers get the others. The default " +
			"lies outside the networks that Docker and Podman choose for themselves.",
		binding: one(bridgeAddress, func(c *Config) *netip.Prefix { return &c.Bip }, netip.MustParsePrefix("10.87.0.1/16")),
	},
	{
		Name: "fixed-cidr", Docker: true,
		Doc:     "The part of the default bridge's network that containers get addresses from. Empty is all of it.",
		binding: one(subnetOrNone, func(c *Config) *netip.Prefix { return &c.FixedCIDR }, netip.Prefix{}),
	},
	{
		Name: "default-address-pools", Docker: true, Aliases: []string{"default-address-pool"},
		Doc: "Where networks that are made without `--subnet` get theirs: each pool is cut into subnets of the size, the first " +
			"that is free is taken. Without any these are 172.18.0.0/16 to 172.31.0.0/16, and 192.168.0.0/16 in pieces of /20.",
		binding: many(addressPool, func(c *Config) *[]AddressPool { return &c.AddressPools }),
	},
	{
		Name: "mtu", Docker: true,
		Doc:     "MTU of the default bridge, in bytes. 68 is the least that IPv4 allows (RFC 791).",
		binding: one(integer(68, 65535), func(c *Config) *int { return &c.MTU }, 1500),
	},
	{
		Name: "dns", Docker: true, Reloadable: true,
		Doc:     "DNS servers of new containers. Without any, they get the host's.",
		binding: many(address, func(c *Config) *[]netip.Addr { return &c.DNS }),
	},
	{
		Name: "dns-search", Docker: true, Reloadable: true,
		Doc:     "DNS search domains of new containers.",
		binding: many(word("a domain name"), func(c *Config) *[]string { return &c.DNSSearch }),
	},
	{
		Name: "dns-opts", Docker: true, Reloadable: true, Aliases: []string{"dns-opt"},
		Doc:     "Options in the resolv.conf of new containers, see resolv.conf(5).",
		binding: many(word(`an option like "ndots:2"`), func(c *Config) *[]string { return &c.DNSOpts }),
	},
	{
		Name: "default-runtime", Docker: true, Reloadable: true,
		Doc:     "The runtime of containers that ask for none: one of `runtimes`.",
		binding: one(word("the name of one of the runtimes"), func(c *Config) *string { return &c.DefaultRuntime }, "crun"),
	},
	{
		Name: "log-driver", Docker: true, Reloadable: true,
		Doc: "Where the output of new containers goes besides lrd's own lossless store, from which `docker logs` and " +
			"`docker attach` are served whatever the driver. `local` is that store alone, which Docker's driver of the name is " +
			"comparable to; `none` keeps nothing for `docker logs`. `json-file` and `journald` get each line once, also over a crash of lrd; `syslog` and `fluentd` get none less. " +
			"Docker's default is `json-file`.",
		binding: one(logDriver, func(c *Config) *string { return &c.LogDriver }, "local"),
	},
	{
		Name: "pipe-size", Reloadable: true,
		Doc: "Size of the pipes that carry the output of new containers; it is what a container can write while nobody " +
			"reads. The kernel rounds up to a power of two. 0, and everything above it, means the kernel's ceiling, " +
			"/proc/sys/fs/pipe-max-size. `--log-opt pipe-size=` overrides it for one container.",
		binding: one(size(minPipe, maxPipe, true), func(c *Config) *int64 { return &c.PipeSize }, 0),
	},
	{
		Name: "init", Docker: true, Reloadable: true,
		Doc:     "Run an init in new containers that forwards signals and reaps processes, as `docker run --init` does.",
		binding: one(boolean, func(c *Config) *bool { return &c.Init }, false),
	},
	{
		Name: "init-path", Docker: true, Reloadable: true,
		Doc:     "The init's binary, a static one: it runs in any image. Where docker-init is not there, tini-static and catatonit are looked for.",
		binding: one(program, func(c *Config) *string { return &c.InitPath }, "docker-init"),
	},
	{
		Name: "no-new-privileges", Docker: true, Reloadable: true,
		Doc:     "New containers cannot gain privileges by set-user-ID programs, unless they ask for it.",
		binding: one(boolean, func(c *Config) *bool { return &c.NoNewPrivileges }, false),
	},
	{
		Name: "seccomp-profile", Docker: true, Reloadable: true,
		Doc:     "The seccomp profile of new containers that name none.",
		binding: one(seccompProfile, func(c *Config) *string { return &c.SeccompProfile }, "builtin"),
	},
	{
		Name: "default-shm-size", Docker: true, Reloadable: true,
		Doc:     "Size of /dev/shm in new containers.",
		binding: one(size(4<<10, 1<<50, false), func(c *Config) *int64 { return &c.DefaultShmSize }, 64<<20),
	},
	{
		Name: "default-ipc-mode", Docker: true, Reloadable: true,
		Doc:     "The IPC mode of new containers.",
		binding: one(oneOf("private", "shareable"), func(c *Config) *string { return &c.DefaultIPCMode }, "private"),
	},
	{
		Name: "default-cgroupns-mode", Docker: true, Reloadable: true,
		Doc:     "The cgroup namespace of new containers.",
		binding: one(oneOf("private", "host"), func(c *Config) *string { return &c.DefaultCgroupnsMode }, "private"),
	},
	{
		Name: "log-opts", Docker: true, Reloadable: true, Aliases: []string{"log-opt"},
		Doc: "Options of that log driver for new containers, which `--log-opt` overrides one by one; not for containers that " +
			"ask for another driver. `pipe-size` means the same as the key `pipe-size`; saying two different sizes is refused.",
		binding: tableOf[string]{kind: logOpt, field: func(c *Config) *map[string]string { return &c.LogOpts }},
	},
	{
		Name: "runtimes", Docker: true, Reloadable: true, Aliases: []string{"add-runtime"},
		Doc: "The OCI runtimes that containers can ask for by name. `path` is absolute, or looked up in PATH; `runtimeArgs` " +
			"come before the subcommand. A runtime must do without a cgroup manager of its own.",
		binding: tableOf[Runtime]{
			kind: runtimeEntry, field: func(c *Config) *map[string]Runtime { return &c.Runtimes },
			def: map[string]Runtime{"crun": {Path: "crun"}},
		},
	},
	{
		Name: "default-ulimits", Docker: true, Reloadable: true, Aliases: []string{"default-ulimit"},
		Doc:     "Resource limits of new containers, by their names without RLIMIT_; see setrlimit(2) for what they count.",
		binding: tableOf[Ulimit]{kind: ulimit, field: func(c *Config) *map[string]Ulimit { return &c.DefaultUlimits }},
	},
}
