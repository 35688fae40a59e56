package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// FromDocker makes the lrd.toml for a daemon.json. noCounterpart names, in order, what could not be taken over, each as
// "key: why". The TOML is right for [Load] whatever the file holds: a value that lrd would refuse is left out and
// named. The error is for a file that is no JSON object.
func FromDocker(data []byte) (toml string, noCounterpart []string, err error) {
	values, err := decodeDaemonJSON(data)
	if err != nil {
		return "", nil, err
	}
	l := loader{cfg: Default()}
	none := func(int) Origin { return Origin{File: "daemon.json"} }
	refused := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if _, ok := withoutCounterpart[name]; ok || find(name) == nil || !find(name).Docker {
			refused[name] = unknownToLrd(name)
			continue
		}
		for _, n := range parts(find(name), values[name]) {
			for _, e := range l.set(name, n, none) {
				refused[e.Key] = e.reason()
			}
		}
	}
	// What does not fit together is left out one by one: it names a key of the file, or a key whose default fits.
	for errs := l.cfg.check(); len(errs) > 0; errs = l.cfg.check() {
		e := errs[0]
		name, _, _ := strings.Cut(e.Key, ".")
		if _, given := l.cfg.origins[name]; !given {
			return "", nil, fmt.Errorf("cannot convert this daemon.json: %w", e)
		}
		refused[e.Key] = e.reason()
		find(name).reset(l.cfg)
		maps.DeleteFunc(l.cfg.origins, func(o string, _ Origin) bool { return o == name || strings.HasPrefix(o, name+".") })
	}
	return l.cfg.dockerTOML(), sortedReasons(refused), nil
}

// parts splits a table, so that one bad entry does not take the others along.
func parts(k *Key, n *node) []*node {
	if n.table == nil || k.entries(Default()) == nil {
		return []*node{n}
	}
	var out []*node
	for _, name := range slices.Sorted(maps.Keys(n.table)) {
		out = append(out, &node{table: map[string]*node{name: n.table[name]}})
	}
	return out
}

// dockerTOML prints what daemon.json said, and names the one default that means the opposite.
func (c *Config) dockerTOML() string {
	var b bytes.Buffer
	if c.Origin("live-restore").IsDefault() {
		b.WriteString("# live-restore is not in daemon.json: Docker's default is false, lrd's is true.\n")
	}
	var keys []*Key
	for _, k := range table {
		if !c.Origin(k.Name).IsDefault() {
			keys = append(keys, k)
		}
	}
	_ = printKeys(&b, c, keys, func(string) string { return "" }) // a bytes.Buffer takes everything
	return b.String()
}

// reason is what is wrong, without the place: FromDocker has no lines to offer.
func (e *Error) reason() string {
	return (&Error{Problem: e.Problem, Want: e.Want}).Error()
}

func unknownToLrd(name string) string {
	if why, ok := withoutCounterpart[name]; ok {
		return why
	}
	if find(name) != nil {
		return "Docker has no such key, although lrd has"
	}
	return "neither Docker nor lrd has this key" + didYouMean(name, keyNames())
}

func sortedReasons(reasons map[string]string) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(reasons)) {
		out = append(out, name+": "+reasons[name])
	}
	return out
}

// decodeDaemonJSON reads one JSON object into nodes.
func decodeDaemonJSON(data []byte) (map[string]*node, error) {
	if len(bytes.TrimSpace(data)) == 0 { // dockerd takes an empty file for {}
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var raw map[string]any
	if err := dec.Decode(&raw); err != nil {
		return nil, fmt.Errorf("cannot read this as daemon.json: line %d: %w", jsonLine(data, err, dec), err)
	}
	if dec.More() {
		return nil, errors.New("cannot read this as daemon.json: something follows the object")
	}
	out := map[string]*node{}
	for k, v := range raw {
		out[k] = jsonNode(v)
	}
	return out, nil
}

// jsonLine is the line that a decoding error is about.
func jsonLine(data []byte, err error, dec *json.Decoder) int {
	at := dec.InputOffset()
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.As(err, &kind):
		at = kind.Offset
	}
	return 1 + bytes.Count(data[:min(int(at), len(data))], []byte("\n"))
}

// jsonNode makes of a JSON value what TOML would have made of it.
func jsonNode(v any) *node {
	if m, ok := v.(map[string]any); ok {
		n := &node{table: map[string]*node{}}
		for k, e := range m {
			n.table[k] = jsonNode(e)
		}
		return n
	}
	return &node{value: jsonValue(v)}
}

func jsonValue(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, _ := v.Float64() // too large for a float64 is ±Inf, which no key takes
		return f
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = jsonValue(e)
		}
		return out
	default:
		return v
	}
}

// withoutCounterpart says of each key of Docker's daemon.json that lrd does not have why, or what to use instead
// (the keys: docs.docker.com, "dockerd", "Daemon configuration file").
var withoutCounterpart = map[string]string{
	"allow-direct-routing":             "containers are reached through published ports",
	"allow-nondistributable-artifacts": "all layers are treated alike",
	"api-cors-header":                  "the API is a Unix socket, which no browser reaches",
	"authorization-plugins":            "there are no plugins",
	"bip6":                             "the default bridge has IPv4 only",
	"bridge":                           "the default bridge is lrd0; for containers without it use --network",
	"builder":                          "there is no builder",
	"cgroup-parent":                    "all containers are in lrd.slice",
	"config-file":                      "use the flag --config",
	"containerd":                       "there is no containerd",
	"containerd-namespace":             "there is no containerd",
	"containerd-plugins-namespace":     "there is no containerd",
	"cpu-rt-period":                    "realtime scheduling is set per container",
	"cpu-rt-runtime":                   "realtime scheduling is set per container",
	"data-path-addr":                   "there is no swarm mode",
	"default-gateway":                  "the gateway is the bridge itself, see bip",
	"default-gateway-v6":               "the default bridge has IPv4 only",
	"default-network-opts":             "name the options when a network is made: docker network create --opt",
	"exec-opts":                        "systemd manages the cgroups, always",
	"experimental":                     "there are no experimental features to switch on",
	"features":                         "there are no features to switch on",
	"firewall-backend":                 "lrd uses nftables, always",
	"fixed-cidr-v6":                    "the default bridge has IPv4 only",
	"host-gateway-ip":                  "host-gateway is the address of the bridge, see bip",
	"host-gateway-ips":                 "host-gateway is the address of the bridge, see bip",
	"hosts":                            "the API's address is in lrd.socket; to change it: systemctl edit lrd.socket, ListenStream=",
	"http-proxy":                       "set the environment: systemctl edit lrd.service, Environment=HTTP_PROXY=",
	"https-proxy":                      "set the environment: systemctl edit lrd.service, Environment=HTTPS_PROXY=",
	"icc":                              "containers on one bridge reach each other",
	"ip":                               "name the address when you publish a port: -p ADDRESS:PORT:PORT",
	"ip-forward":                       "lrd switches forwarding on, always",
	"ip-forward-no-drop":               "lrd leaves the host's forwarding policy alone",
	"ip-masq":                          "lrd masquerades the default bridge, always",
	"ip6tables":                        "lrd uses nftables, always",
	"iptables":                         "lrd uses nftables, always",
	"ipv6":                             "the default bridge has IPv4 only",
	"log-format":                       "lrd logs to the journal: journalctl -u lrd -o json",
	"metrics-addr":                     "enable lrd-metrics.socket, and set ListenStream= there: systemctl edit lrd-metrics.socket",
	"network-control-plane-mtu":        "there is no swarm mode",
	"network-diagnostic-port":          "there is no diagnostic port",
	"no-proxy":                         "set the environment: systemctl edit lrd.service, Environment=NO_PROXY=",
	"node-generic-resources":           "there is no swarm mode",
	"nri-opts":                         "there are no NRI plugins",
	"oom-score-adjust":                 "systemctl edit lrd.service, OOMScoreAdjust=",
	"pidfile":                          "systemd knows the process: systemctl show -P MainPID lrd",
	"proxies":                          "set the environment: systemctl edit lrd.service, Environment=HTTP_PROXY=",
	"raw-logs":                         "lrd logs to the journal",
	"rootless":                         "lrd runs as root",
	"selinux-enabled":                  "containers have SELinux labels if they ask for them, with --security-opt label=…",
	"storage-opts":                     "the storage options are fixed",
	"swarm-default-advertise-addr":     "there is no swarm mode",
	"tls":                              "the API is a Unix socket; from afar use DOCKER_HOST=ssh://",
	"tlscacert":                        "the API is a Unix socket; from afar use DOCKER_HOST=ssh://",
	"tlscert":                          "the API is a Unix socket; from afar use DOCKER_HOST=ssh://",
	"tlskey":                           "the API is a Unix socket; from afar use DOCKER_HOST=ssh://",
	"tlsverify":                        "the API is a Unix socket; from afar use DOCKER_HOST=ssh://",
	"userland-proxy":                   "ports are published in the kernel, without a proxy",
	"userland-proxy-path":              "ports are published in the kernel, without a proxy",
	"userns-remap":                     "user namespaces are not remapped",
	"validate":                         "use lrd validate",
}
