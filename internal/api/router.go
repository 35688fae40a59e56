package api

import (
	"net/http"
	"slices"
	"strings"
)

// find returns the first row for this method and path, and what its pattern's names stand for. If there is
// none, allowed are the methods that the path has.
func find(method, path string) (found *route, vars map[string]string, allowed []string) {
	for i := range routes {
		r := &routes[i]
		v, ok := match(r.pattern, path)
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

// match compares a path with a pattern. A {name...} takes as many segments as leave enough for what follows
// it; there is at most one in a pattern.
func match(pattern, path string) (vars map[string]string, ok bool) {
	want := strings.Split(strings.TrimPrefix(pattern, "/"), "/")
	got := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, w := range want {
		name, isVar := strings.CutPrefix(w, "{")
		if !isVar {
			if len(got) == 0 || got[0] != w {
				return nil, false
			}
			got = got[1:]
			continue
		}
		name, many := strings.CutSuffix(strings.TrimSuffix(name, "}"), "...")
		take := 1
		if many {
			take = len(got) - (len(want) - i - 1)
		}
		if take < 1 || take > len(got) {
			return nil, false
		}
		value := strings.Join(got[:take], "/")
		if value == "" {
			return nil, false
		}
		if vars == nil {
			vars = make(map[string]string, 1)
		}
		vars[name] = value
		got = got[take:]
	}
	return vars, len(got) == 0
}

// missing is the handler of what Docker has and lrd has not.
func missing(sentence string) func(*Server, http.ResponseWriter, *request) error {
	return func(*Server, http.ResponseWriter, *request) error {
		return notImplemented(sentence)
	}
}
