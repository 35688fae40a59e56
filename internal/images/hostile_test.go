package images

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// hostile is a registry that answers as answer says, and tells it what it would
// have answered else. It counts what lrd has asked it for.
type hostile struct {
	*testRegistry
	mu     sync.Mutex
	answer func(w http.ResponseWriter, req *http.Request, honest http.Handler)
	asked  map[string]int // by the last part of the path: a tag or a digest
}

func startHostile(t *testing.T) *hostile {
	t.Helper()
	h := &hostile{asked: map[string]int{}}
	h.testRegistry = startRegistry(t, func(honest http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			h.mu.Lock()
			answer := h.answer
			if req.Header.Get("User-Agent") != "lrd-test" {
				answer = nil // somebody filling it
			} else if req.Method == http.MethodGet {
				h.asked[path.Base(req.URL.Path)]++
			}
			h.mu.Unlock()
			if answer == nil {
				honest.ServeHTTP(w, req)
				return
			}
			answer(w, req, honest)
		})
	})
	return h
}

// behave sets how it answers from now on, and counts anew.
func (h *hostile) behave(answer func(w http.ResponseWriter, req *http.Request, honest http.Handler)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.answer = answer
	clear(h.asked)
}

func (h *hostile) count(name string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked[name]
}

// openHasty opens a store that does not wait between attempts.
func openHasty(t *testing.T) *Store {
	s := openStore(t, func(o *Options) { o.UserAgent, o.MaxLoadBytes, o.MaxDownloadAttempts = "lrd-test", 8<<20, 3 })
	s.pause = func(int) time.Duration { return 0 }
	return s
}

// endless sends until nobody listens.
func endless(w http.ResponseWriter) {
	block := bytes.Repeat([]byte("and so on "), 6<<10)
	for {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// A registry that lies is found out, in words, and nothing of it stays.
func TestHostileRegistry(t *testing.T) {
	r := startHostile(t)
	img := simpleImage(t, "hello")
	img.layers = append(img.layers, tarball(t, file{name: "more", body: strings.Repeat("more ", 1<<16)}))
	desc := r.push(t, "x", "1", img)
	layer := gzipped(t, img.layers[1])
	layerDigest, configDigest := digest.FromBytes(layer).String(), img.id(t).String()
	of := func(name string, lie func(w http.ResponseWriter)) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, req *http.Request, honest http.Handler) {
			if path.Base(req.URL.Path) != name {
				honest.ServeHTTP(w, req)
				return
			}
			lie(w)
		}
	}
	say := func(body []byte) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body)
		}
	}
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: img.id(t), Size: int64(len(img.configJSON(t)))}
	manifest := func(layer ocispec.Descriptor) func(http.ResponseWriter) {
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer, layer}}
		m.SchemaVersion, m.Layers[0].MediaType = 2, ocispec.MediaTypeImageLayerGzip
		raw, err := json.Marshal(m)
		assert.NilError(t, err)
		return say(raw)
	}
	s := openHasty(t)
	changed := bytes.Clone(layer)
	changed[9] ^= 1 // the operating system in gzip's header: it unpacks to the same
	for _, tc := range []struct {
		name, ref string
		answer    func(http.ResponseWriter, *http.Request, http.Handler)
		want      string
		attempts  int // at the layer
	}{
		{"layer of another digest", "x:1", of(layerDigest, say(changed)), "Digest did not match", 1},
		{"layer of another content", "x:1", of(layerDigest, say(gzipped(t, img.layers[0]))), "cannot pull", 3},
		{"configuration of another digest", "x:1", of(configDigest, say([]byte(`{"os":"linux"}`))), "digest", 0},
		{"manifest of another digest", "x@" + desc.Digest.String(), of(desc.Digest.String(), say([]byte(`{"schemaVersion":2}`))), "cannot pull", 0},
		{"manifest that is a page", "x:1", of("1", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>log in first</html>")
		}), "cannot pull", 0},
		{"truncated layer", "x:1", of(layerDigest, func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", strconv.Itoa(len(layer)))
			_, _ = w.Write(layer[:len(layer)/2])
		}), "unexpected EOF", 3},
		{"layer that ends early", "x:1", of(layerDigest, func(w http.ResponseWriter) {
			_, _ = w.Write(layer[:len(layer)/2])
			w.(http.Flusher).Flush() // no Content-Length, a clean end
		}), "registry has sent " + strconv.Itoa(len(layer)/2) + " of the " + strconv.Itoa(len(layer)) + " bytes of a layer", 3},
		{"layer without end", "x:1", of(layerDigest, endless), "longer than the " + strconv.Itoa(len(layer)) + " bytes", 1},
		{"manifest without end", "x:1", of("1", endless), "cannot pull", 0},
		{"configuration without end", "x:1", of(configDigest, endless), "exceeded maximum allowed size", 0},
		{"configuration that is a layer too", "x:1", of("1", manifest(config)), "calls its own configuration a layer", 0},
		{"layer of a negative size", "x:1", of("1", manifest(ocispec.Descriptor{Digest: digest.Digest(layerDigest), Size: -1})), "a size of -1 bytes", 0},
		{"500 for a layer", "x:1", of(layerDigest, func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }), "500", 3},
		{"500 for a manifest", "x:1", of("1", func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }), "500", 0},
		{"layer that is gone", "x:1", of(layerDigest, func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }), "cannot pull", 1},
		{"redirects in a circle", "x:1", of(layerDigest, func(w http.ResponseWriter) {
			w.Header().Set("Location", "/v2/x/blobs/"+layerDigest)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}), "stopped after 10 redirects", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r.behave(tc.answer)
			_, err := pull(t, s, r.host+"/"+tc.ref, PullOptions{})
			assert.ErrorContains(t, err, tc.want)
			t.Log(err)
			if tc.attempts > 0 {
				assert.Check(t, r.count(layerDigest) >= tc.attempts && r.count(layerDigest) <= 2*tc.attempts, "%d attempts", r.count(layerDigest))
			}
			images, err := s.storage.Images()
			assert.NilError(t, err)
			assert.Equal(t, len(images), 0)
			assert.NilError(t, s.gate.sweep())
			assertEmpty(t, s)
		})
	}
	r.behave(nil)
	_, err := pull(t, s, r.host+"/x:1", PullOptions{})
	assert.NilError(t, err)
	assertClean(t, s)
}

// A download that fails is tried again, as often as is configured, and the client sees it.
func TestPullTriesAgain(t *testing.T) {
	r := startHostile(t)
	img := simpleImage(t, strings.Repeat("content ", 1<<17))
	r.push(t, "x", "1", img)
	layer := gzipped(t, img.layers[0])
	name := digest.FromBytes(layer).String()
	s := openHasty(t)
	fails := 0
	r.behave(func(w http.ResponseWriter, req *http.Request, honest http.Handler) {
		switch {
		case path.Base(req.URL.Path) != name || fails == 2:
			honest.ServeHTTP(w, req)
		case fails == 0:
			fails++
			w.WriteHeader(http.StatusServiceUnavailable)
		default: // the half of it, without a length, so that only lrd can know
			fails++
			_, _ = w.Write(layer[:len(layer)/2])
			w.(http.Flusher).Flush()
		}
	})
	told, err := pull(t, s, r.host+"/x:1", PullOptions{})
	assert.NilError(t, err)
	assert.Equal(t, strings.Count(told, name[7:19]+": Retrying in "), 2, told)
	assert.Equal(t, r.count(name), 3)
	got, err := s.Resolve(t.Context(), r.host+"/x:1")
	assert.NilError(t, err)
	assert.Equal(t, got.ID, img.id(t))
	assertClean(t, s)

	assert.Equal(t, retryPause(2), time.Second)
	assert.Equal(t, retryPause(3), 2*time.Second)
	assert.Equal(t, retryPause(100), 30*time.Second)
}

// The layers that an interrupted pull has got are not fetched again: after a
// failure, a client that goes away, and a crash. Another day, or with a prune, they go.
func TestPullIsTakenUpAgain(t *testing.T) {
	r := startHostile(t)
	img := simpleImage(t, "0")
	img.layers = append(img.layers, tarball(t, file{name: "1", body: "1"}), tarball(t, file{name: "2", body: "2"}))
	r.push(t, "x", "1", img)
	names := []string{}
	for _, l := range img.layers {
		names = append(names, digest.FromBytes(gzipped(t, l)).String())
	}
	s := openHasty(t)
	s.opts.MaxDownloads = 1 // in order
	ctx, cancel := context.WithCancel(t.Context())
	lastFails := func(w http.ResponseWriter, req *http.Request, honest http.Handler) {
		if path.Base(req.URL.Path) == names[2] {
			// The lower ones are stored while this one is waited for.
			for len(layersOf(t, s)) < 2 {
				time.Sleep(time.Millisecond)
			}
			cancel()
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		honest.ServeHTTP(w, req)
	}
	interrupt := func() {
		t.Helper()
		r.behave(lastFails)
		assert.Assert(t, s.Pull(ctx, r.host+"/x:1", PullOptions{}, nil) != nil)
		assert.Equal(t, len(layersOf(t, s)), 2)
	}
	interrupt()
	assert.Assert(t, ctx.Err() != nil)

	// A refused archive and a new start clean up, but not these.
	assert.Assert(t, errdefs.IsInvalidArgument(s.Load(t.Context(), bytes.NewReader(dockerArchive(t, []testImage{{
		layers: img.layers[:1], diffIDs: []digest.Digest{digest.FromString("else")},
	}})), nil)))
	s = reopen(t, s, s.opts.RunRoot)
	s.pause = func(int) time.Duration { return 0 }
	assert.Equal(t, len(layersOf(t, s)), 2)

	r.behave(nil)
	told, err := pull(t, s, r.host+"/x:1", PullOptions{})
	assert.NilError(t, err)
	assert.Equal(t, strings.Count(told, "Already exists"), 2, told)
	assert.DeepEqual(t, []int{r.count(names[0]), r.count(names[1]), r.count(names[2])}, []int{0, 0, 1})
	assertClean(t, s)

	_, err = s.Remove(t.Context(), r.host+"/x:1", false, nil)
	assert.NilError(t, err)
	ctx = t.Context()
	s.opts.MaxDownloadAttempts, s.opts.MaxDownloads = 1, 1
	interrupt()
	report, err := s.Prune(t.Context(), nil, func(string) (string, bool, bool) { return "", false, false })
	assert.NilError(t, err)
	assert.Assert(t, report.SpaceReclaimed > 0)
	assertEmpty(t, s)

	interrupt()
	noted, err := s.notedLayers(keepInterrupted)
	assert.NilError(t, err)
	assert.Equal(t, len(noted), 3)
	assert.NilError(t, s.notePull(img.id(t), pullNote{Since: time.Now().Add(-keepInterrupted), Layers: []digest.Digest{digest.FromBytes(img.layers[0])}}))
	s = reopen(t, s, s.opts.RunRoot)
	assertEmpty(t, s)
}

func layersOf(t *testing.T, s *Store) map[string]bool {
	layers, err := s.layersByID()
	assert.Check(t, is.Nil(err))
	ids := map[string]bool{}
	for id := range layers {
		ids[id] = true
	}
	return ids
}
