package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"

	"lrd/internal/config"
)

// listen is the API's sockets: those of lrd.socket, or, when lrd is started without it, one of its own.
func (d *daemon) listen(cfg *config.Config) ([]net.Listener, error) {
	d.extra = map[string][]net.Listener{}
	for _, name := range []string{metricsSocket, debugSocket} {
		var err error
		if d.extra[name], err = d.takeListeners(name); err != nil {
			return nil, err
		}
	}
	listeners, err := d.takeListeners(apiSocket)
	if err != nil || len(listeners) > 0 {
		return listeners, err
	}
	d.log.Warn("Started without lrd.socket: clients that connect during a restart will be refused", "socket", config.DefaultSocket)
	gid, err := groupID(cfg.Group)
	if err != nil {
		err = fmt.Errorf("cannot protect %s: %w", config.DefaultSocket, err)
		if !cfg.Origin("group").IsDefault() {
			return nil, err
		}
		d.log.Warn("Nobody but root can use the API", "error", err)
	}
	l, err := listenOwn(config.DefaultSocket, gid)
	if err != nil {
		return nil, err
	}
	return []net.Listener{l}, nil
}

// takeListeners takes the sockets of a name that systemd has passed.
func (d *daemon) takeListeners(name string) ([]net.Listener, error) {
	var listeners []net.Listener
	for _, f := range d.set.TakeAll(name) {
		l, err := net.FileListener(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot listen on the socket %s of systemd: %w", name, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// listenOwn makes the API's socket where lrd.socket would have made it: for root and one group, nobody else. A socket
// that somebody listens on is left alone: systemd's lrd.socket, of which this process was not told, or another daemon.
func listenOwn(path string, gid int) (net.Listener, error) {
	if c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"}); err == nil {
		return nil, errors.Join(fmt.Errorf("cannot listen on %s: somebody does already (systemctl status lrd.socket): start lrd with systemctl start lrd, or stop that one", path), c.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chown(path, 0, gid), os.Chmod(path, 0o660)); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot protect %s: %w", path, err), l.Close())
	}
	return l, nil
}

// groupID is the number of a group, which may be named by it.
func groupID(group string) (int, error) {
	if gid, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q (the key group): make it with groupadd --system %[1]s, or name another one", group)
	}
	return strconv.Atoi(g.Gid)
}
