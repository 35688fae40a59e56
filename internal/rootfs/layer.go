package rootfs

import (
	"archive/tar"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Layer says how the upper directory of an overlay becomes a layer.
type Layer struct {
	// Lower are the directories below it: a directory that hides what they have needs to say so in the layer, and one that is new does not.
	Lower []string
	// Stubs are files, by their absolute paths, that the runtime has made to mount something on. They are left out as long as they are empty.
	Stubs []string
}

// How a layer says what is gone: a file whose name begins so, or one of this name in a directory that hides all that
// the layers below have in it (OCI image specification, "Whiteouts").
const (
	whiteout       = ".wh."
	opaqueWhiteout = ".wh..wh..opq"
)

// layerEntry writes what means something else in an overlay than in a layer; done says that there is no more to it.
func (a *archiver) layerEntry(f *os.File, st unix.Stat_t, name string) (done bool, err error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			return true, a.mark(path.Join(path.Dir(name), whiteout+path.Base(name)))
		}
	case unix.S_IFREG:
		if st.Size == 0 && slices.Contains(a.layer.Stubs, "/"+name) {
			return true, nil
		}
	}
	if typ := st.Mode & unix.S_IFMT; typ != unix.S_IFREG && typ != unix.S_IFDIR {
		return false, nil
	}
	for _, attr := range []string{"trusted.overlay.redirect", "trusted.overlay.metacopy"} {
		there, err := hasXattr(f, attr)
		if err != nil {
			return false, err
		}
		if there {
			return false, newError(errdefs.ErrFailedPrecondition,
				"cannot make a layer of %s: the kernel has noted there that it was moved (%s); turn the overlay module's redirect_dir and metacopy off", name, attr)
		}
	}
	return false, nil
}

// opaque says in the layer that a directory hides what was below it.
func (a *archiver) opaque(f *os.File, name string) error {
	value, err := getXattr(f, "trusted.overlay.opaque")
	if err != nil || value != "y" {
		return err
	}
	for _, lower := range a.layer.Lower {
		// A link on the way only costs a mark that changes nothing.
		if info, err := os.Lstat(filepath.Join(lower, name)); err == nil && info.IsDir() {
			return a.mark(path.Join(name, opaqueWhiteout))
		}
	}
	return nil
}

// mark writes an empty file.
func (a *archiver) mark(name string) error {
	return a.tw.WriteHeader(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, Mode: 0o600})
}

func hasXattr(f *os.File, name string) (bool, error) {
	n, err := unix.Getxattr(link(f), name, nil)
	if err == unix.ENODATA || err == unix.ENOTSUP {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "getxattr " + name, Path: f.Name(), Err: err}
	}
	return n >= 0, nil
}
