package logopts

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// Fluentd are the options of the driver fluentd.
type Fluentd struct {
	Network            string // tcp, tls or unix
	Host               string
	Port               int
	Path               string // of a Unix socket
	SubSecondPrecision bool
	RequestAck         bool // wait for the server to confirm each entry; unlike Docker's, the default is true
}

// fluentdOptions are the options of the driver's own. Those of Docker's that are about a queue in the
// daemon's memory are taken, and have no effect: there is none, the store is the queue.
var fluentdOptions = map[string]check{
	"fluentd-address": fluentdAddress, "fluentd-sub-second-precision": boolean, "fluentd-request-ack": boolean,
	"fluentd-async": boolean, "fluentd-async-connect": boolean, "fluentd-buffer-limit": bytesSize,
	"fluentd-retry-wait": duration, "fluentd-max-retries": count, "fluentd-async-reconnect-interval": duration,
}

// ParseFluentd reads the options of the driver fluentd.
func ParseFluentd(opts map[string]string) (Fluentd, error) {
	f, err := parseFluentdAddress(opts["fluentd-address"])
	if err != nil {
		return f, err
	}
	f.RequestAck = true
	for name, to := range map[string]*bool{"fluentd-sub-second-precision": &f.SubSecondPrecision, "fluentd-request-ack": &f.RequestAck} {
		if v, ok := opts[name]; ok {
			if *to, err = strconv.ParseBool(v); err != nil {
				return f, err
			}
		}
	}
	return f, nil
}

const (
	fluentdHost = "127.0.0.1"
	fluentdPort = 24224
)

func parseFluentdAddress(v string) (Fluentd, error) {
	f := Fluentd{Network: "tcp", Host: fluentdHost, Port: fluentdPort}
	if v == "" {
		return f, nil
	}
	if !strings.Contains(v, "://") {
		v = "tcp://" + v
	}
	u, err := url.Parse(v)
	if err != nil {
		return f, fmt.Errorf("invalid fluentd-address %s: %w", v, err)
	}
	f.Network = u.Scheme
	switch u.Scheme {
	case "unix":
		f.Path = u.Path
		if !strings.HasPrefix(f.Path, "/") {
			return f, errors.New("want unix:///path/of/a/socket")
		}
		return f, nil
	case "tcp", "tls":
	default:
		return f, fmt.Errorf("unsupported scheme: '%s'; want tcp, tls or unix", u.Scheme)
	}
	if u.Path != "" {
		return f, fmt.Errorf("invalid fluentd-address %s: a path has no meaning there", v)
	}
	f.Host = strings.Trim(u.Host, "[]")
	if host, port, err := net.SplitHostPort(u.Host); err == nil {
		f.Host = host
		if f.Port, err = strconv.Atoi(port); err != nil || f.Port < 1 || f.Port > 65535 {
			return f, fmt.Errorf("invalid fluentd-address %s: want a port from 1 to 65535", v)
		}
	}
	if f.Host == "" {
		f.Host = fluentdHost
	}
	return f, nil
}

func fluentdAddress(v string) error {
	_, err := parseFluentdAddress(v)
	return err
}

func bytesSize(v string) error {
	_, err := units.RAMInBytes(v)
	return err
}

func duration(v string) error {
	_, err := time.ParseDuration(v)
	return err
}

func count(v string) error {
	_, err := strconv.ParseUint(v, 10, 31)
	return err
}
