package output

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pipeMaxSize is the kernel's ceiling for F_SETPIPE_SZ without CAP_SYS_RESOURCE
// (proc_sys_fs(5)).
const pipeMaxSize = "/proc/sys/fs/pipe-max-size"

// DefaultPipeSize returns the largest pipe, in bytes, that the kernel gives
// without special privilege: /proc/sys/fs/pipe-max-size, 1 MiB unless changed.
func DefaultPipeSize() int {
	b, err := os.ReadFile(pipeMaxSize)
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n > 0 {
			return n
		}
	}
	return 1 << 20
}

// SetPipeSize makes the pipe f hold n bytes and returns how many it holds now:
// the kernel rounds up to a power of two pages. What it does not grant (the
// ceiling, or a user's total in pipe-user-pages-soft) is halved until it does.
// An error means that the size is what it was; the size is returned with it.
func SetPipeSize(f *os.File, n int) (int, error) {
	if n <= 0 {
		return 0, fmt.Errorf("cannot set pipe size: %d bytes is not a size", n)
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("cannot set pipe size: %w", err)
	}
	var size int
	var failed error
	err = conn.Control(func(fd uintptr) { size, failed = setPipeSize(fd, n) })
	if err = errors.Join(err, failed); err != nil {
		return size, fmt.Errorf("cannot set pipe size to %d bytes: %w", n, err)
	}
	return size, nil
}

func setPipeSize(fd uintptr, n int) (int, error) {
	now, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	if n > 1<<31-1 {
		n = 1<<31 - 1 // the argument is an unsigned int, and above this EINVAL
	}
	for {
		got, err := unix.FcntlInt(fd, unix.F_SETPIPE_SZ, n)
		switch {
		case err == nil:
			return got, nil
		case errors.Is(err, unix.EPERM) && n/2 >= now:
			if top := DefaultPipeSize(); n > top && top >= now {
				n = top
			} else {
				n /= 2
			}
		case errors.Is(err, unix.EPERM):
			return now, nil // nothing above what it has is granted
		default:
			return now, os.NewSyscallError("fcntl", err)
		}
	}
}

// pipeSize is how many bytes a pipe holds.
func pipeSize(conn controller) (size int, err error) {
	var failed error
	if err := conn.Control(func(fd uintptr) { size, failed = unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0) }); err != nil {
		return 0, err
	}
	return size, os.NewSyscallError("fcntl", failed)
}
