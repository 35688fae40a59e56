package api

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/containers"
)

// parseFilters reads the query's "filters" in both forms that clients write: {"key": {"value": true}} and the
// older {"key": ["value"]}. Only the keys in known may be there.
func (p *params) filters(known ...string) containers.Filters {
	f := containers.Filters{}
	text := p.values.Get("filters")
	if text == "" {
		return f
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		p.fail("invalid filters: %v", err)
		return f
	}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if !slices.Contains(known, key) {
			p.fail("invalid filter '%s'", key)
			return f
		}
		values, err := filterValues(raw[key])
		if err != nil {
			p.fail("invalid filter '%s': %v", key, err)
			return f
		}
		f[key] = values
	}
	return f
}

func filterValues(raw json.RawMessage) (map[string]bool, error) {
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		values := make(map[string]bool, len(list))
		for _, v := range list {
			values[v] = true
		}
		return values, nil
	}
	var values map[string]bool
	if err := json.Unmarshal(raw, &values); err != nil {
		return nil, invalid("it must be an object of booleans or a list of strings")
	}
	maps.DeleteFunc(values, func(_ string, set bool) bool { return !set })
	return values, nil
}

// check refuses the values of one filter that ok does not know.
func (p *params) check(f containers.Filters, key string, ok func(string) bool) {
	for v := range f[key] {
		if !ok(v) {
			p.fail("invalid filter '%s=%s'", key, v)
		}
	}
}

func isBool(s string) bool { _, err := strconv.ParseBool(s); return err == nil }

func isNumber(s string) bool { _, err := strconv.Atoi(s); return err == nil }

func isState(s string) bool {
	return container.ValidateContainerState(container.ContainerState(s)) == nil
}

func isHealth(s string) bool {
	return slices.Contains([]string{"starting", "healthy", "unhealthy", "none"}, s)
}
