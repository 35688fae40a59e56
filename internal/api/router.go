package api

import (
	"net/http"
	"slices"
	"strings"
)

// find returns the first row for this method and path, and what its pattern's name stands for. If there is
// none, allowed are the methods that the path has.
func find(method, path string) (found *route, vars map[string]string, allowed []string) {
	got := segments(path)
	for i := range routes {
		r := &routes[i]
		v, ok := match(patterns[i], got)
		switch {
		case !ok:
		case r.method == method:
			return r, v, nil
		case !slices.Contains(allowed, r.method):
			allowed = append(allowed, r.method)
		}
	}
	return nil, nil, allowed
}

// patterns are those of routes in segments: every request is compared with most of them.
var patterns = func() [][]string {
	all := make([][]string, len(routes))
	for i, r := range routes {
		all[i] = segments(r.pattern)
	}
	return all
}()

func segments(path string) []string { return strings.Split(strings.TrimPrefix(path, "/"), "/") }

// match compares a path with a pattern, both in segments. There is at most one name in a pattern; a {name...} takes all
// segments that the others leave it.
func match(want, got []string) (vars map[string]string, ok bool) {
	name, value, rest := "", "", len(got)-len(want)+1
	for _, w := range want {
		take := 1
		if n, many := strings.CutSuffix(w, "...}"); many {
			w, take = n+"}", rest
		}
		if take < 1 || take > len(got) {
			return nil, false
		}
		switch {
		case w[0] == '{':
			name, value = w[1:len(w)-1], strings.Join(got[:take], "/")
			if value == "" {
				return nil, false
			}
		case w != got[0]:
			return nil, false
		}
		got = got[take:]
	}
	switch {
	case len(got) > 0:
		return nil, false
	case name == "":
		return nil, true
	}
	return map[string]string{name: value}, true
}

// missing is the handler of what Docker has and lrd has not.
func missing(sentence string) func(*Server, http.ResponseWriter, *request) error {
	return func(*Server, http.ResponseWriter, *request) error {
		return notImplemented(sentence)
	}
}
