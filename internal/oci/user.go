package oci

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/cyphar/filepath-securejoin/pathrs-lite"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// maxUserFile bounds what is read of a container's /etc/passwd and /etc/group,
// in bytes: the image decides their content, not their cost. The largest
// directories of users run to a few MB.
const maxUserFile = 16 << 20

// ResolveUser turns "user", "user:group" (names or numbers, "" is root) and
// further groups into numbers, by the /etc/passwd and /etc/group of a root
// filesystem. The files are opened as the container itself would see them:
// symbolic links, absolute ones too, stay inside rootfs. Missing files are
// empty ones, so that numbers work in an image that has none.
func ResolveUser(rootfs, spec string, groupAdd []string) (User, error) {
	passwd, err := readInRoot(rootfs, "/etc/passwd")
	if err != nil {
		return User{}, err
	}
	group, err := readInRoot(rootfs, "/etc/group")
	if err != nil {
		return User{}, err
	}
	found, err := user.GetExecUser(spec, nil, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return User{}, invalid("%v", err)
	}
	more, err := user.GetAdditionalGroups(groupAdd, bytes.NewReader(group))
	if err != nil {
		return User{}, invalid("%v", err)
	}
	u := User{UID: uint32(found.Uid), GID: uint32(found.Gid), Home: cmp.Or(found.Home, "/")}
	seen := map[uint32]bool{}
	add := func(gid int) {
		if !seen[uint32(gid)] {
			seen[uint32(gid)] = true
			u.AdditionalGIDs = append(u.AdditionalGIDs, uint32(gid))
		}
	}
	add(found.Gid)
	for _, gid := range found.Sgids {
		add(gid)
	}
	for _, gid := range more {
		add(gid)
	}
	return u, nil
}

// readInRoot reads a regular file of a root filesystem that somebody else
// filled; a missing one is empty.
func readInRoot(rootfs, name string) ([]byte, error) {
	handle, err := pathrs.OpenInRoot(rootfs, name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("cannot open the container's %s: %w", name, err)
	}
	defer handle.Close()
	// The handle is O_PATH: what it is can be told before opening it, which
	// for a FIFO would block and for a device could do anything.
	info, err := handle.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot examine the container's %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, invalid("the container's %s is not a regular file", name)
	}
	f, err := pathrs.Reopen(handle, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("cannot open the container's %s: %w", name, err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxUserFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the container's %s: %w", name, err)
	}
	if len(content) > maxUserFile {
		return nil, invalid("the container's %s is larger than %d bytes", name, maxUserFile)
	}
	return content, nil
}
