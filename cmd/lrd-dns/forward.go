package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"

	"lrd/internal/names"
)

// hostResolvConf names the host's name servers (resolv.conf(5)).
const hostResolvConf = "/etc/resolv.conf"

const (
	// patience is how long one name server is waited for. Clients wait five seconds for all of them (resolv.conf(5)).
	patience = 2 * time.Second
	// maxServers is how many are asked for one name, as libc has it (MAXNS).
	maxServers = 3
	// maxForwarded bounds the questions that wait for other name servers, of all containers and of each: each question
	// has a socket, and no container is to have all.
	maxForwarded      = 4096
	maxForwardedGuest = 256
)

var errBusy = errors.New("too many questions are waiting for other name servers")

// slots hold one token for each question that waits.
type slots chan struct{}

// take takes a slot, or says that there is none.
func (s slots) take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s slots) giveBack() { <-s }

// upstream asks other name servers.
type upstream struct {
	path  string // of the host's resolv.conf
	slots slots

	// mu guards what was read last, which counts for as long as the file is that one.
	mu      sync.Mutex
	read    stamp
	servers []netip.Addr
}

func newUpstream(path string) *upstream {
	return &upstream{path: path, slots: make(slots, maxForwarded)}
}

// ask asks a container's own name servers from inside of its network namespace, or the host's from the host: these may be
// at the host's loopback interface. The first that answers is believed, unless it says that it failed.
func (u *upstream) ask(question *dns.Msg, c names.Container, tcp bool) (*dns.Msg, error) {
	if !u.slots.take() {
		return nil, errBusy
	}
	defer u.slots.giveBack()
	servers, netNS := c.Servers, c.NetNS
	if len(servers) == 0 {
		var err error
		if servers, err = u.hosts(); err != nil {
			return nil, err
		}
		netNS = ""
	}
	var errs []error
	var failed *dns.Msg
	for _, s := range servers[:min(len(servers), maxServers)] {
		answer, err := exchange(question, netip.AddrPortFrom(s, 53), netNS, tcp)
		switch {
		case err != nil:
			errs = append(errs, err)
		case answer.Rcode == dns.RcodeServerFailure || answer.Rcode == dns.RcodeRefused:
			failed = answer
		default:
			return answer, nil
		}
	}
	if failed != nil {
		return failed, nil
	}
	return nil, errors.Join(errs...)
}

// exchange asks one server. "" is the namespace that this process is in.
func exchange(question *dns.Msg, server netip.AddrPort, netNS string, tcp bool) (*dns.Msg, error) {
	client := dns.Client{Net: "udp", Timeout: patience, UDPSize: dns.MaxMsgSize}
	if tcp {
		client.Net = "tcp"
	}
	var conn net.Conn
	dial := func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var d net.Dialer
		conn, err = d.DialContext(ctx, client.Net, server.String())
		return err
	}
	var err error
	if netNS == "" {
		err = dial()
	} else {
		err = inNetNS(netNS, dial)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot ask %s: %w", server, err)
	}
	defer conn.Close()
	// The question's number and options go along as they are.
	answer, _, err := client.ExchangeWithConn(question, &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize})
	if err != nil {
		return nil, fmt.Errorf("cannot ask %s: %w", server, err)
	}
	return answer, nil
}

// hosts are the host's name servers, as they are now: a machine that moves to another network has others.
func (u *upstream) hosts() ([]netip.Addr, error) {
	now, err := stampOf(u.path)
	if err != nil {
		return nil, fmt.Errorf("cannot find the host's name servers: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if now == u.read && len(u.servers) > 0 {
		return u.servers, nil
	}
	f, err := os.Open(u.path)
	if err != nil {
		return nil, fmt.Errorf("cannot find the host's name servers: %w", err)
	}
	defer f.Close()
	config, err := dns.ClientConfigFromReader(f)
	if err != nil {
		return nil, fmt.Errorf("cannot read the host's name servers: %w", err)
	}
	u.servers = nil
	for _, s := range config.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			u.servers = append(u.servers, a)
		}
	}
	u.read = now
	if len(u.servers) == 0 {
		return nil, fmt.Errorf("%s names no name server", u.path)
	}
	return u.servers, nil
}
