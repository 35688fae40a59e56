package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// watcher tells that something in a directory has changed (inotify(7)); what it was is found by reading the directory.
type watcher struct {
	file *os.File
	buf  []byte
}

// watch begins to watch a directory, making it if it does not exist.
func watch(dir string) (*watcher, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("cannot make the directory of names: %w", err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("cannot watch the directory of names: %w", err)
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "inotify"), buf: make([]byte, 64<<10)}
	// A file is renamed into its place, a mark is created.
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_CREATE|unix.IN_DELETE|unix.IN_CLOSE_WRITE|unix.IN_ONLYDIR); err != nil {
		_ = w.file.Close()
		return nil, fmt.Errorf("cannot watch the directory of names: %w", err)
	}
	return w, nil
}

// next waits for changes, any number of them at a time; false says that the watch was closed.
func (w *watcher) next() bool {
	_, err := w.file.Read(w.buf)
	return err == nil
}

// Close ends the watch and whoever waits in next.
func (w *watcher) Close() error { return w.file.Close() }
