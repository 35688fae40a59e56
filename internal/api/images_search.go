package api

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/registry"

	"lrd/internal/containers"
)

// Docker's bounds of a search.
const (
	searchLimit    = 25 // without one
	maxSearchLimit = 100
)

func (s *Server) imageSearch(w http.ResponseWriter, r *request) error {
	q := r.query()
	f := q.filters("is-automated", "is-official", "stars")
	q.check(f, "is-automated", isBool)
	q.check(f, "is-official", isBool)
	q.check(f, "stars", isNumber)
	term, limit := q.text("term"), searchLimit
	if n := q.number("limit"); n != nil {
		limit = *n
	}
	switch {
	case term == "":
		q.fail("invalid value for term: it must not be empty")
	case limit < 1 || limit > maxSearchLimit:
		q.fail("limit %d is outside the range of [1, %d]", limit, maxSearchLimit)
	}
	if q.err != nil {
		return q.err
	}
	found, err := s.Images.Search(r.Context(), term, limit, credentials(r))
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, notNil(slices.DeleteFunc(found, func(r registry.SearchResult) bool { return !passesSearch(r, f) })))
}

// passesSearch: nothing is automated any more.
func passesSearch(r registry.SearchResult, f containers.Filters) bool {
	for stars := range f["stars"] {
		if n, err := strconv.Atoi(stars); err != nil || r.StarCount < n {
			return false
		}
	}
	return (len(f["is-official"]) == 0 || isTrue(f["is-official"]) == r.IsOfficial) && !isTrue(f["is-automated"])
}
