package api

import (
	"strings"

	eventtypes "github.com/moby/moby/api/types/events"

	"lrd/internal/containers"
)

// eventMatcher returns the test for events of the filters of GET /events: values of one key are alternatives,
// keys must all fit.
func eventMatcher(f containers.Filters) func(eventtypes.Message) bool {
	if len(f) == 0 {
		return nil
	}
	return func(m eventtypes.Message) bool {
		for key, values := range f {
			if len(values) > 0 && !matchesAny(m, key, values) {
				return false
			}
		}
		return true
	}
}

func matchesAny(m eventtypes.Message, key string, values map[string]bool) bool {
	if key == "label" {
		return hasLabels(m.Actor.Attributes, values) // labels must all be there
	}
	for v := range values {
		if matchesOne(m, key, v) {
			return true
		}
	}
	return false
}

func matchesOne(m eventtypes.Message, key, value string) bool {
	name := m.Actor.Attributes["name"]
	switch key {
	case "type":
		return string(m.Type) == value
	case "scope":
		return m.Scope == value
	case "event":
		return matchesAction(m.Action, value)
	case "image":
		return matchesImage(m, value)
	case "daemon":
		return m.Type == eventtypes.DaemonEventType && (m.Actor.ID == value || name == value)
	}
	// The rest are types of events: the actor's ID or name begins with the value.
	return string(m.Type) == key && (strings.HasPrefix(m.Actor.ID, value) || strings.HasPrefix(name, value))
}

// matchesAction compares whole actions. One whose detail follows a colon ("exec_create: sh") is found without
// the detail too.
func matchesAction(a eventtypes.Action, value string) bool {
	if string(a) == value {
		return true
	}
	verb, _, detailed := strings.Cut(string(a), ":")
	return detailed && verb == value
}

// matchesImage finds events of an image, and of containers made from it, with or without the tag.
func matchesImage(m eventtypes.Message, value string) bool {
	if m.Type == eventtypes.ImageEventType && m.Actor.ID == value {
		return true
	}
	name := m.Actor.Attributes["name"]
	if m.Type != eventtypes.ImageEventType {
		name = m.Actor.Attributes["image"]
	}
	return name != "" && (name == value || withoutTag(name) == value)
}

// withoutTag takes :tag off a name, but not the port of a registry.
func withoutTag(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}

// hasLabels looks for "key" and "key=value" in the attributes, where events carry the labels.
func hasLabels(attributes map[string]string, wanted map[string]bool) bool {
	for label := range wanted {
		key, value, exact := strings.Cut(label, "=")
		got, ok := attributes[key]
		if !ok || exact && got != value {
			return false
		}
	}
	return true
}
