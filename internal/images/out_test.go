package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// save saves and returns the archive.
func save(t *testing.T, s *Store, refs ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	assert.NilError(t, s.Save(t.Context(), refs, SaveOptions{}, &buf))
	return buf.Bytes()
}

// manifestOf is an archive's manifest.json: the tags of each image, sorted, and its ID.
func manifestOf(t *testing.T, archive []byte) map[string][]string {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := tr.Next()
		assert.NilError(t, err)
		if h.Name != "manifest.json" {
			continue
		}
		var items []struct {
			Config   string
			RepoTags []string
		}
		assert.NilError(t, json.NewDecoder(tr).Decode(&items))
		got := map[string][]string{}
		for _, i := range items {
			slices.Sort(i.RepoTags)
			got[strings.TrimSuffix(i.Config, ".json")] = i.RepoTags
		}
		return got
	}
}

func TestSave(t *testing.T) {
	s := openStore(t, nil)
	a, b := simpleImage(t, "a", "example/bb:1", "example/bb:2", "other:1"), simpleImage(t, "b", "b:1")
	b.layers = append([][]byte{a.layers[0]}, b.layers...)
	load(t, s, dockerArchive(t, []testImage{a, b}))
	hexA, hexB := a.id(t).Encoded(), b.id(t).Encoded()
	for _, tc := range []struct {
		refs []string
		want map[string][]string
	}{
		{[]string{"example/bb:1"}, map[string][]string{hexA: {"example/bb:1"}}},
		{[]string{"example/bb"}, map[string][]string{hexA: {"example/bb:1", "example/bb:2"}}},
		{[]string{hexA[:12]}, map[string][]string{hexA: {}}},
		{[]string{"b:1", "other:1", "b:1", hexB}, map[string][]string{hexB: {"b:1"}, hexA: {"other:1"}}},
	} {
		archive := save(t, s, tc.refs...)
		assert.DeepEqual(t, manifestOf(t, archive), tc.want)
		other := openStore(t, nil)
		load(t, other, archive)
		for hex := range tc.want {
			was, err := s.Inspect(t.Context(), hex)
			assert.NilError(t, err)
			is, err := other.Inspect(t.Context(), hex)
			assert.NilError(t, err)
			assert.DeepEqual(t, is.RootFS, was.RootFS)
			assert.DeepEqual(t, is.Config, was.Config)
		}
		assertClean(t, other)
	}
	assertClean(t, s)

	var buf bytes.Buffer
	err := s.Save(t.Context(), []string{"b:1", "nothing:1"}, SaveOptions{}, &buf)
	assert.ErrorContains(t, err, "No such image: nothing:1")
	assert.Assert(t, errdefs.IsNotFound(err))
	err = s.Save(t.Context(), []string{"b:1"}, SaveOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}, &buf)
	assert.ErrorContains(t, err, "does not match the specified platform (linux/s390x)")
	assert.Assert(t, errdefs.IsInvalidArgument(s.Save(t.Context(), nil, SaveOptions{}, &buf)))
	assert.Equal(t, buf.Len(), 0)
}

// What is broken off is not taken for whole, neither by a reader that looks for the end nor by lrd.
func TestSaveThatIsCutOff(t *testing.T) {
	s := openStore(t, nil)
	img := simpleImage(t, strings.Repeat("content ", 1<<17), "a:1")
	load(t, s, dockerArchive(t, []testImage{img}))

	gone := errors.New("the client is gone")
	w := &limitedWriter{left: 100 << 10, err: gone}
	assert.ErrorIs(t, s.Save(t.Context(), []string{"a:1"}, SaveOptions{}, w), gone)

	ctx, cancel := context.WithCancel(t.Context())
	w = &limitedWriter{left: 100 << 10, full: cancel}
	assert.ErrorIs(t, s.Save(ctx, []string{"a:1"}, SaveOptions{}, w), context.Canceled)
	assert.Assert(t, errdefs.IsInvalidArgument(openStore(t, nil).Load(t.Context(), bytes.NewReader(w.got.Bytes()), nil)))
	assertClean(t, s)
}

// limitedWriter fails, or calls full, when so many bytes were written.
type limitedWriter struct {
	left int
	err  error
	full func()
	got  bytes.Buffer
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	w.left -= len(p)
	if w.left < 0 {
		if w.full != nil {
			w.full()
		}
		if w.err != nil {
			return 0, w.err
		}
	}
	return w.got.Write(p)
}

func TestPushAndPullBack(t *testing.T) {
	r := startRegistry(t, nil)
	s := openStore(t, nil)
	ref := r.host + "/example/bb"
	img := simpleImage(t, "a", ref+":1", ref+":2", "elsewhere:1")
	img.layers = append(img.layers, tarball(t, file{name: "more", body: "more"}))
	load(t, s, dockerArchive(t, []testImage{img}))

	told, err := push(t, s, ref+":1", PushOptions{})
	assert.NilError(t, err)
	assert.Assert(t, strings.HasPrefix(told, "The push refers to repository ["+ref+"]\n"), told)
	for _, l := range img.layers {
		short := digest.FromBytes(l).Encoded()[:12]
		assert.Check(t, is.Contains(told, short+": Preparing"))
		assert.Check(t, is.Contains(told, short+": Pushed"))
	}
	got, err := s.Resolve(t.Context(), ref+":1")
	assert.NilError(t, err)
	assert.Equal(t, len(got.RepoDigests), 1)
	d := strings.TrimPrefix(got.RepoDigests[0], ref+"@")
	assert.Check(t, is.Contains(told, "1: digest: "+d+" size: "))

	told, err = push(t, s, ref, PushOptions{AllTags: true})
	assert.NilError(t, err)
	assert.Check(t, is.Contains(told, "1: digest: "+d))
	assert.Check(t, is.Contains(told, "2: digest: "+d))
	for _, l := range img.layers {
		assert.Check(t, is.Contains(told, digest.FromBytes(l).Encoded()[:12]+": Layer already exists"))
	}

	other := openStore(t, nil)
	_, err = pull(t, other, ref, PullOptions{AllTags: true})
	assert.NilError(t, err)
	all, err := other.Resolve(t.Context(), ref+":1")
	assert.NilError(t, err)
	assert.DeepEqual(t, all.RepoTags, []string{ref + ":1", ref + ":2"})
	_, err = pull(t, other, ref+":1", PullOptions{AllTags: true})
	assert.Assert(t, errdefs.IsInvalidArgument(err), "%v", err)
	told, err = pull(t, other, ref+"@"+d, PullOptions{})
	assert.NilError(t, err)
	assert.Check(t, is.Contains(told, "Digest: "+d))
	back, err := other.Resolve(t.Context(), img.id(t).String())
	assert.NilError(t, err)
	assert.DeepEqual(t, back.Config, got.Config)

	// Pushed from there to where its layers are, it has the same digest, though another tool has compressed them.
	foreign := r.push(t, "example/bb", "foreign", simpleImage(t, "foreign"))
	_, err = pull(t, other, ref+":foreign", PullOptions{})
	assert.NilError(t, err)
	assert.NilError(t, other.Tag(t.Context(), ref+":foreign", ref+":again"))
	told, err = push(t, other, ref+":again", PushOptions{})
	assert.NilError(t, err)
	assert.Check(t, is.Contains(told, "again: digest: "+foreign.Digest.String()))

	found, err := s.InspectRemote(t.Context(), ref+":2", nil)
	assert.NilError(t, err)
	assert.Equal(t, found.Descriptor.Digest.String(), d)
	assert.DeepEqual(t, found.Platforms, []ocispec.Platform{{OS: "linux", Architecture: "amd64"}})
	assertClean(t, s)
	assertClean(t, other)
}

// push pushes and returns the messages that count, one a line.
func push(t *testing.T, s *Store, ref string, o PushOptions) (string, error) {
	t.Helper()
	var m messages
	err := s.Push(t.Context(), ref, o, m.add)
	var lines []string
	for _, msg := range m.all {
		lines = append(lines, strings.TrimPrefix(msg.ID+": "+msg.Status, ": "))
	}
	return strings.Join(lines, "\n"), err
}

func TestPushRefuses(t *testing.T) {
	r := startRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			switch user, _, _ := req.BasicAuth(); {
			case user == "":
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`, http.StatusUnauthorized)
			case user == "reader" && req.Method != http.MethodGet && req.Method != http.MethodHead:
				http.Error(w, `{"errors":[{"code":"DENIED","message":"read only"}]}`, http.StatusForbidden)
			default:
				h.ServeHTTP(w, req)
			}
		})
	})
	s := openStore(t, nil)
	ref := r.host + "/x:1"
	load(t, s, dockerArchive(t, []testImage{simpleImage(t, "a", ref)}))
	for _, tc := range []struct {
		ref  string
		o    PushOptions
		kind func(error) bool
		want string
	}{
		{"nothing:1", PushOptions{}, errdefs.IsNotFound, "An image does not exist locally with the tag: nothing:1"},
		{"nothing", PushOptions{AllTags: true}, errdefs.IsNotFound, "An image does not exist locally with the tag: nothing"},
		{ref, PushOptions{AllTags: true}, errdefs.IsInvalidArgument, "tag can't be used with --all-tags/-a"},
		{r.host + "/x@sha256:" + zeros64, PushOptions{}, errdefs.IsInvalidArgument, "cannot push a digest reference"},
		{ref, PushOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}}, errdefs.IsNotFound, "does not match the specified platform"},
		{ref, PushOptions{}, errdefs.IsPermissionDenied, "unauthorized: "},
		{ref, PushOptions{Auth: &registry.AuthConfig{Username: "reader", Password: "x"}}, errdefs.IsPermissionDenied, "denied: requested access to the resource is denied"},
	} {
		_, err := push(t, s, tc.ref, tc.o)
		assert.ErrorContains(t, err, tc.want)
		assert.Assert(t, tc.kind(err), "%v", err)
		t.Log(err)
	}
	_, err := push(t, s, ref, PushOptions{Auth: &registry.AuthConfig{Username: "writer", Password: "x"}})
	assert.NilError(t, err)
	assertClean(t, s)
}

// No more layers are sent at a time than MaxUploads, and none more fetched than MaxDownloads.
func TestTransfersAreBounded(t *testing.T) {
	var mu sync.Mutex
	// By method: PATCH sends a layer, GET fetches one.
	bound := map[string]int{http.MethodPatch: 2, http.MethodGet: 3}
	now, most, came := map[string]int{}, map[string]int{}, map[string]int{}
	add := func(method string, n int) {
		mu.Lock()
		defer mu.Unlock()
		now[method] += n
		came[method] += max(n, 0)
		most[method] = max(most[method], now[method])
	}
	// The first one that is fetched is the configuration, which comes by itself.
	crowded := func(method string) bool {
		mu.Lock()
		defer mu.Unlock()
		return most[method] >= bound[method] || method == http.MethodGet && came[method] == 1
	}
	r := startRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.Contains(req.URL.Path, "/blobs/") {
				add(req.Method, 1)
				defer add(req.Method, -1)
				if bound[req.Method] > 0 {
					for deadline := time.Now().Add(20 * time.Second); !crowded(req.Method) && time.Now().Before(deadline); {
						time.Sleep(time.Millisecond)
					}
					time.Sleep(50 * time.Millisecond) // for one more than there may be
				}
			}
			h.ServeHTTP(w, req)
		})
	})
	s := openStore(t, func(o *Options) { o.MaxUploads, o.MaxDownloads = bound[http.MethodPatch], bound[http.MethodGet] })
	img := simpleImage(t, "0", r.host+"/x:1")
	for _, n := range []string{"1", "2", "3", "4"} {
		img.layers = append(img.layers, tarball(t, file{name: n, body: n}))
	}
	load(t, s, dockerArchive(t, []testImage{img}))
	_, err := push(t, s, r.host+"/x:1", PushOptions{})
	assert.NilError(t, err)
	_, err = s.Remove(t.Context(), r.host+"/x:1", false, nil)
	assert.NilError(t, err)
	_, err = pull(t, s, r.host+"/x:1", PullOptions{})
	assert.NilError(t, err)
	assert.DeepEqual(t, map[string]int{http.MethodPatch: most[http.MethodPatch], http.MethodGet: most[http.MethodGet]}, bound)
}

// A push ends with its client, in the middle of a layer.
func TestPushEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := startRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPatch {
				cancel()
				_, _ = io.Copy(io.Discard, req.Body) // until nobody sends
				return
			}
			h.ServeHTTP(w, req)
		})
	})
	s := openStore(t, nil)
	load(t, s, dockerArchive(t, []testImage{simpleImage(t, strings.Repeat("x", 1<<20), r.host+"/x:1")}))
	assert.ErrorIs(t, s.Push(ctx, r.host+"/x:1", PushOptions{}, nil), context.Canceled)
	assertClean(t, s)
}

func TestLogin(t *testing.T) {
	basic := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, pass, _ := req.BasicAuth(); user+":"+pass != "me:secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer basic.Close()
	var bearer *httptest.Server
	bearer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Path == "/token":
			if user, pass, _ := req.BasicAuth(); user+":"+pass != "me:secret" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = io.WriteString(w, `{"token":"T"}`)
		case req.Header.Get("Authorization") != "Bearer T":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+bearer.URL+`/token",service="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer bearer.Close()
	s := openStore(t, nil)
	for name, url := range map[string]string{"basic": basic.URL, "token": bearer.URL} {
		host := strings.TrimPrefix(url, "http://")
		assert.NilError(t, s.Login(t.Context(), registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: host}), name)
		err := s.Login(t.Context(), registry.AuthConfig{Username: "me", Password: "wrong", ServerAddress: "https://" + host + "/v2/"})
		assert.Assert(t, errdefs.IsUnauthorized(err), "%s: %v", name, err)
		assert.ErrorContains(t, err, "unauthorized: incorrect username or password")
	}
	assert.Assert(t, errdefs.IsInvalidArgument(s.Login(t.Context(), registry.AuthConfig{ServerAddress: "x"})))
	assert.ErrorContains(t, s.Login(t.Context(), registry.AuthConfig{Username: "me", Password: "x", ServerAddress: "127.0.0.1:1"}), "cannot log in to 127.0.0.1:1")
	for address, want := range map[string]string{
		"": "docker.io", "https://index.docker.io/v1/": "docker.io", "http://127.0.0.1:5000/v2/": "127.0.0.1:5000", "reg.example": "reg.example", "localhost": "localhost", "[::1]:5000": "[::1]:5000",
	} {
		got, err := registryHost(address)
		assert.NilError(t, err)
		assert.Equal(t, got, want)
	}
	for _, wrong := range []string{"..", "\x00", ":", "a:b:c", "me@example.com", "%s"} {
		_, err := registryHost(wrong)
		assert.Check(t, errdefs.IsInvalidArgument(err), "%q: %v", wrong, err)
	}
}

func TestPruneAndUsage(t *testing.T) {
	s := openStore(t, nil)
	a, b, none := simpleImage(t, "a", "a:1"), simpleImage(t, "bb", "b:1"), simpleImage(t, "none")
	b.layers = append([][]byte{a.layers[0]}, b.layers...)
	b.config.Labels = map[string]string{"keep": "me"}
	load(t, s, dockerArchive(t, []testImage{a, b, none}))
	size := func(layers ...[]byte) (n int64) {
		for _, l := range layers {
			n += int64(len(l))
		}
		return n
	}
	usedBy := func(img testImage) func(string) bool { return func(id string) bool { return id == img.id(t).String() } }
	u, err := s.Usage(t.Context(), usedBy(a))
	assert.NilError(t, err)
	assert.DeepEqual(t, u, Usage{Total: size(a.layers[0], b.layers[1], none.layers[0]), Reclaimable: size(b.layers[1], none.layers[0])})

	nobody := func(string) (string, bool, bool) { return "", false, false }
	aIsUsed := func(id string) (string, bool, bool) { return "web", false, usedBy(a)(id) }
	report, err := s.Prune(t.Context(), nil, nobody)
	assert.NilError(t, err)
	assert.Equal(t, report.ImagesDeleted[0].Deleted, none.id(t).String())
	assert.Equal(t, len(report.ImagesDeleted), 2) // and its layer
	assert.Equal(t, report.SpaceReclaimed, uint64(size(none.layers[0])))

	for _, f := range []Filters{
		{"dangling": {"false": true}, "label!": {"keep": true}},
		{"dangling": {"false": true}, "label": {"other": true}},
		{"dangling": {"false": true}, "until": {"2026-01-01": true}},
		{"dangling": {"true": true}},
	} {
		report, err = s.Prune(t.Context(), f, aIsUsed)
		assert.NilError(t, err)
		assert.Equal(t, len(report.ImagesDeleted), 0, "%v", f)
	}
	report, err = s.Prune(t.Context(), Filters{"dangling": {"false": true}}, aIsUsed)
	assert.NilError(t, err)
	assert.Equal(t, report.ImagesDeleted[0].Untagged, "b:1")
	assert.Equal(t, report.SpaceReclaimed, uint64(size(b.layers[1])))
	_, err = s.Resolve(t.Context(), "a:1")
	assert.NilError(t, err)
	_, err = s.Prune(t.Context(), Filters{"reference": {"a": true}}, nobody)
	assert.Assert(t, errdefs.IsInvalidArgument(err))
	assertClean(t, s)
}
