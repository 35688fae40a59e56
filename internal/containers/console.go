package containers

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// listenConsole makes the socket to which the runtime sends the console's
// master. Its listening end is kept in systemd's store: a container that systemd
// restarts while the daemon is away leaves its console in the socket's queue.
//
// It is made by way of its directory's descriptor, as a socket's path is at most
// 107 bytes long (unix(7)), and exec-root may be anywhere.
func listenConsole(path string) (*os.File, error) {
	dir, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	return l.File()
}
