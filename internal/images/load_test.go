package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestLoadFormats(t *testing.T) {
	img := simpleImage(t, "hello", "example/bb:1", "registry.example:5000/x/y:z")
	docker := dockerArchive(t, []testImage{img})
	oci := ociArchive(t, []testImage{{tags: []string{"docker.io/example/bb:1"}, layers: img.layers}})
	both := "Loaded image: example/bb:1\nLoaded image: registry.example:5000/x/y:z\n"
	for _, tc := range []struct {
		name    string
		archive []byte
		want    string
	}{
		{"docker plain", docker, both},
		{"docker gzip", gzipped(t, docker), both},
		{"docker zstd", zstded(t, docker), both},
		{"docker xz", xzed(t, docker), both},
		{"oci", oci, "Loaded image: example/bb:1\n"},
		{"oci gzip", gzipped(t, oci), "Loaded image: example/bb:1\n"},
		{"untagged", dockerArchive(t, []testImage{{layers: img.layers}}), "Loaded image ID: " + img.id(t).String() + "\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t, nil)
			assert.Equal(t, load(t, s, tc.archive), tc.want)
			got, err := s.Resolve(t.Context(), img.id(t).String())
			assert.NilError(t, err)
			assert.Equal(t, got.ID, img.id(t))
			assertClean(t, s)
		})
	}
}

func TestLoadSeveralImages(t *testing.T) {
	s := openStore(t, nil)
	a, b := simpleImage(t, "a", "a:1"), simpleImage(t, "b", "b:1")
	b.layers = append([][]byte{a.layers[0]}, b.layers...) // a layer in common
	assert.Equal(t, load(t, s, dockerArchive(t, []testImage{a, b})), "Loaded image: a:1\nLoaded image: b:1\n")
	assertClean(t, s)

	// A name moves, and the image that had it stays without one.
	c := simpleImage(t, "c", "a:1")
	told := load(t, s, dockerArchive(t, []testImage{c}))
	assert.Equal(t, told, "The image a:1 already exists, renaming the old one with ID "+a.id(t).String()+" to empty string\nLoaded image: a:1\n")
	got, err := s.Resolve(t.Context(), "a:1")
	assert.NilError(t, err)
	assert.Equal(t, got.ID, c.id(t))
	old, err := s.Resolve(t.Context(), a.id(t).String())
	assert.NilError(t, err)
	assert.DeepEqual(t, old.RepoTags, []string{})
}

func TestLoadAgainChangesNothing(t *testing.T) {
	s := openStore(t, nil)
	archive := dockerArchive(t, []testImage{simpleImage(t, "a", "a:1")})
	first, second := load(t, s, archive), load(t, s, archive)
	assert.Equal(t, first, second)
	assertClean(t, s)
}

func TestLoadRefusesBadArchives(t *testing.T) {
	good := simpleImage(t, "good", "good:1")
	with := func(files ...file) testImage {
		return testImage{tags: []string{"bad:1"}, layers: [][]byte{good.layers[0], tarball(t, files...)}}
	}
	docker := func(img testImage) []byte { return dockerArchive(t, []testImage{good, img}) }
	oci := func(img testImage) []byte { return ociArchive(t, []testImage{good, img}) }
	plain := docker(good)
	cut := func(data []byte, n int) []byte { return data[:n] }
	lie := simpleImage(t, "lie", "lie:1")
	lie.diffIDs = []digest.Digest{digest.FromString("something else")}
	zeros := strings.Repeat("\x00", 3<<20)
	blobOf := func(archive []byte) []byte { // an OCI archive with one byte of a layer changed
		a := bytes.Clone(archive)
		at := bytes.Index(a, gzipped(t, good.layers[0])[:10])
		a[at+30] ^= 1
		return a
	}

	for _, tc := range []struct {
		name    string
		archive []byte
		want    string
	}{
		{"empty", nil, "archive is empty"},
		{"no archive", []byte(strings.Repeat("this is no archive ", 100)), "not an image archive"},
		{"short text", []byte("hello"), "not an image archive"},
		{"no index", tarball(t, file{name: "bin/sh", body: "x"}), "neither manifest.json nor index.json"},
		{"manifest.json is no JSON", tarball(t, file{name: "manifest.json", body: "{"}), `cannot parse member "manifest.json"`},
		{"no images", tarball(t, file{name: "manifest.json", body: "[]"}), "archive has no images"},
		{"no images in index", tarball(t, file{name: "index.json", body: "{}"}), "archive has no images"},
		{"configuration missing", tarball(t, file{name: "manifest.json", body: `[{"Config":"x.json"}]`}), `archive has no member "x.json"`},
		{"layer missing", tarball(t, file{name: "manifest.json", body: `[{"Config":"x.json","Layers":["a/layer.tar"]}]`},
			file{name: "x.json", body: `{"rootfs":{"type":"layers","diff_ids":["` + digest.FromString("x").String() + `"]}}`}), `no member "a/layer.tar", which is a layer of image 0`},
		{"configuration is no JSON", tarball(t, file{name: "manifest.json", body: `[{"Config":"x.json"}]`}, file{name: "x.json", body: "hello"}), `cannot parse member "x.json"`},
		{"name", dockerArchive(t, []testImage{{tags: []string{"UPPER:1"}, layers: good.layers}}), `"UPPER:1", which is none`},
		{"truncated in the middle", cut(plain, len(plain)/2), "truncated"},
		{"truncated in a header", cut(plain, 700), "truncated"},
		{"truncated gzip", cut(gzipped(t, plain), len(gzipped(t, plain))-20), "truncated"},
		{"damaged zstd", append(cut(zstded(t, plain), 40), "garbage garbage garbage"...), ""},
		{"member above the archive", dockerArchive(t, []testImage{good}, file{name: "../evil", body: "x"}), `member "../evil" leaves the archive`},
		{"absolute member", dockerArchive(t, []testImage{good}, file{name: "/etc/evil", body: "x"}), `member "/etc/evil" leaves the archive`},
		{"absolute link", dockerArchive(t, []testImage{good}, file{name: "a/layer.tar", link: "/etc/shadow"}), `symbolic link "a/layer.tar" leaves the archive`},
		{"link above the archive", ociArchive(t, []testImage{good}, file{name: "blobs/x", link: "../../etc/shadow"}), `symbolic link "blobs/x" leaves the archive`},
		{"member below a member", ociArchive(t, []testImage{good}, file{name: "blobs/x", body: "x"}, file{name: "blobs/x/y", body: "y"}), "is file and directory at once"},
		{"device", dockerArchive(t, []testImage{good}, file{name: "dev", typ: tar.TypeBlock}), `member "dev" is neither`},
		{"entry above the root", docker(with(file{name: "../../etc/passwd", body: "x"})), `entry "../../etc/passwd" of a layer leaves the root filesystem`},
		{"entry above the root later on", docker(with(file{name: "a/b/../../../x", body: "x"})), "leaves the root filesystem"},
		{"entry above the root in OCI", oci(with(file{name: "../x", body: "x"})), `entry "../x" of a layer leaves the root filesystem`},
		{"hard link above the root", docker(with(file{name: "x", hard: "../../etc/shadow"})), `hard link "x" of a layer leaves`},
		{"through an absolute link", docker(with(file{name: "a", link: "/etc"}, file{name: "a/passwd", body: "x"})), `through the symbolic link "a" to "/etc"`},
		{"through a climbing link", docker(with(file{name: "d/a", link: "../../x"}, file{name: "d/a/b/c", body: "x"})), `through the symbolic link "d/a"`},
		{"hard link through an absolute link", docker(with(file{name: "a", link: "/etc"}, file{name: "x", hard: "a/shadow"})), `through the symbolic link "a"`},
		{"name that Linux has none of", docker(with(file{name: strings.Repeat("a/", maxPath/2) + "x", body: "x"})), "a name or a target of more than 4096 bytes"},
		{"link to such a name", docker(with(file{name: "x", link: strings.Repeat("a", maxPath+1)})), "a name or a target of more than 4096 bytes"},
		{"wrong layer", dockerArchive(t, []testImage{good, lie}), "refused"},
		{"wrong layer in OCI", ociArchive(t, []testImage{good, lie}), "refused"},
		{"changed blob", blobOf(ociArchive(t, []testImage{good})), "cannot uncompress"},
		{"bomb of an archive", gzipped(t, []byte(zeros)), "more than the limit of 2MiB"},
		{"bomb of a layer", ociArchive(t, []testImage{good, {layers: [][]byte{tarball(t, file{name: "zeros", body: zeros})}}}), "more than the limit of 2MiB"},
		{"bomb that is no layer", dockerArchive(t, []testImage{good}, file{name: "x", body: string(gzipped(t, []byte(zeros)))}), "more than the limit of 2MiB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t, func(o *Options) { o.MaxLoadBytes = 2 << 20 })
			var m messages
			err := s.Load(t.Context(), bytes.NewReader(tc.archive), m.add)
			assert.Assert(t, errdefs.IsInvalidArgument(err), "%v", err)
			assert.Assert(t, is.Contains(err.Error(), tc.want))
			assert.Equal(t, m.stream(), "")
			t.Log(err)
			assertEmpty(t, s)
		})
	}
}

// Of two that bring in the same image at the same time, the one that is refused leaves it to the other.
func TestLoadRefusedKeepsWhatAnotherBrings(t *testing.T) {
	good, lie := simpleImage(t, "good", "good:1"), simpleImage(t, "lie", "lie:1")
	lie.diffIDs = []digest.Digest{digest.FromString("something else")}
	for _, succeeds := range []bool{true, false} {
		s := openStore(t, nil)
		s.gate.enter()
		s.claims.take(good.id(t), s.storage.Exists) // the other one begins
		assert.ErrorContains(t, s.Load(t.Context(), bytes.NewReader(dockerArchive(t, []testImage{good, lie})), nil), "refused")
		assert.Check(t, s.storage.Exists(good.id(t).Encoded()))
		s.claims.giveBack(good.id(t), succeeds, s.discard) // and ends
		assert.NilError(t, s.gate.leave(!succeeds))
		assert.Equal(t, s.storage.Exists(good.id(t).Encoded()), succeeds)
		assertClean(t, s)
	}
}

// A refused archive takes nothing along that was there before.
func TestLoadRefusedKeepsWhatWasThere(t *testing.T) {
	s := openStore(t, nil)
	good := simpleImage(t, "good", "good:1")
	load(t, s, dockerArchive(t, []testImage{good}))
	lie := testImage{
		tags: []string{"good:1"}, layers: append([][]byte{good.layers[0]}, tarball(t, file{name: "x"})),
		diffIDs: []digest.Digest{digest.FromBytes(good.layers[0]), digest.FromString("else")},
	}
	err := s.Load(t.Context(), bytes.NewReader(dockerArchive(t, []testImage{good, lie})), nil)
	assert.Assert(t, errdefs.IsInvalidArgument(err), "%v", err)
	got, err := s.Resolve(t.Context(), "good:1")
	assert.NilError(t, err)
	assert.Equal(t, got.ID, good.id(t))
	assertClean(t, s)
}

func TestLoadEndsWithItsContext(t *testing.T) {
	s := openStore(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	go func() {
		archive := dockerArchive(t, []testImage{simpleImage(t, strings.Repeat("x", 1<<20), "a:1")})
		_, _ = pw.Write(archive[:len(archive)/2])
		cancel()
		_, _ = pw.Write(archive[len(archive)/2:])
		_ = pw.Close()
	}()
	err := s.Load(ctx, pr, nil)
	assert.ErrorIs(t, err, context.Canceled)
	_ = pr.Close()
	assertEmpty(t, s)
}

// A client that goes away is not told that its archive is bad: the reader's
// error is the cause.
func TestLoadReaderFails(t *testing.T) {
	s := openStore(t, nil)
	gone := errors.New("connection reset")
	err := s.Load(t.Context(), io.MultiReader(bytes.NewReader(tarball(t, file{name: "a"})[:512]), failing{gone}), nil)
	assert.ErrorContains(t, err, "connection reset")
	assertEmpty(t, s)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestOpenEmptiesWhatWasOnItsWayIn(t *testing.T) {
	s := openStore(t, nil)
	a, err := s.spool(t.Context(), bytes.NewReader(tarball(t, file{name: "x"})), &budget{limit: 1 << 20})
	assert.NilError(t, err)
	defer a.Close()
	again, err := Open(t.Context(), s.opts)
	assert.NilError(t, err)
	assertEmpty(t, again)
}

// A process that was killed in the middle of a load leaves layers without an
// image; the next Open deletes them, and nothing that is used.
func TestOpenDeletesLayersOfNobody(t *testing.T) {
	s := openStore(t, nil)
	img := simpleImage(t, "kept", "kept:1")
	load(t, s, dockerArchive(t, []testImage{img}))
	assert.NilError(t, s.CreateRootfs(t.Context(), zeros64, img.id(t).String()))
	below, _, err := s.storage.PutLayer("", "", nil, "", false, nil, bytes.NewReader(tarball(t, file{name: "x", body: "x"})))
	assert.NilError(t, err)
	_, _, err = s.storage.PutLayer("", below.ID, nil, "", false, nil, bytes.NewReader(tarball(t, file{name: "y", body: "y"})))
	assert.NilError(t, err)
	s = reopen(t, s, s.opts.RunRoot)
	assertClean(t, s)
	layers, err := s.storage.Layers()
	assert.NilError(t, err)
	assert.Equal(t, len(layers), 2) // the image's and the root filesystem's
}

func FuzzScanLayer(f *testing.F) {
	f.Add(tarball(f, file{name: "a", link: "/etc"}, file{name: "a/b", body: "x"}))
	f.Add(tarball(f, file{name: "../x", body: "x"}))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := &budget{limit: 1 << 20}
		_ = scanLayer(t.Context(), bytes.NewReader(data), b)
		if scanBlob(t.Context(), bytes.NewReader(data), &budget{limit: 1 << 20}) != nil {
			return
		}
		// What has passed names nothing outside of the root.
		tr := tar.NewReader(bytes.NewReader(data))
		for h, err := tr.Next(); err == nil; h, err = tr.Next() {
			if name, ok := insideRoot(h.Name); !ok || !filepath.IsLocal(name) {
				t.Errorf("%q has passed", h.Name)
			}
		}
	})
}
