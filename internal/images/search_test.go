package images

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// A registry has a search of its own, or a list of all that it has, or neither.
func TestSearch(t *testing.T) {
	s := openStore(t, nil)
	r := startRegistry(t, nil)
	for _, name := range []string{"tools/web", "web", "db"} {
		r.push(t, name, "1", testImage{})
	}
	names := func(found []registry.SearchResult) (names []string) {
		for _, f := range found {
			names = append(names, f.Name)
		}
		return names
	}
	found, err := s.Search(t.Context(), r.host+"/web", 25, nil)
	assert.NilError(t, err)
	assert.DeepEqual(t, names(found), []string{"web", "tools/web"})
	found, err = s.Search(t.Context(), r.host+"/web", 1, nil)
	assert.NilError(t, err)
	assert.Equal(t, len(found), 1)
	found, err = s.Search(t.Context(), r.host+"/nosuch", 25, nil)
	assert.NilError(t, err)
	assert.DeepEqual(t, found, []registry.SearchResult{})

	asked := ""
	r = startRegistry(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path != "/v1/search" {
				next.ServeHTTP(w, req)
				return
			}
			asked = req.URL.RawQuery
			_, _ = io.WriteString(w, `{"results": [{"name": "a/web", "description": "pages", "star_count": 7, "is_official": true}, {"name": "b/web"}]}`)
		})
	})
	found, err = s.Search(t.Context(), r.host+"/web", 1, nil)
	assert.NilError(t, err)
	assert.DeepEqual(t, found, []registry.SearchResult{{Name: "a/web", Description: "pages", StarCount: 7, IsOfficial: true}})
	assert.Equal(t, asked, "n=1&q=web")

	r = startRegistry(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}`)
		})
	})
	_, err = s.Search(t.Context(), r.host+"/web", 1, nil)
	assert.Check(t, is.ErrorIs(err, errdefs.ErrUnauthenticated), "%v", err)
	_, err = s.Search(t.Context(), "http://"+r.host+"/web", 1, nil)
	assert.Check(t, is.ErrorIs(err, errdefs.ErrInvalidArgument))
}

func TestSearchTerm(t *testing.T) {
	for term, want := range map[string]string{
		"web": "docker.io web", "me/web": "docker.io me/web", "docker.io/me/web": "docker.io me/web", "index.docker.io/web": "docker.io web",
		"localhost/web": "localhost web", "example.com/a/web": "example.com a/web", "host:5000/web": "host:5000 web",
	} {
		host, name, err := searchTerm(term)
		assert.NilError(t, err)
		assert.Check(t, is.Equal(strings.Join([]string{host, name}, " "), want))
	}
}
