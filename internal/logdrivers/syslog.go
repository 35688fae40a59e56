package logdrivers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lrd/internal/logopts"
	"lrd/internal/output"
)

const (
	// syslogDial and syslogWait bound a connection's making and how long the other side may take for a batch.
	syslogDial = 10 * time.Second
	syslogWait = 30 * time.Second
)

// localSyslog is where this machine's syslog listens.
var localSyslog = []string{"/dev/log", "/var/run/syslog", "/var/run/log"}

// syslog is the target of the driver syslog.
type syslog struct {
	network, address string
	tls              *tls.Config // for tcp+tls
	format           syslogFormat
	facility         int

	conn   net.Conn
	stream bool // conn is one: what is sent is confirmed by the other side
	buf    []byte
	ends   []int // where messages end in buf
	sent   int   // how many of them were sent, of datagrams
}

func newSyslog(o Options) (*syslog, error) {
	cfg := o.Info.Config
	s := &syslog{}
	var err error
	if s.network, s.address, err = logopts.ParseSyslogAddress(cfg["syslog-address"]); err != nil {
		return nil, err
	}
	if s.facility, err = logopts.ParseSyslogFacility(cfg["syslog-facility"]); err != nil {
		return nil, err
	}
	tag, err := o.Info.Tag(logopts.DefaultTag)
	if err != nil {
		return nil, err
	}
	if s.network == "tcp+tls" {
		if s.tls, err = syslogTLS(cfg); err != nil {
			return nil, err
		}
	}
	s.format = newSyslogFormat(cfg["syslog-format"], tag, s.tls != nil)
	return s, nil
}

// syslogTLS reads the options of TLS.
func syslogTLS(cfg map[string]string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	// As with Docker, the option's presence counts.
	_, c.InsecureSkipVerify = cfg["syslog-tls-skip-verify"]
	if path := cfg["syslog-tls-ca-cert"]; path != "" {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read syslog-tls-ca-cert: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("cannot read syslog-tls-ca-cert: there is no certificate in %s", path)
		}
	}
	if cfg["syslog-tls-cert"] != "" || cfg["syslog-tls-key"] != "" {
		cert, err := tls.LoadX509KeyPair(cfg["syslog-tls-cert"], cfg["syslog-tls-key"])
		if err != nil {
			return nil, fmt.Errorf("cannot read syslog-tls-cert and syslog-tls-key: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// open has nothing to get ready: the server is reached when there is something to send.
func (s *syslog) open() error { return nil }

// resume has nothing to ask: a syslog server does not tell what it has.
func (s *syslog) resume(context.Context, int64, json.RawMessage, bool) error { return nil }

func (s *syslog) size() int { return len(s.buf) }
func (s *syslog) due() bool { return false }

func (s *syslog) add(_ context.Context, e *entry) error {
	severity := priorityInfo
	if e.stream == output.Stderr {
		severity = priorityErr
	}
	s.buf = s.format.append(s.buf, s.facility<<3|severity, e.time, e.line)
	s.ends = append(s.ends, len(s.buf))
	return nil
}

func (s *syslog) flush(ctx context.Context) error {
	if len(s.ends) == 0 {
		return nil
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })()
	err := s.conn.SetDeadline(time.Now().Add(syslogWait))
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	open := true
	switch {
	case err != nil:
	case s.stream:
		if _, err = s.conn.Write(s.buf); err == nil {
			open, err = confirmed(ctx, s.conn)
		}
	default:
		err = s.sendDatagrams()
	}
	if err != nil || !open {
		_ = s.conn.Close() // another try, another connection, and of a stream all of the batch
		s.conn = nil
	}
	if err != nil {
		return fmt.Errorf("cannot write to the syslog server: %w", err)
	}
	s.buf, s.ends, s.sent = s.buf[:0], s.ends[:0], 0
	return nil
}

func (s *syslog) sendDatagrams() error {
	for ; s.sent < len(s.ends); s.sent++ {
		begin := 0
		if s.sent > 0 {
			begin = s.ends[s.sent-1]
		}
		if _, err := s.conn.Write(s.buf[begin:s.ends[s.sent]]); err != nil {
			return err
		}
	}
	return nil
}

func (s *syslog) connect(ctx context.Context) (err error) {
	if s.conn != nil {
		return nil
	}
	dialer := net.Dialer{Timeout: syslogDial}
	switch s.network {
	case "":
		for _, path := range localSyslog {
			if s.conn, err = dialer.DialContext(ctx, "unixgram", path); err == nil {
				break
			}
		}
	case "tcp+tls":
		s.conn, err = (&tls.Dialer{NetDialer: &dialer, Config: s.tls}).DialContext(ctx, "tcp", s.address)
	default:
		s.conn, err = dialer.DialContext(ctx, s.network, s.address)
		if errors.Is(err, syscall.EPROTOTYPE) { // unix:///dev/log, which takes datagrams
			s.conn, err = dialer.DialContext(ctx, "unixgram", s.address)
		}
	}
	if err != nil {
		s.conn = nil
		return fmt.Errorf("cannot reach the syslog server: %w", err)
	}
	n := s.conn.RemoteAddr().Network()
	s.stream = n == "tcp" || n == "unix"
	return nil
}

// confirmed returns when the other side's kernel has all that was written to
// conn; for a Unix socket, when the other side has read it. Without that, what was written into
// a connection that breaks would be taken for delivered. A server that has closed its side after all had come is
// fine, and open is false then.
func confirmed(ctx context.Context, conn net.Conn) (open bool, err error) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false, fmt.Errorf("cannot ask a %T what has arrived", conn)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false, err
	}
	deadline := time.Now().Add(syslogWait)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		var left int
		var failed error
		err := raw.Control(func(fd uintptr) {
			left, open, failed = queued(int(fd))
		})
		switch {
		case err != nil || failed != nil:
			return false, errors.Join(err, failed)
		case left == 0:
			return open, nil
		case time.Now().After(deadline):
			return false, fmt.Errorf("the server has not taken %d bytes in %s", left, syslogWait)
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// queued tells how much of what was written the other side does not have, and whether its side is open. A peer that went
// without having read everything leaves an error, which is looked for after the queue: it may have emptied that.
func queued(fd int) (left int, open bool, err error) {
	if left, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ); err != nil {
		return 0, false, os.NewSyscallError("ioctl", err)
	}
	switch code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); {
	case err != nil:
		return 0, false, os.NewSyscallError("getsockopt", err)
	case code != 0:
		return 0, false, unix.Errno(code)
	}
	n, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	switch err { // an errno
	case nil:
		return left, n > 0, nil
	case unix.EAGAIN, unix.EINTR:
		return left, true, nil
	}
	return 0, false, os.NewSyscallError("recv", err)
}

func (s *syslog) save() any { return nil }

func (s *syslog) rest() { s.buf, s.ends = nil, nil }

func (s *syslog) close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}
