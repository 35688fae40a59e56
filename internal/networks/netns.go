package networks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"lrd/internal/thread"
)

const (
	errNotAvailable = unix.EADDRNOTAVAIL
	errNoDevice     = unix.ENODEV
)

// makeNetNS makes a network namespace with a loopback interface and binds it to
// a path, so that it lives on without a process.
func makeNetNS(path string) error {
	// The paths are no secret, but there is no reason to list them.
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return fmt.Errorf("cannot make the directory of network namespaces: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return fmt.Errorf("cannot make the file of a network namespace: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("cannot make the file of a network namespace: %w", err)
	}
	if err := thread.Alone(func() error { return unshareTo(path) }); err != nil {
		_ = os.Remove(path)
		return err
	}
	return nil
}

// unshareTo puts the thread into a new network namespace and binds that to a
// path.
func unshareTo(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot make a network namespace: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("cannot speak to the new network namespace: %w", err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("cannot find the loopback interface: %w", err)
	}
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("cannot bring the loopback interface up: %w", err)
	}
	// Most bridges have no IPv6: without this, interfaces that come later would
	// get a link-local address that leads nowhere. Those of networks with IPv6 get it
	// back, see enableIPv6. /proc/sys/net is the thread's. Kernels without IPv6 have no such file.
	err = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot switch IPv6 off in the new network namespace: %w", err)
	}
	self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	if err := unix.Mount(self, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot bind the network namespace to %s: %w", path, err)
	}
	return nil
}

// inNetNS runs f on a thread that is in a network namespace. What f starts is in there too.
func inNetNS(path string, f func() error) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("cannot open the network namespace %s: %w", path, err)
	}
	defer ns.Close()
	return thread.Alone(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("cannot enter the network namespace %s: %w", path, err)
		}
		return f()
	})
}

// enableIPv6 switches IPv6 on for an interface in a namespace: with addresses that it is given, and none that it makes up
// from what it hears.
func enableIPv6(netNS, link string) error {
	return inNetNS(netNS, func() error {
		for _, s := range []struct{ name, value string }{{"accept_ra", "0"}, {"disable_ipv6", "0"}} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/"+s.name, []byte(s.value), 0); err != nil {
				return fmt.Errorf("cannot switch IPv6 on for %s: %w", link, err)
			}
		}
		return nil
	})
}

// isNetNS says whether a namespace is bound to a path.
func isNetNS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// removeNetNS removes a namespace's path, and with it the namespace once no
// process is in it.
func removeNetNS(path string) error {
	for isNetNS(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("cannot unbind the network namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the network namespace: %w", err)
	}
	return nil
}
