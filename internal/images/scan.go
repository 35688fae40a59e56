package images

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"go.podman.io/image/v5/pkg/compression"
)

// badArchive makes a refusal: what is wrong with what the client has sent.
func badArchive(format string, args ...any) error {
	return newError(errdefs.ErrInvalidArgument, format, args...)
}

// layerScan looks through one layer. It refuses entries that would end up
// outside of the root filesystem, which the storage would clamp to it in
// silence, and spends from the budget what the files will take.
//
// An entry may leave the root by its own name ("../x"), as a hard link to a
// name that does, or by way of a symbolic link of the same layer whose target
// is absolute or climbs too high ("a -> /etc", then "a/passwd"). Such links as
// such are ordinary, and so are names that begin with a slash: they are meant
// from the root.
type layerScan struct {
	budget *budget
	// outward are the symbolic links of this layer that point to an
	// absolute path or out of the root.
	outward map[string]string
	held    names // in outward
}

// maxPath is PATH_MAX: the kernel makes no file of a longer name, and no symbolic link to one.
const maxPath = 4096

// maxNames bounds the names that a scan remembers, in bytes: those of some hundreds of thousands of files.
const maxNames = 64 << 20

// names counts what names take in memory.
type names int

// hold counts names more; false if they are too many. 100 is about what a map takes besides.
func (n *names) hold(more ...string) bool {
	for _, m := range more {
		*n += names(len(m)) + 100
	}
	return *n <= maxNames
}

// errNotTar says that a stream does not even begin like a tar archive.
var errNotTar = errors.New("not a tar archive")

// scanLayer reads an uncompressed layer from r to its end. Where r can seek, the
// files' contents are passed over. The error is [errNotTar] if r does not begin
// like a tar archive.
func scanLayer(ctx context.Context, r io.Reader, b *budget) error {
	scan := &layerScan{budget: b, outward: map[string]string{}}
	tr := tar.NewReader(r)
	for first := true; ; first = false {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if first && !isRefusal(err) {
				return errNotTar
			}
			return tarError(err)
		}
		if err := scan.entry(h); err != nil {
			return err
		}
	}
}

// entry checks one entry. The size is the one that the file will have: a sparse
// file's is larger than its part of the archive.
func (s *layerScan) entry(h *tar.Header) error {
	if len(h.Name) > maxPath || len(h.Linkname) > maxPath {
		return badArchive("entry %.40q… of a layer has a name or a target of more than %d bytes", h.Name, maxPath)
	}
	name, ok := insideRoot(h.Name)
	if !ok {
		return badArchive("entry %q of a layer leaves the root filesystem", h.Name)
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if target, ok := s.outward[dir]; ok {
			return badArchive("entry %q of a layer leaves the root filesystem through the symbolic link %q to %q", h.Name, dir, target)
		}
	}
	delete(s.outward, name) // replaced
	switch h.Typeflag {
	case tar.TypeSymlink:
		if path.IsAbs(h.Linkname) || climbsOut(path.Dir(name), h.Linkname) {
			s.outward[name] = h.Linkname
			if !s.held.hold(name, h.Linkname) {
				return badArchive("a layer has too many symbolic links that lead out of it: more than %d bytes of names", maxNames)
			}
		}
	case tar.TypeLink:
		target, ok := insideRoot(h.Linkname)
		if !ok {
			return badArchive("hard link %q of a layer leaves the root filesystem, to %q", h.Name, h.Linkname)
		}
		for dir := path.Dir(target); dir != "."; dir = path.Dir(dir) {
			if to, ok := s.outward[dir]; ok {
				return badArchive("hard link %q of a layer leaves the root filesystem through the symbolic link %q to %q", h.Name, dir, to)
			}
		}
	default:
		return s.budget.spend(h.Size)
	}
	return nil
}

// insideRoot cleans a name within a layer: relative to the root, without "..".
// A leading slash means the root. It reports false when the name climbs out.
func insideRoot(name string) (string, bool) {
	rel := strings.TrimLeft(name, "/")
	if strings.ContainsRune(rel, 0) || climbsOut(".", rel) {
		return "", false
	}
	return path.Clean(rel), true
}

// climbsOut tells whether target, seen from dir, has more ".." than there are
// directories, at any point of the way.
func climbsOut(dir, target string) bool {
	depth := 0
	if dir != "." {
		depth = strings.Count(dir, "/") + 1
	}
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return true
			}
		default:
			depth++
		}
	}
	return false
}

// isRefusal tells whether an error that comes out of a reader has been made up
// here: a limit that was passed, or a context that has ended.
func isRefusal(err error) bool {
	return errors.Is(err, errdefs.ErrInvalidArgument) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// tarError says what is wrong with a tar stream.
func tarError(err error) error {
	switch {
	case isRefusal(err):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return badArchive("archive is truncated")
	case errors.Is(err, tar.ErrHeader):
		return badArchive("archive is damaged: no tar header where one should be")
	}
	return badArchive("cannot read tar archive: %v", err)
}

// unpackError says what is wrong with a compressed stream.
func unpackError(err error) error {
	switch {
	case isRefusal(err):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return badArchive("archive is truncated")
	}
	return badArchive("cannot uncompress: %v", err)
}

// scanBlob looks through a member of an archive that may be a layer, compressed
// or not. What is no tar archive passes: a configuration, or something that the
// storage will refuse if an image calls it a layer. All that a compressed blob
// unpacks to is counted, tar or not.
func scanBlob(ctx context.Context, r io.ReadSeeker, b *budget) error {
	decompress, _, err := compression.DetectCompression(r)
	if err != nil {
		return unpackError(err)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("cannot read archive again: %w", err)
	}
	if decompress == nil {
		if err := scanLayer(ctx, r, b); !errors.Is(err, errNotTar) {
			return err
		}
		return nil
	}
	unpacked, err := decompress(r)
	if err != nil {
		return unpackError(err)
	}
	defer unpacked.Close() // it is only read
	metered := bufio.NewReaderSize(&meteredReader{ctx: ctx, r: unpacked, budget: b}, 1<<20)
	if err := scanLayer(ctx, metered, b); err != nil && !errors.Is(err, errNotTar) {
		return err
	}
	if _, err := io.Copy(io.Discard, metered); err != nil {
		return unpackError(err)
	}
	return nil
}
