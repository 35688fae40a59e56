package images

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// testRegistry is a registry in this process, or any other by its URL.
type testRegistry struct {
	url, host string
	client    *http.Client
}

// startRegistry starts a registry. wrap may be nil.
func startRegistry(t *testing.T, wrap func(http.Handler) http.Handler) *testRegistry {
	t.Helper()
	h := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &testRegistry{url: srv.URL, host: strings.TrimPrefix(srv.URL, "http://"), client: srv.Client()}
}

// blob uploads a blob.
func (r *testRegistry) blob(t *testing.T, repo, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	d := digest.FromBytes(data)
	resp, err := r.client.Post(r.url+"/v2/"+repo+"/blobs/uploads/", "", nil)
	assert.NilError(t, err)
	resp.Body.Close()
	loc, err := resp.Location()
	assert.NilError(t, err)
	q := loc.Query()
	q.Set("digest", d.String())
	loc.RawQuery = q.Encode()
	r.put(t, loc.String(), "application/octet-stream", data)
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

func (r *testRegistry) put(t *testing.T, url, mediaType string, data []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader(data))
	assert.NilError(t, err)
	req.Header.Set("Content-Type", mediaType)
	resp, err := r.client.Do(req)
	assert.NilError(t, err)
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	assert.Assert(t, resp.StatusCode < 300, "%s: %s", resp.Status, body)
}

// push uploads an image, layers compressed with gzip, and returns its
// manifest's descriptor.
func (r *testRegistry) push(t *testing.T, repo, tag string, img testImage) ocispec.Descriptor {
	t.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: r.blob(t, repo, ocispec.MediaTypeImageConfig, img.configJSON(t))}
	m.SchemaVersion = 2
	for _, l := range img.layers {
		m.Layers = append(m.Layers, r.blob(t, repo, ocispec.MediaTypeImageLayerGzip, gzipped(t, l)))
	}
	raw, err := json.Marshal(m)
	assert.NilError(t, err)
	r.put(t, r.url+"/v2/"+repo+"/manifests/"+tag, m.MediaType, raw)
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

// pull pulls and returns the messages that count, one a line.
func pull(t *testing.T, s *Store, ref string, o PullOptions) (string, error) {
	t.Helper()
	var m messages
	err := s.Pull(t.Context(), ref, o, m.add)
	var lines []string
	for _, msg := range m.all {
		if msg.Status == "Downloading" {
			continue
		}
		lines = append(lines, strings.TrimPrefix(msg.ID+": "+msg.Status, ": "))
	}
	return strings.Join(lines, "\n"), err
}

func testPull(t *testing.T, r *testRegistry) {
	img := simpleImage(t, "hello")
	img.layers = append(img.layers, tarball(t, file{name: "more", body: "more"}))
	desc := r.push(t, "example/bb", "1", img)
	s := openStore(t, nil)
	ref := r.host + "/example/bb"

	told, err := pull(t, s, ref+":1", PullOptions{})
	assert.NilError(t, err)
	for _, l := range img.layers {
		short := digest.FromBytes(gzipped(t, l)).Encoded()[:12]
		assert.Assert(t, is.Contains(told, short+": Pulling fs layer"))
		assert.Assert(t, is.Contains(told, short+": Download complete"))
		assert.Assert(t, is.Contains(told, short+": Pull complete"))
	}
	assert.Assert(t, strings.HasPrefix(told, "1: Pulling from example/bb\n"), told)
	assert.Assert(t, strings.HasSuffix(told, "\nDigest: "+desc.Digest.String()+"\nStatus: Downloaded newer image for "+ref+":1"), told)
	got, err := s.Resolve(t.Context(), ref+":1")
	assert.NilError(t, err)
	assert.Equal(t, got.ID, img.id(t))
	assert.DeepEqual(t, got.RepoTags, []string{ref + ":1"})
	assert.DeepEqual(t, got.RepoDigests, []string{ref + "@" + desc.Digest.String()})
	got, err = s.Resolve(t.Context(), ref+"@"+desc.Digest.String())
	assert.NilError(t, err)
	assert.Equal(t, got.ID, img.id(t))

	told, err = pull(t, s, ref+":1", PullOptions{})
	assert.NilError(t, err)
	assert.Assert(t, strings.HasSuffix(told, "\nStatus: Image is up to date for "+ref+":1"), told)
	assertClean(t, s)

	// The digest's name goes with the last tag, and the image with both.
	gone, err := s.Remove(t.Context(), ref+":1", false, nil)
	assert.NilError(t, err)
	assert.Equal(t, gone[1].Untagged, ref+"@"+desc.Digest.String())
	assertEmpty(t, s)

	_, err = pull(t, s, ref+"@"+desc.Digest.String(), PullOptions{})
	assert.NilError(t, err)
	got, err = s.Resolve(t.Context(), img.id(t).String())
	assert.NilError(t, err)
	assert.DeepEqual(t, got.RepoTags, []string{})
	assertClean(t, s)
}

func TestPull(t *testing.T) { testPull(t, startRegistry(t, nil)) }

func TestPullRefuses(t *testing.T) {
	r := startRegistry(t, nil)
	good := simpleImage(t, "good")
	with := func(layer []byte) testImage { return testImage{layers: [][]byte{good.layers[0], layer}} }
	r.push(t, "climbs", "1", with(tarball(t, file{name: "../x", body: "x"})))
	r.push(t, "link", "1", with(tarball(t, file{name: "a", link: "/etc"}, file{name: "a/x", body: "x"})))
	r.push(t, "bomb", "1", with(tarball(t, file{name: "zeros", body: strings.Repeat("\x00", 3<<20)})))
	r.push(t, "notar", "1", with(bytes.Repeat([]byte("no tar "), 200)))
	lie := simpleImage(t, "lie")
	lie.diffIDs = []digest.Digest{digest.FromString("else")}
	r.push(t, "lie", "1", lie)
	for ref, want := range map[string]string{
		"climbs:1": `entry "../x" of a layer leaves the root filesystem`,
		"link:1":   `through the symbolic link "a"`,
		"bomb:1":   "more than the limit of 2MiB",
		"notar:1":  "no tar archive",
		"lie:1":    "does not match config's DiffID",
	} {
		t.Run(ref, func(t *testing.T) {
			s := openStore(t, func(o *Options) { o.MaxLoadBytes = 2 << 20 })
			_, err := pull(t, s, r.host+"/"+ref, PullOptions{})
			assert.ErrorContains(t, err, want)
			assert.Assert(t, errdefs.IsInvalidArgument(err) || ref == "lie:1")
			t.Log(err)
			assertEmpty(t, s)
		})
	}
}

func TestPullOfWhatIsNotThere(t *testing.T) {
	r := startRegistry(t, nil)
	r.push(t, "example/bb", "1", simpleImage(t, "x"))
	s := openStore(t, nil)
	for _, ref := range []string{"/example/bb:2", "/nothing:1", "/example/bb@sha256:" + zeros64} {
		told, err := pull(t, s, r.host+ref, PullOptions{})
		assert.Assert(t, errdefs.IsNotFound(err), "%v", err)
		assert.ErrorContains(t, err, "not found")
		assert.Equal(t, told, "", "the API would have answered 200 by then")
		t.Log(err)
	}
	_, err := pull(t, s, "UPPER", PullOptions{})
	assert.Assert(t, errdefs.IsInvalidArgument(err))
	_, err = pull(t, s, "127.0.0.1:1/x:1", PullOptions{})
	assert.ErrorContains(t, err, "cannot pull 127.0.0.1:1/x:1")
	assertEmpty(t, s)
}

func TestPullWithCredentials(t *testing.T) {
	open := false
	r := startRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if user, pass, _ := req.BasicAuth(); !open && user+":"+pass != "me:secret" {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`, http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, req)
		})
	})
	open = true
	r.push(t, "private", "1", simpleImage(t, "x"))
	open = false
	s := openStore(t, nil)
	_, err := pull(t, s, r.host+"/private:1", PullOptions{})
	assert.ErrorContains(t, err, "pull access denied for "+r.host+"/private, repository does not exist or may require 'docker login'")
	assert.Assert(t, errdefs.IsNotFound(err))
	_, err = pull(t, s, r.host+"/private:1", PullOptions{Auth: &registry.AuthConfig{Username: "me", Password: "wrong"}})
	assert.ErrorContains(t, err, "pull access denied")
	for _, auth := range []registry.AuthConfig{{Username: "me", Password: "secret"}, {Auth: "bWU6c2VjcmV0"}} {
		_, err = pull(t, s, r.host+"/private:1", PullOptions{Auth: &auth})
		assert.NilError(t, err)
	}
}

func TestPullFromMirror(t *testing.T) {
	r := startRegistry(t, nil)
	img := simpleImage(t, "x")
	r.push(t, "example/bb", "1", img)
	s := openStore(t, nil)
	assert.NilError(t, s.SetRegistries(Registries{Mirrors: []string{r.url}}))
	_, err := pull(t, s, "example/bb:1", PullOptions{})
	assert.NilError(t, err)
	got, err := s.Resolve(t.Context(), "example/bb:1")
	assert.NilError(t, err)
	assert.Equal(t, got.ID, img.id(t))

	for _, bad := range []Registries{{Mirrors: []string{"mirror.example"}}, {Mirrors: []string{"https://u:p@mirror.example"}}, {Insecure: []string{"http://x"}}} {
		err := s.SetRegistries(bad)
		assert.Assert(t, errdefs.IsInvalidArgument(err), "%v", err)
	}
}

func TestPullPlatform(t *testing.T) {
	r := startRegistry(t, nil)
	one, other := simpleImage(t, "amd64"), simpleImage(t, "arm64")
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	for arch, img := range map[string]testImage{"amd64": one, "arm64": other} {
		desc := r.push(t, "multi", arch, img)
		desc.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, desc)
	}
	raw, err := json.Marshal(index)
	assert.NilError(t, err)
	r.put(t, r.url+"/v2/multi/manifests/1", index.MediaType, raw)
	s := openStore(t, nil)
	_, err = pull(t, s, r.host+"/multi:1", PullOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}})
	assert.NilError(t, err)
	got, err := s.Resolve(t.Context(), r.host+"/multi:1")
	assert.NilError(t, err)
	assert.Equal(t, got.ID, one.id(t))
	assert.DeepEqual(t, got.RepoDigests, []string{r.host + "/multi@" + digest.FromBytes(raw).String()})

	_, err = pull(t, s, r.host+"/multi:1", PullOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}})
	assert.ErrorContains(t, err, "s390x")
	_, err = pull(t, s, r.host+"/multi:amd64", PullOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}})
	assert.ErrorContains(t, err, "was found but its platform (linux/amd64) does not match the specified platform (linux/s390x)")
	assertClean(t, s)
}

func TestPullEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := startRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") && req.Header.Get("User-Agent") == "lrd-test" {
				cancel()
				<-req.Context().Done()
				return
			}
			h.ServeHTTP(w, req)
		})
	})
	r.push(t, "x", "1", simpleImage(t, "x"))
	s := openStore(t, func(o *Options) { o.UserAgent = "lrd-test" })
	assert.ErrorIs(t, s.Pull(ctx, r.host+"/x:1", PullOptions{}, nil), context.Canceled)
	assertEmpty(t, s)
}

func TestInsecureRegistries(t *testing.T) {
	r := Registries{Insecure: []string{"plain.example", "port.example:5000", "10.0.0.0/8"}}
	for host, want := range map[string]bool{
		"plain.example": true, "plain.example:443": true, "port.example:5000": true, "port.example": false,
		"10.1.2.3:5000": true, "11.1.2.3": false, "127.0.0.1:5000": true, "localhost:5000": true, "[::1]:5000": true,
		"docker.io": false, "other.example": false,
	} {
		assert.Equal(t, r.insecure(host), want, host)
	}
}
