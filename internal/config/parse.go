package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// parseTOML makes a tree of nodes with their lines out of the text of a file.
func parseTOML(data string) (root *node, bad *Error) {
	// A panic of the parser's own is a bug there, but at a reload it would take the daemon down for a typing mistake.
	defer func() {
		if p := recover(); p != nil {
			root, bad = nil, &Error{Origin: Origin{Line: 1}, Problem: fmt.Sprintf("cannot parse this as TOML: %v", p)}
		}
	}()
	var prims map[string]toml.Primitive
	md, err := toml.Decode(data, &prims)
	if err != nil {
		return nil, syntaxError(data, err)
	}
	t := tree{md: &md, data: data}
	return &node{table: t.children(prims)}, nil
}

// syntaxError tells what the parser found. A key that is defined twice is the commonest of its findings, and the
// first place is what a person then looks for.
func syntaxError(data string, err error) *Error {
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return &Error{Origin: Origin{Line: 1}, Problem: err.Error()}
	}
	e := &Error{
		Origin: Origin{Line: max(1, pe.Position.Line)}, Key: pe.LastKey,
		Problem: strings.TrimSuffix(pe.Message, "."), Want: "valid TOML, see https://toml.io",
	}
	if e.Key == "" {
		e.Key = keyOfLine(data, e.Origin.Line)
	}
	if first := firstDefinition(data, e.Key, e.Origin.Line); first > 0 {
		e.Problem += fmt.Sprintf(" (%s is set in line %d already)", e.Key, first)
		e.Want = "each key once in a file"
	}
	return e
}

// keyOfLine is the key that a line sets if it is right by itself: the parser does not name a table that is there twice.
func keyOfLine(data string, line int) string {
	var prims map[string]toml.Primitive
	lines := strings.Split(data, "\n")
	md, err := toml.Decode(lines[min(line, len(lines))-1], &prims)
	if err != nil || len(md.Keys()) == 0 {
		return ""
	}
	return md.Keys()[0].String()
}

// firstDefinition is the line above line in which key is defined, or 0.
func firstDefinition(data, key string, line int) int {
	above := strings.Join(strings.SplitAfter(data, "\n")[:min(line-1, strings.Count(data, "\n"))], "")
	var prims map[string]toml.Primitive
	md, err := toml.Decode(above, &prims)
	if err != nil {
		return 0
	}
	t := tree{md: &md, data: above}
	n := &node{table: t.children(prims)}
	for part := range strings.SplitSeq(key, ".") { // a quoted part with a dot is not found: it gets no hint
		if n = n.table[part]; n == nil {
			return 0
		}
	}
	return n.line
}

// tree turns what the library decoded into nodes.
type tree struct {
	md   *toml.MetaData
	data string
}

func (t tree) children(prims map[string]toml.Primitive) map[string]*node {
	out := make(map[string]*node, len(prims))
	for key, prim := range prims {
		out[key] = t.node(key, prim)
	}
	return out
}

func (t tree) node(key string, prim toml.Primitive) *node {
	n := &node{}
	n.value, n.line = t.locate(prim)
	if _, ok := n.value.(map[string]any); ok {
		var prims map[string]toml.Primitive
		// Decoding a table into a table of its own kind cannot fail.
		_ = t.md.PrimitiveDecode(prim, &prims)
		n.value, n.table = nil, t.children(prims)
	}
	// A table that only its children mention ("a.b = 1") has no line of its own: take the first of theirs.
	for _, child := range n.table {
		if n.line == 0 || child.line < n.line && !t.explicit(key, n.line) {
			n.line = child.line
		}
	}
	if n.line == 0 {
		n.line = t.grep(key)
	}
	return n
}

// explicit reports whether the line mentions the key, so that a table's own line is not given up for a child's.
func (t tree) explicit(key string, line int) bool {
	lines := strings.Split(t.data, "\n")
	return line <= len(lines) && strings.Contains(lines[line-1], key)
}

// grep is the last resort: the first line that holds the key's text, or 1.
func (t tree) grep(key string) int {
	before, _, ok := strings.Cut(t.data, key)
	if !ok {
		return 1
	}
	return 1 + strings.Count(before, "\n")
}

// locate gives a value and its line. The library keeps the lines of keys to itself, but puts them into the error
// when an Unmarshaler refuses: so we offer one that takes a look and refuses.
func (t tree) locate(prim toml.Primitive) (value any, line int) {
	l := &look{}
	var pe toml.ParseError
	if errors.As(t.md.PrimitiveDecode(prim, l), &pe) {
		line = pe.Position.Line
	}
	return l.value, line
}

type look struct{ value any }

var errLooked = errors.New("only looking")

// UnmarshalTOML implements [toml.Unmarshaler]; see tree.locate.
func (l *look) UnmarshalTOML(v any) error { l.value = v; return errLooked }
