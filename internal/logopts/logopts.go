package logopts

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"lrd/internal/output"
)

// The log drivers.
const (
	Local         = "local"
	None          = "none"
	JSONFile      = "json-file"
	Journald      = "journald"
	Syslog        = "syslog"
	FluentdDriver = "fluentd"
)

// PipeSize is the option, of every driver, that sets the size of the pipes
// that carry a container's output.
const PipeSize = "pipe-size"

// check says what is wrong with the value of an option.
type check func(value string) error

// common are the options that every driver takes. Those of the store are checked by package output.
var common = map[string]check{
	PipeSize: pipeSize, "mode": anything, "max-buffer-size": anything, "on-full": anything,
}

// attributes are the options that choose what an entry says of its container.
var attributes = map[string]check{
	"labels": anything, "labels-regex": expression, "env": anything, "env-regex": expression, "tag": checkTag,
}

// drivers are the options of each driver's own.
var drivers = map[string]map[string]check{
	Local:         {"max-size": anything, "max-file": anything, "compress": anything}, // the store's
	None:          {},
	JSONFile:      with(attributes, map[string]check{"max-size": positiveSize, "max-file": maxFile, "compress": boolean}),
	Journald:      attributes,
	FluentdDriver: with(attributes, fluentdOptions),
	Syslog: with(attributes, map[string]check{
		"syslog-address": syslogAddress, "syslog-facility": syslogFacility, "syslog-format": syslogFormat,
		"syslog-tls-ca-cert": anything, "syslog-tls-cert": anything, "syslog-tls-key": anything, "syslog-tls-skip-verify": anything,
	}),
}

func with(a, b map[string]check) map[string]check {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// Drivers are the names of the log drivers, sorted.
func Drivers() []string { return slices.Sorted(maps.Keys(drivers)) }

// Options are the names of all options that any driver takes, sorted.
func Options() []string {
	all := maps.Clone(common)
	for _, own := range drivers {
		maps.Copy(all, own)
	}
	return slices.Sorted(maps.Keys(all))
}

// An OptionError says what is wrong with one option.
type OptionError struct {
	Option string // its name
	text   string
}

// Error is the whole sentence.
func (e *OptionError) Error() string { return e.text }

// Validate says what is wrong with a driver and its options: with the first of the
// options, in alphabetical order, as an *OptionError, or what does not fit together.
func Validate(driver string, opts map[string]string) error {
	own, ok := drivers[driver]
	if !ok {
		return fmt.Errorf("logger: no log driver named '%s' is registered; there are %s", driver, strings.Join(Drivers(), ", "))
	}
	if driver == None {
		return nil // as Docker, which does not look at them
	}
	for _, name := range slices.Sorted(maps.Keys(opts)) {
		wrong, ok := own[name]
		if !ok {
			wrong, ok = common[name]
		}
		if !ok {
			return &OptionError{name, fmt.Sprintf("unknown log opt '%s' for %s log driver", name, driver)}
		}
		if err := wrong(opts[name]); err != nil {
			return &OptionError{name, fmt.Sprintf("log opt %s=%s: %s", name, opts[name], err)}
		}
	}
	_, err := Store(driver, opts)
	return err
}

const (
	// A container whose output goes elsewhere has a store for clients that are attached, and for forwarders to
	// read from. With json-file and max-size it keeps about as much as the files do, but not less than this in a segment.
	leastSegment = 4 << 20

	// noneSegment is a segment of a store that nobody reads later: clients that are attached read it at once.
	noneSegment = 1 << 20
)

// Store returns how the store of a container with that driver and these options is kept.
//
//	local      as the options say; by default as Docker's driver local keeps its files
//	json-file  as much as the files, all if these have no limit
//	none       as little as attached clients need
//	others     as local by default
func Store(driver string, opts map[string]string) (output.Options, error) {
	if driver == Local {
		return output.ParseOptions(opts)
	}
	shared := map[string]string{}
	for name := range common {
		if v, ok := opts[name]; ok && driver != None {
			shared[name] = v
		}
	}
	o, err := output.ParseOptions(shared)
	if err != nil {
		return o, err
	}
	switch driver {
	case None:
		o.MaxSize, o.MaxFiles, o.Compress = noneSegment, 2, false
	case JSONFile:
		files, err := ParseFiles(opts)
		if err != nil {
			return o, err
		}
		o.MaxFiles = 0
		if files.MaxSize > 0 {
			o.MaxSize, o.MaxFiles = max(files.MaxSize, leastSegment), max(files.MaxFiles, 2)
		}
	}
	return o, nil
}

// Files are the options of json-file that say how its files are turned over.
type Files struct {
	MaxSize  int64 // bytes, at which a file is full; 0: no limit
	MaxFiles int   // how many are kept, the one being written to included; at least 1
	Compress bool  // with gzip, all but the one being written to
}

// ParseFiles reads the options max-size, max-file and compress of json-file.
func ParseFiles(opts map[string]string) (Files, error) {
	f := Files{MaxFiles: 1}
	var err error
	if v, ok := opts["max-size"]; ok {
		if f.MaxSize, err = size(v); err != nil {
			return f, err
		}
	}
	if v, ok := opts["max-file"]; ok {
		if f.MaxFiles, err = strconv.Atoi(v); err != nil {
			return f, err
		}
	}
	if v, ok := opts["compress"]; ok {
		if f.Compress, err = strconv.ParseBool(v); err != nil {
			return f, err
		}
	}
	if f.Compress && (f.MaxFiles < 2 || f.MaxSize == 0) {
		return f, errors.New("compress cannot be true when max-file is less than 2 or max-size is not set")
	}
	return f, nil
}

// size is a number of bytes as Docker's log drivers read one: 1k is 1000.
func size(v string) (int64, error) {
	n, err := units.FromHumanSize(v)
	if err == nil && n <= 0 {
		err = errors.New("max-size must be a positive number")
	}
	return n, err
}

func positiveSize(v string) error {
	_, err := size(v)
	return err
}

func maxFile(v string) error {
	n, err := strconv.Atoi(v)
	switch {
	case err != nil:
		return errors.New("want a number of files")
	case n < 1:
		return errors.New("max-file cannot be less than 1")
	}
	return nil
}

func pipeSize(v string) error {
	if n, err := units.RAMInBytes(v); err != nil || n < 0 {
		return errors.New("want a size like 256k or 1m")
	}
	return nil
}

func boolean(v string) error {
	if _, err := strconv.ParseBool(v); err != nil {
		return errors.New("want true or false")
	}
	return nil
}

func anything(string) error { return nil }

func expression(v string) error {
	_, err := regexp.Compile(v)
	return err
}

// ParseSyslogAddress takes the option syslog-address apart. network is "" for
// the syslog of this machine, else unix, unixgram, tcp, udp or tcp+tls; address is
// a path or a host and a port.
func ParseSyslogAddress(v string) (network, address string, err error) {
	if v == "" {
		return "", "", nil
	}
	u, err := url.Parse(v)
	if err != nil {
		return "", "", fmt.Errorf("unable to parse provided address: %w", err)
	}
	switch u.Scheme {
	case "unix", "unixgram":
		if !strings.HasPrefix(u.Path, "/") {
			return "", "", errors.New("want unix:///path/of/a/socket")
		}
		return u.Scheme, u.Path, nil
	case "tcp", "udp", "tcp+tls":
		host, port, err := net.SplitHostPort(u.Host)
		if err != nil {
			// 6514 is the port of syslog over TLS (RFC 5425); Docker takes 514 for all.
			host, port = strings.Trim(u.Host, "[]"), "514"
		}
		if host == "" {
			return "", "", errors.New("it names no host")
		}
		return u.Scheme, net.JoinHostPort(host, port), nil
	}
	return "", "", fmt.Errorf("unsupported scheme: '%s'; want unix, unixgram, tcp, udp or tcp+tls", u.Scheme)
}

func syslogAddress(v string) error {
	_, _, err := ParseSyslogAddress(v)
	return err
}

// facilities are syslog's, by name (RFC 5424, table 1, with the names of syslog(3)).
var facilities = map[string]int{
	"kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9, "authpriv": 10, "ftp": 11,
	"local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}

// ParseSyslogFacility reads the option syslog-facility, a name or a number; daemon when it is empty.
func ParseSyslogFacility(v string) (int, error) {
	if v == "" {
		return facilities["daemon"], nil
	}
	if n, ok := facilities[v]; ok {
		return n, nil
	}
	if n, err := strconv.Atoi(v); err == nil && 0 <= n && n <= 23 {
		return n, nil
	}
	return 0, errors.New("invalid syslog facility")
}

func syslogFacility(v string) error {
	_, err := ParseSyslogFacility(v)
	return err
}

// SyslogFormats are the values of the option syslog-format.
var SyslogFormats = []string{"", "rfc3164", "rfc5424", "rfc5424micro"}

func syslogFormat(v string) error {
	if !slices.Contains(SyslogFormats, v) {
		return errors.New("invalid syslog format")
	}
	return nil
}
