package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	eventtypes "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"
)

func TestClientPushes(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	for _, tc := range []struct {
		ref, want string
		all, asks bool
	}{
		{ref: "example/bb:1", want: "example/bb:1"},
		{ref: "reg.example:5000/a/b/c:d", want: "reg.example:5000/a/b/c:d"},
		{ref: "example/bb", want: "example/bb", asks: true, all: true},
		{ref: "example/bb", want: "example/bb:latest"},
	} {
		r, err := c.ImagePush(t.Context(), tc.ref, client.ImagePushOptions{All: tc.asks, RegistryAuth: "eyJ1c2VybmFtZSI6InUifQ=="})
		assert.NilError(t, err)
		body, err := io.ReadAll(r)
		assert.NilError(t, err)
		assert.NilError(t, r.Close())
		assert.Check(t, is.Contains(string(body), "The push refers to repository [x]"))
		assert.Equal(t, w.images.ref, tc.want)
		assert.Equal(t, w.images.all, tc.all)
		assert.Equal(t, w.images.auth.Username, "u")
	}
}

// An archive that stops in the middle is an error to whoever reads it; one that never began says why.
func TestClientSaves(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	r, err := c.ImageSave(t.Context(), []string{"a:1", "b"})
	assert.NilError(t, err)
	body, err := io.ReadAll(r)
	assert.NilError(t, err)
	assert.NilError(t, r.Close())
	assert.Equal(t, w.images.ref, "a:1 b")
	assert.Equal(t, len(body), len("archive ")*2000)

	w.images.failure = errors.New("the disk is gone")
	r, err = c.ImageSave(t.Context(), []string{"a:1"})
	assert.NilError(t, err)
	_, err = io.ReadAll(r)
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.NilError(t, r.Close())
}

// A daemon that goes waits neither for a client that does not read nor for one that does not send.
func TestTransfersEndWithTheDaemon(t *testing.T) {
	w := newWorld(t).serve(t)
	w.images.endless = true
	r, err := w.client(t).ImageSave(t.Context(), []string{"a:1"})
	assert.NilError(t, err)
	body, send := io.Pipe()
	defer send.Close()
	loaded := make(chan string, 1)
	go func() {
		resp, err := w.http.Post("http://lrd/images/load", "application/x-tar", body)
		if err != nil {
			loaded <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		loaded <- resp.Status + " " + string(text)
	}()
	_, err = io.WriteString(send, "the beginning of an archive")
	assert.NilError(t, err)
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if n := w.InFlight(); n != 2 {
			return poll.Continue("%d requests", n)
		}
		return poll.Success()
	}, poll.WithTimeout(time.Minute))

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	assert.NilError(t, <-w.shut(ctx))
	answer := <-loaded
	assert.Check(t, is.Contains(answer, "503"))
	assert.Check(t, is.Contains(answer, errLeaving.Error()))
	_, err = io.Copy(io.Discard, r)
	assert.Check(t, err != nil)
	assert.NilError(t, r.Close())
}

func TestClientIsToldWhyNothingIsSaved(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	w.images.failure, w.images.early = errors.New("the disk is gone"), true
	_, err := c.ImageSave(t.Context(), []string{"a:1"})
	assert.ErrorContains(t, err, "the disk is gone")

	w.images.failure, w.images.early = nil, false
	resp, err := w.http.Get("http://lrd/v1.41/images/reg.example:5000/a/b:1/get")
	assert.NilError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, w.images.ref, "reg.example:5000/a/b:1")
	assert.Equal(t, resp.Header.Get("Content-Type"), "application/x-tar")
}

func TestClientPrunesAndAsksRegistries(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	report, err := c.ImagePrune(t.Context(), client.ImagePruneOptions{Filters: make(client.Filters).Add("dangling", "false")})
	assert.NilError(t, err)
	assert.Equal(t, report.Report.SpaceReclaimed, uint64(7))
	assert.Assert(t, w.images.filters["dangling"]["false"])
	past := c.Events(t.Context(), client.EventsListOptions{Since: "1", Until: time.Now().Format(time.RFC3339Nano), Filters: client.Filters{}.Add("event", "prune")})
	m := <-past.Messages
	assert.Equal(t, m.Type, eventtypes.ImageEventType)
	assert.Equal(t, m.Actor.Attributes["reclaimed"], "7")

	build, err := c.BuildCachePrune(t.Context(), client.BuildCachePruneOptions{})
	assert.NilError(t, err)
	assert.Equal(t, len(build.Report.CachesDeleted), 0)

	found, err := c.DistributionInspect(t.Context(), "example/bb:1", client.DistributionInspectOptions{EncodedRegistryAuth: "eyJ1c2VybmFtZSI6InUifQ=="})
	assert.NilError(t, err)
	assert.Equal(t, found.Descriptor.Digest.String(), "sha256:d1")
	assert.Equal(t, w.images.ref, "example/bb:1")
	assert.Equal(t, w.images.auth.Username, "u")

	resp, err := w.http.Post("http://lrd/v1.41/auth", "application/json", strings.NewReader(`{"username":"u","password":"p"}`))
	assert.NilError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, resp.StatusCode, http.StatusOK)
}

// Clients name platforms in two forms. An image of another one is not shown, sent or removed in its place.
func TestClientNamesPlatforms(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	own, other := ocispec.Platform{OS: "linux", Architecture: goArch}, ocispec.Platform{OS: "linux", Architecture: "mips"}
	r, err := c.ImageSave(t.Context(), []string{"busybox"}, client.ImageSaveWithPlatforms(other))
	assert.NilError(t, err)
	assert.NilError(t, r.Close())
	assert.DeepEqual(t, w.images.platform, &other)
	_, err = c.ImageSave(t.Context(), []string{"busybox"}, client.ImageSaveWithPlatforms(own, other))
	assert.ErrorContains(t, err, "lrd keeps one platform of an image")
	_, err = c.ImagePush(t.Context(), "busybox:1", client.ImagePushOptions{Platform: &other})
	assert.NilError(t, err)
	assert.DeepEqual(t, w.images.platform, &other)

	_, err = c.ImageInspect(t.Context(), "busybox", client.ImageInspectWithPlatform(&own))
	assert.NilError(t, err)
	_, err = c.ImageInspect(t.Context(), "busybox", client.ImageInspectWithPlatform(&other))
	assert.ErrorContains(t, err, "does not match the specified platform (linux/mips)")
	assert.Check(t, is.ErrorIs(err, errdefs.ErrNotFound))
	_, err = c.ImageHistory(t.Context(), "busybox", client.ImageHistoryWithPlatform(other))
	assert.ErrorContains(t, err, "linux/mips")
	_, err = c.ImageRemove(t.Context(), "busybox", client.ImageRemoveOptions{Platforms: []ocispec.Platform{other}})
	assert.ErrorContains(t, err, "linux/mips")
	_, err = c.ImageRemove(t.Context(), "busybox", client.ImageRemoveOptions{Platforms: []ocispec.Platform{other, own}})
	assert.NilError(t, err)

	_, err = c.ImageLoad(t.Context(), strings.NewReader("tar"), client.ImageLoadWithPlatforms(other))
	assert.ErrorContains(t, err, "lrd loads what an archive has for this machine")
	_, err = c.ImageLoad(t.Context(), strings.NewReader("tar"), client.ImageLoadWithPlatforms(own))
	assert.NilError(t, err)
	for _, wrong := range []string{"{", `{"os":"linux"}`, "a//b"} {
		rec := w.do("GET", "/images/busybox/json?platform="+url.QueryEscape(wrong), "")
		assert.Check(t, is.Equal(rec.Code, http.StatusBadRequest), wrong)
	}
}

func TestClientSearches(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	found, err := c.ImageSearch(t.Context(), "busybox", client.ImageSearchOptions{RegistryAuth: "eyJ1c2VybmFtZSI6InUifQ=="})
	assert.NilError(t, err)
	assert.Equal(t, len(found.Items), 2)
	assert.Equal(t, w.images.ref, "busybox 25")
	assert.Equal(t, w.images.auth.Username, "u")
	for filter, want := range map[string]int{"stars=3": 1, "is-official=true": 1, "is-official=false": 1, "is-automated=true": 0, "is-automated=false": 2} {
		key, value, _ := strings.Cut(filter, "=")
		found, err := c.ImageSearch(t.Context(), "busybox", client.ImageSearchOptions{Limit: 3, Filters: client.Filters{}.Add(key, value)})
		assert.NilError(t, err)
		assert.Check(t, is.Len(found.Items, want), filter)
	}
	assert.Equal(t, w.images.ref, "busybox 3")
}

func TestClientImportsFromAnAddress(t *testing.T) {
	w := newWorld(t).serve(t)
	c := w.client(t)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/root.tar" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, "a root filesystem")
	}))
	defer site.Close()
	for _, address := range []string{site.URL + "/root.tar", strings.TrimPrefix(site.URL, "http://") + "/root.tar"} {
		r, err := c.ImageImport(t.Context(), client.ImageImportSource{SourceName: address}, "web:1", client.ImageImportOptions{})
		assert.NilError(t, err)
		said, err := io.ReadAll(r)
		assert.NilError(t, err)
		assert.NilError(t, r.Close())
		assert.Check(t, is.Contains(string(said), "Downloading from "+address))
		assert.Check(t, is.Equal(string(w.images.imported), "a root filesystem"))
	}
	_, err := c.ImageImport(t.Context(), client.ImageImportSource{SourceName: site.URL + "/nothing"}, "", client.ImageImportOptions{})
	assert.Check(t, is.ErrorContains(err, "/nothing answers 404 Not Found"))
	_, err = c.ImageImport(t.Context(), client.ImageImportSource{SourceName: "ftp://example.com/root.tar"}, "", client.ImageImportOptions{})
	assert.Check(t, is.ErrorContains(err, "neither - nor an address of http or https"))
}
