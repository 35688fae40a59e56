package images

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/ulikunitz/xz"
	"go.podman.io/storage"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// discard is for what is logged after a test has ended.
var discard = slog.New(slog.DiscardHandler)

// openStore opens a store in a fresh directory. It needs root: the storage
// unpacks a layer in a chroot and gives files to their owners. change may be
// nil.
func openStore(t *testing.T, change func(*Options)) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: unpacking a layer needs root (chroot, chown)")
	}
	return openStoreIn(t, t.TempDir(), change)
}

// openStoreIn opens a store below dir. vfs works on any file system.
func openStoreIn(t *testing.T, dir string, change func(*Options)) *Store {
	t.Helper()
	o := Options{
		GraphRoot: filepath.Join(dir, "graph"),
		RunRoot:   filepath.Join(dir, "run"),
		TempDir:   filepath.Join(dir, "tmp"),
		Driver:    "vfs",
		Log:       slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&o)
	}
	s, err := Open(t.Context(), o)
	assert.NilError(t, err)
	t.Cleanup(func() {
		_ = s.Close()
		unmountHome(dir)
		libraryLog.Store(discard) // t.Output ends with the test
	})
	return s
}

// unmountHome undoes the mount of overlay's directory on itself, which outlives a process.
func unmountHome(dir string) {
	_ = unix.Unmount(filepath.Join(dir, "graph", "overlay"), unix.MNT_DETACH) // with vfs there is none
}

// file is an entry of a test archive.
type file struct {
	name string
	body string
	link string // symbolic link to
	hard string // hard link to
	typ  byte
}

// tarball makes a tar archive.
func tarball(t testing.TB, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(f.body)), ModTime: time.Unix(1700000000, 0)}
		switch {
		case f.link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.link, 0
		case f.hard != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, f.hard, 0
		case f.typ != 0:
			h.Typeflag, h.Size = f.typ, 0
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		assert.NilError(t, tw.WriteHeader(h))
		_, err := tw.Write([]byte(f.body))
		assert.NilError(t, err)
	}
	assert.NilError(t, tw.Close())
	return buf.Bytes()
}

// testImage is an image to be put into an archive.
type testImage struct {
	tags   []string
	layers [][]byte // uncompressed
	config dockerspec.DockerOCIImageConfig
	// diffIDs replaces what the layers have, to tell a lie.
	diffIDs []digest.Digest
}

// simpleImage is an image of one layer with one file of the given content.
func simpleImage(t testing.TB, content string, tags ...string) testImage {
	return testImage{tags: tags, layers: [][]byte{tarball(t, file{name: "etc/"}, file{name: "etc/content", body: content})}}
}

// configJSON is the image's configuration.
func (i testImage) configJSON(t testing.TB) []byte {
	t.Helper()
	created := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	img := dockerspec.DockerOCIImage{Config: i.config}
	img.Created = &created
	img.Author = "nobody"
	img.Architecture, img.OS = "amd64", "linux"
	img.RootFS.Type = "layers"
	for n, l := range i.layers {
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromBytes(l))
		img.History = append(img.History, ocispec.History{Created: &created, CreatedBy: "layer " + string(rune('0'+n))})
	}
	img.History = append(img.History, ocispec.History{Created: &created, CreatedBy: "CMD", EmptyLayer: true})
	if i.diffIDs != nil {
		img.RootFS.DiffIDs = i.diffIDs
	}
	raw, err := json.Marshal(img)
	assert.NilError(t, err)
	return raw
}

// id is the ID that the image will have.
func (i testImage) id(t testing.TB) digest.Digest { return digest.FromBytes(i.configJSON(t)) }

// dockerArchive puts images into an archive as `docker save` does. extra are
// more members.
func dockerArchive(t testing.TB, images []testImage, extra ...file) []byte {
	t.Helper()
	type item struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var items []item
	var files []file
	seen := map[string]bool{}
	add := func(name string, body []byte) {
		if !seen[name] {
			seen[name] = true
			files = append(files, file{name: name, body: string(body)})
		}
	}
	for _, img := range images {
		conf := img.configJSON(t)
		it := item{Config: digest.FromBytes(conf).Encoded() + ".json", RepoTags: img.tags}
		add(it.Config, conf)
		for _, l := range img.layers {
			name := digest.FromBytes(l).Encoded() + "/layer.tar"
			add(name, l)
			it.Layers = append(it.Layers, name)
		}
		items = append(items, it)
	}
	raw, err := json.Marshal(items)
	assert.NilError(t, err)
	files = append(files, file{name: "manifest.json", body: string(raw)})
	return tarball(t, append(files, extra...)...)
}

// ociArchive puts images into an OCI archive, layers compressed with gzip.
func ociArchive(t testing.TB, images []testImage, extra ...file) []byte {
	t.Helper()
	files := []file{{name: "oci-layout", body: `{"imageLayoutVersion":"1.0.0"}`}}
	blob := func(mediaType string, data []byte) ocispec.Descriptor {
		d := digest.FromBytes(data)
		files = append(files, file{name: "blobs/sha256/" + d.Encoded(), body: string(data)})
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for _, img := range images {
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: blob(ocispec.MediaTypeImageConfig, img.configJSON(t))}
		m.SchemaVersion = 2
		for _, l := range img.layers {
			m.Layers = append(m.Layers, blob(ocispec.MediaTypeImageLayerGzip, gzipped(t, l)))
		}
		raw, err := json.Marshal(m)
		assert.NilError(t, err)
		desc := blob(ocispec.MediaTypeImageManifest, raw)
		if len(img.tags) > 0 {
			desc.Annotations = map[string]string{"io.containerd.image.name": img.tags[0]}
		}
		index.Manifests = append(index.Manifests, desc)
	}
	raw, err := json.Marshal(index)
	assert.NilError(t, err)
	files = append(files, file{name: "index.json", body: string(raw)})
	return tarball(t, append(files, extra...)...)
}

func gzipped(t testing.TB, data []byte) []byte {
	return compressed(t, data, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
}

func zstded(t testing.TB, data []byte) []byte {
	return compressed(t, data, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
}

func xzed(t testing.TB, data []byte) []byte {
	return compressed(t, data, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })
}

func compressed(t testing.TB, data []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := open(&buf)
	assert.NilError(t, err)
	_, err = w.Write(data)
	assert.NilError(t, err)
	assert.NilError(t, w.Close())
	return buf.Bytes()
}

// messages collects what an operation tells.
type messages struct {
	mu  sync.Mutex
	all []jsonstream.Message
}

func (m *messages) add(msg jsonstream.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, msg)
}

// stream is the results among them.
func (m *messages) stream() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, msg := range m.all {
		b.WriteString(msg.Stream)
	}
	return b.String()
}

// load loads an archive and returns the results that were told.
func load(t testing.TB, s *Store, archive []byte) string {
	t.Helper()
	var m messages
	assert.NilError(t, s.Load(t.Context(), bytes.NewReader(archive), m.add))
	return m.stream()
}

// assertClean checks that the store holds no layer without an image, no file
// on its way in, and nothing that the storage's own check finds fault with.
func assertClean(t testing.TB, s *Store) {
	t.Helper()
	layers, err := s.storage.Layers()
	assert.NilError(t, err)
	used, err := s.usedLayers(layers, nil)
	assert.NilError(t, err)
	for _, l := range layers {
		assert.Assert(t, used[l.ID], "layer %s belongs to nobody", l.ID)
	}
	assertSound(t, s)
}

// assertSound checks that no file is on its way in, and that the storage's own check finds nothing. It
// takes no offence at layers without an image that are younger than a day.
func assertSound(t testing.TB, s *Store) {
	t.Helper()
	left := []string{}
	assert.NilError(t, filepath.WalkDir(s.tempDir, func(path string, _ fs.DirEntry, err error) error {
		if path != s.tempDir {
			left = append(left, path)
		}
		return err
	}))
	assert.DeepEqual(t, left, []string{})
	report, err := s.storage.Check(storage.CheckEverything())
	assert.NilError(t, err)
	assert.Equal(t, len(report.Layers), 0, "%v", report.Layers)
	assert.Equal(t, len(report.Images), 0, "%v", report.Images)
	assert.Equal(t, len(report.Containers), 0, "%v", report.Containers)
}

// assertEmpty is assertClean for a store that took nothing.
func assertEmpty(t testing.TB, s *Store) {
	t.Helper()
	assertClean(t, s)
	layers, err := s.storage.Layers()
	assert.NilError(t, err)
	assert.Equal(t, len(layers), 0)
	images, err := s.storage.Images()
	assert.NilError(t, err)
	assert.Equal(t, len(images), 0)
}
