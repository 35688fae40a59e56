package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/pkg/compression"
)

// archive is an archive on its way in: uncompressed, in a directory of its own
// below the store's, looked through from end to end.
//
//	TempDir/images/incoming-<random>/
//	  archive.tar       what came in, uncompressed
//	  layout/           an OCI archive's members (extract)
type archive struct {
	dir     string
	file    *os.File
	members map[string]member // by cleaned name; the first of a name counts
	links   map[string]bool   // cleaned names of symbolic links
	held    names             // in members and links
}

// member is a regular file of an archive.
type member struct{ offset, size int64 }

// maxJSON bounds the members that are read into memory: manifest, index,
// configuration. The image library has the same bound for its own.
const maxJSON = 4 << 20

// spool writes what comes from r to disk, uncompressed, as far as the budget
// allows. Gzip, zstd, xz and bzip2 are recognised by their first bytes. The
// caller closes the archive.
func (s *Store) spool(ctx context.Context, r io.Reader, b *budget) (_ *archive, err error) {
	dir, err := os.MkdirTemp(s.tempDir, "incoming-")
	if err != nil {
		return nil, fmt.Errorf("cannot make room for the archive: %w", err)
	}
	a := &archive{dir: dir, members: map[string]member{}, links: map[string]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if a.file, err = os.Create(a.path()); err != nil {
		return nil, fmt.Errorf("cannot make room for the archive: %w", err)
	}
	unpacked, _, err := compression.AutoDecompress(&contextReader{ctx: ctx, r: r})
	if err != nil {
		return nil, sourceError(ctx, err)
	}
	defer unpacked.Close() // it is only read
	n, err := io.Copy(&storageWriter{a.file}, &meteredReader{ctx: ctx, r: unpacked, budget: b})
	if err != nil {
		return nil, sourceError(ctx, err)
	}
	if n == 0 {
		return nil, badArchive("archive is empty")
	}
	return a, nil
}

// Uncompressed reads an archive that may be compressed with gzip, zstd, xz or bzip2. Its owner closes it.
func Uncompressed(r io.Reader) (io.ReadCloser, error) {
	plain, _, err := compression.AutoDecompress(r)
	if err != nil {
		return nil, unpackError(err)
	}
	return plain, nil
}

// path is where the uncompressed archive is.
func (a *archive) path() string { return filepath.Join(a.dir, "archive.tar") }

// Close deletes the archive.
func (a *archive) Close() error {
	var err error
	if a.file != nil {
		err = a.file.Close()
	}
	if err := errors.Join(err, os.RemoveAll(a.dir)); err != nil {
		return fmt.Errorf("cannot delete an archive: %w", err)
	}
	return nil
}

// contextReader ends when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// storageError is a fault of ours (a full disk), not of what was sent.
type storageError struct{ error }

func (e storageError) Unwrap() error { return e.error }

// storageWriter marks what goes wrong with writing, so that it can be told from
// what goes wrong with reading in the same copy.
type storageWriter struct{ w io.Writer }

func (w *storageWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	if err != nil {
		err = storageError{err}
	}
	return n, err
}

// sourceError says what went wrong with reading a compressed stream and
// writing it down.
func sourceError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if ours, ok := errors.AsType[storageError](err); ok {
		return fmt.Errorf("cannot store the archive: %w", ours.error)
	}
	return unpackError(err)
}

// scanImages looks through an archive of images: names and types of its
// members, and every layer among them.
func (a *archive) scanImages(ctx context.Context, b *budget) error {
	if _, err := a.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("cannot read the archive again: %w", err)
	}
	tr := tar.NewReader(a.file)
	for first := true; ; first = false {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if first && (errors.Is(err, tar.ErrHeader) || a.tiny()) {
				return badArchive("not an image archive: not a tar archive")
			}
			return tarError(err)
		}
		if err := a.scanMember(ctx, h, b); err != nil {
			return err
		}
	}
}

// scanMember checks one member of an archive of images. The file's position is
// that of the member's content, and is so afterwards.
func (a *archive) scanMember(ctx context.Context, h *tar.Header, b *budget) error {
	if path.IsAbs(h.Name) || climbsOut(".", h.Name) {
		return badArchive("member %q leaves the archive", h.Name)
	}
	name := path.Clean(h.Name)
	if len(name) > maxPath || !a.held.hold(name) {
		return badArchive("archive has too many members, or one with too long a name: %.40q", h.Name)
	}
	switch h.Typeflag {
	case tar.TypeReg:
	case tar.TypeDir, tar.TypeXGlobalHeader:
		return nil
	case tar.TypeSymlink: // docker save has written a layer's second name so
		if path.IsAbs(h.Linkname) || climbsOut(path.Dir(name), h.Linkname) {
			return badArchive("symbolic link %q leaves the archive, to %q", h.Name, h.Linkname)
		}
		a.links[name] = true
		return nil
	default:
		return badArchive("member %q is neither file nor directory nor symbolic link (type %q)", h.Name, h.Typeflag)
	}
	offset, err := a.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("cannot read the archive: %w", err)
	}
	info, err := a.file.Stat()
	if err != nil {
		return fmt.Errorf("cannot read the archive: %w", err)
	}
	if h.Size > info.Size()-offset {
		return badArchive("archive is truncated in member %q", h.Name)
	}
	if _, seen := a.members[name]; !seen {
		a.members[name] = member{offset: offset, size: h.Size}
	}
	if err := scanBlob(ctx, io.NewSectionReader(a.file, offset, h.Size), b); err != nil {
		return fmt.Errorf("member %q: %w", h.Name, err)
	}
	return nil
}

// open reads a member, if there is one of that name.
func (a *archive) open(name string) (*io.SectionReader, bool) {
	m, ok := a.members[path.Clean(name)]
	if !ok {
		return nil, false
	}
	return io.NewSectionReader(a.file, m.offset, m.size), true
}

// has tells whether there is a file, or a link to one, of that name.
func (a *archive) has(name string) bool {
	name = path.Clean(name)
	_, ok := a.members[name]
	return ok || a.links[name]
}

// tiny tells whether the archive is smaller than one tar header.
func (a *archive) tiny() bool {
	info, err := a.file.Stat()
	return err == nil && info.Size() < 512
}

// read is a member's content, which must be of a size for memory.
func (a *archive) read(name string) ([]byte, error) {
	r, ok := a.open(name)
	if !ok {
		return nil, badArchive("archive has no member %q", name)
	}
	if r.Size() > maxJSON {
		return nil, badArchive("member %q has %d bytes, more than any configuration", name, r.Size())
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("cannot read the archive: %w", err)
	}
	return data, nil
}

// readJSON parses a member.
func (a *archive) readJSON(name string, into any) error {
	data, err := a.read(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return badArchive("cannot parse member %q: %v", name, err)
	}
	return nil
}

// extract writes an OCI archive's index and blobs below dir/layout. Only
// regular files are written, each under a name that the scan has let through,
// by way of an os.Root that the names cannot leave either.
func (a *archive) extract(ctx context.Context) (string, error) {
	dir := a.layout()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("cannot unpack the archive: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("cannot unpack the archive: %w", err)
	}
	defer root.Close() // files are closed one by one
	for name, m := range a.members {
		if name != ocispec.ImageLayoutFile && name != ocispec.ImageIndexFile && !strings.HasPrefix(name, ocispec.ImageBlobsDir+"/") {
			continue
		}
		content := &contextReader{ctx: ctx, r: io.NewSectionReader(a.file, m.offset, m.size)}
		err := writeMember(root, name, content)
		if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTDIR) {
			return "", badArchive("member %q is file and directory at once", name)
		}
		if err != nil {
			return "", fmt.Errorf("cannot unpack member %q: %w", name, err)
		}
	}
	return dir, nil
}

// writeMember makes one file below root.
func writeMember(root *os.Root, name string, r io.Reader) (err error) {
	if err := root.MkdirAll(path.Dir(name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, r)
	return err
}
