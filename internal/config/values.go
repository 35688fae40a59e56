package config

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	units "github.com/docker/go-units"

	"lrd/internal/logopts"
)

// This file holds the kinds of values that are one key's own.

var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// optPipeSize is the log option that means the same as a key.
const optPipeSize = logopts.PipeSize

// The kernel's own bounds for F_SETPIPE_SZ (fcntl(2)): one page, and the largest power of two that fits an int.
const (
	minPipe = 4 << 10
	maxPipe = 1 << 30
)

// rootDir is a directory of lrd's own.
var rootDir = text(`the absolute path of a directory of lrd's own, like "/var/lib/lrd"`, func(s string) error {
	switch {
	case !filepath.IsAbs(s):
		return fmt.Errorf("%s is not an absolute path", quote(s))
	case filepath.Clean(s) != s:
		return fmt.Errorf("%s is not in its shortest form, which is %s", quote(s), quote(filepath.Clean(s)))
	case s == "/":
		return fmt.Errorf(`"/" is everybody's`)
	case strings.ContainsAny(s, "\x00\n"):
		return fmt.Errorf("%s holds a control character", quote(s))
	}
	return nil
})

// anyDir is a directory that need not be there.
var anyDir = text(`the absolute path of a directory, like "/etc/cdi"`, func(s string) error {
	if !filepath.IsAbs(s) {
		return fmt.Errorf("%s is not an absolute path", quote(s))
	}
	return nil
})

// foreignDir is a directory of another program's. It becomes a part of mount options.
var foreignDir = text(`the absolute path of a container storage, like "/var/lib/containers/storage"`, func(s string) error {
	switch {
	case !filepath.IsAbs(s):
		return fmt.Errorf("%s is not an absolute path", quote(s))
	case filepath.Clean(s) != s:
		return fmt.Errorf("%s is not in its shortest form, which is %s", quote(s), quote(filepath.Clean(s)))
	case strings.ContainsAny(s, ":,\x00\n"):
		return fmt.Errorf("%s holds a colon, a comma or a control character, which overlay cannot mount", quote(s))
	}
	return nil
})

var program = text(`an absolute path, or a name that is looked up in PATH`, checkProgram)

func checkProgram(s string) error {
	if s == "" || strings.ContainsAny(s, "\x00\n") || !filepath.IsAbs(s) && strings.Contains(s, "/") {
		return fmt.Errorf("%s is neither an absolute path nor a name", quote(s))
	}
	return nil
}

var storageDriver = via(text(`"overlay" or "vfs"`, func(s string) error {
	if s == "overlay2" { // Docker's name of the same thing
		return nil
	}
	_, err := oneOf("overlay", "vfs").parse(s)
	return err
}), func(s string) (string, error) {
	if s == "overlay2" {
		return "overlay", nil
	}
	return s, nil
}, func(s string) string { return s })

var logDriver = text("one of "+strings.Join(mapped(logopts.Drivers(), quote), ", "), func(s string) error {
	if !slices.Contains(logopts.Drivers(), s) {
		return fmt.Errorf("lrd has no log driver %s", quote(s))
	}
	return nil
})

var seccompProfile = text(`"builtin", "unconfined" or the absolute path of a profile`, func(s string) error {
	if s != "builtin" && s != "unconfined" && !filepath.IsAbs(s) {
		return fmt.Errorf("%s is neither of the two nor an absolute path", quote(s))
	}
	return nil
})

// word is a name without white space and control characters.
func word(want string) kind[string] {
	return text(want, func(s string) error {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return fmt.Errorf("%s is empty or holds white space", quote(s))
		}
		return nil
	})
}

var label = text(`KEY=VALUE`, func(s string) error {
	if k, _, ok := strings.Cut(s, "="); !ok || k == "" {
		return fmt.Errorf("%s is not KEY=VALUE", quote(s))
	}
	return nil
})

var address = via(text(`an IP address like "192.0.2.53"`, func(string) error { return nil }),
	func(s string) (netip.Addr, error) {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return a, fmt.Errorf("%s is not an IP address", quote(s))
		}
		return a, nil
	}, netip.Addr.String)

var bridgeAddress = via(text(`the bridge's own IPv4 address with the length of its network, like "192.168.84.1/24", from /8 to /29`,
	func(string) error { return nil }), parseBip, netip.Prefix.String)

func parseBip(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || !p.Addr().Is4():
		return p, fmt.Errorf("%s is not an IPv4 address with a length", quote(s))
	case p.Bits() < 8 || p.Bits() > 29:
		return p, fmt.Errorf("a network of /%d is out of range", p.Bits())
	case p.Addr() == p.Masked().Addr():
		return p, fmt.Errorf("%s is the network, not an address in it that the bridge can have", quote(s))
	case p.Addr() == broadcast(p):
		return p, fmt.Errorf("%s is the network's broadcast address", quote(s))
	case !p.Addr().IsGlobalUnicast():
		return p, fmt.Errorf("%s is not an address that an interface can have", quote(s))
	}
	return p, nil
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(a)
}

var insecureRegistry = text(`HOST, HOST:PORT or a network like "192.0.2.0/24"`, func(s string) error {
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil
	}
	if s == "" || strings.ContainsAny(s, "/@?# \t\n") {
		return fmt.Errorf("%s is neither a host nor a network", quote(s))
	}
	return nil
})

var mirror = text(`a URL like "https://mirror.example.com"`, func(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%s is not a URL of http or https", quote(s))
	case u.User != nil:
		return fmt.Errorf("a mirror's URL cannot carry a user")
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%s carries a query or a fragment", quote(s))
	}
	return nil
})

var runtimeEntry = entryKind[Runtime]{
	name:  "runtime",
	want:  `like crun = { path = "/usr/bin/crun", runtimeArgs = ["--debug"] }`,
	parse: parseRuntime,
	print: func(r Runtime) string {
		s := "{ path = " + quote(r.Path)
		if len(r.Args) > 0 {
			s += ", runtimeArgs = [" + strings.Join(mapped(r.Args, quote), ", ") + "]"
		}
		return s + " }"
	},
}

func parseRuntime(name string, n *node) (r Runtime, faults []fault) {
	if name == "" || strings.ContainsAny(name, "\x00\n ") {
		return r, []fault{{problem: fmt.Sprintf("%s is no name for a runtime", quote(name))}}
	}
	if s, ok := n.value.(string); ok { // a flag: --runtimes crun=/usr/bin/crun
		n = &node{table: map[string]*node{"path": {value: s, line: n.line}}, line: n.line}
	}
	if n.table == nil {
		return r, []fault{{problem: wrongType(n.plain()).Error()}}
	}
	for _, key := range slices.Sorted(maps.Keys(n.table)) {
		v := n.table[key]
		bad := func(problem string) {
			faults = append(faults, fault{line: v.line, below: "." + bareKey(key), problem: problem})
		}
		var err error
		switch key {
		case "path":
			r.Path, err = program.parse(v.plain())
		case "runtimeArgs":
			args, ok := v.value.([]any)
			if !ok {
				err = wrongType(v.plain())
			}
			for _, a := range args {
				s, ok := a.(string)
				if !ok || strings.ContainsRune(s, 0) {
					err = wrongType(a)
				}
				r.Args = append(r.Args, s)
			}
		default:
			bad("unknown key" + didYouMean(key, []string{"path", "runtimeArgs"}))
		}
		if err != nil {
			bad(err.Error())
		}
	}
	if r.Path == "" && len(faults) == 0 {
		faults = append(faults, fault{problem: "the runtime has no path"})
	}
	return r, faults
}

// logOpt takes any option that a log driver has; whether it goes with the one that is configured, check says.
var logOpt = entryKind[string]{
	name: "string",
	want: `an option of the log driver, like max-size = "10m"`,
	parse: func(name string, n *node) (string, []fault) {
		if !slices.Contains(logopts.Options(), name) {
			return "", []fault{{problem: "unknown log option" + didYouMean(name, logopts.Options())}}
		}
		v := n.plain()
		if name == optPipeSize {
			return logPipeSize(v)
		}
		switch v := v.(type) {
		case string:
			return v, nil
		case int64, bool: // Docker's log options are strings; people write numbers
			return fmt.Sprint(v), nil
		}
		return "", []fault{{problem: "it is neither a string nor a number", want: "a string"}}
	},
	print: quote,
}

func logPipeSize(v any) (string, []fault) {
	if s, ok := v.(string); ok {
		v = asNumber(s)
	}
	k := size(minPipe, maxPipe, false)
	bytes, err := k.parse(v)
	if err != nil {
		return "", []fault{{problem: err.Error(), want: k.want}}
	}
	return strings.Trim(printSize(bytes), `"`), nil
}

// ulimitNames are the limits that go-units, and with it `docker run --ulimit`, knows.
var ulimitNames = []string{
	"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime",
	"sigpending", "stack",
}

var ulimit = entryKind[Ulimit]{
	name:  "limit",
	want:  `like nofile = { soft = 1024, hard = 524288 }, nofile = 1024 or nofile = "1024:524288"; -1 is unlimited`,
	parse: parseUlimit,
	print: func(u Ulimit) string { return fmt.Sprintf("{ soft = %d, hard = %d }", u.Soft, u.Hard) },
}

func parseUlimit(name string, n *node) (u Ulimit, faults []fault) {
	bad := func(format string, args ...any) (Ulimit, []fault) {
		return Ulimit{}, []fault{{problem: fmt.Sprintf(format, args...)}}
	}
	if !slices.Contains(ulimitNames, name) {
		return bad("there is no limit of this name%s", didYouMean(name, ulimitNames))
	}
	switch v := n.plain().(type) {
	case int64:
		u = Ulimit{Soft: v, Hard: v}
	case string:
		parsed, err := units.ParseUlimit(name + "=" + v)
		if err != nil {
			return bad("%s is not SOFT:HARD", quote(v))
		}
		u = Ulimit{Soft: parsed.Soft, Hard: parsed.Hard}
	case map[string]any:
		var problem string
		if u, problem = ulimitTable(name, v); problem != "" {
			return bad("%s", problem)
		}
	default:
		return bad("%s", wrongType(v))
	}
	switch {
	case u.Soft < -1 || u.Hard < -1:
		return bad("a limit is -1 or more")
	case u.Hard >= 0 && (u.Soft > u.Hard || u.Soft == -1):
		return bad("soft (%s) is above hard (%s)", limitText(u.Soft), limitText(u.Hard))
	}
	return u, nil
}

// ulimitTable reads { soft = 1, hard = 2 }, also in the capitals of daemon.json, whose entries repeat their name.
func ulimitTable(name string, t map[string]any) (u Ulimit, problem string) {
	seen := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(t)) {
		lower := strings.ToLower(key)
		if seen[lower] {
			return u, quote(lower) + " is there twice"
		}
		seen[lower] = true
		number, isInt := t[key].(int64)
		switch {
		case lower == "name":
			if t[key] != name {
				return u, "name is another one than the entry's"
			}
		case lower != "soft" && lower != "hard":
			return u, "unknown key " + quote(key)
		case !isInt:
			return u, wrongType(t[key]).Error()
		case lower == "soft":
			u.Soft = number
		default:
			u.Hard = number
		}
	}
	if !seen["soft"] || !seen["hard"] {
		return u, "soft or hard is missing"
	}
	return u, ""
}

func limitText(n int64) string {
	if n == -1 {
		return "unlimited"
	}
	return strconv.FormatInt(n, 10)
}

func mapped(in []string, f func(string) string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = f(s)
	}
	return out
}
