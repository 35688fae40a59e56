package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// node is a value as it was written: in a file, in daemon.json or in a flag.
type node struct {
	value any              // what TOML knows; nil for a table
	table map[string]*node // the entries of a table; nil for everything else
	line  int              // 0 outside files
}

// plain is the node's value for kinds that do not care about lines: a table becomes a map.
func (n *node) plain() any {
	if n.table == nil {
		return n.value
	}
	m := make(map[string]any, len(n.table))
	for k, v := range n.table {
		m[k] = v.plain()
	}
	return m
}

// binding ties a key to its field in Config. It is what the table of keys holds for each of them.
type binding interface {
	describe() (name, want string)
	// reset puts the default into c.
	reset(c *Config)
	// set lays n over what c has. origin is the origin of a node's line. On faults c is as before.
	set(c *Config, key string, n *node, origin func(line int) Origin) []fault
	// fromFlags makes what was given to a repeatable flag a node that set takes.
	fromFlags(values []string) (*node, error)
	// repeatable reports whether the flag may be given more than once.
	repeatable() bool
	// text is the value in c as TOML; equal texts are equal values.
	text(c *Config) string
	// entries is the same for a table, by entry; nil for what is none.
	entries(c *Config) map[string]string
	// copy takes the value of src over into dst.
	copy(dst, src *Config)
}

// single binds a key that has one value, which a later file replaces.
type single[T any] struct {
	kind  kind[T]
	field func(*Config) *T
	def   T
}

func (s single[T]) describe() (string, string)        { return s.kind.name, s.kind.want }
func (s single[T]) reset(c *Config)                   { *s.field(c) = s.def }
func (s single[T]) text(c *Config) string             { return s.kind.print(*s.field(c)) }
func (s single[T]) entries(*Config) map[string]string { return nil }
func (s single[T]) copy(dst, src *Config)             { *s.field(dst) = *s.field(src) }
func (s single[T]) repeatable() bool                  { return false }
func (s single[T]) fromFlags(vs []string) (*node, error) {
	if len(vs) != 1 {
		return nil, fmt.Errorf("given %d times", len(vs))
	}
	return &node{value: s.kind.flag(vs[0])}, nil
}

func (s single[T]) set(c *Config, key string, n *node, origin func(int) Origin) []fault {
	v, err := s.kind.parse(n.plain())
	if err != nil {
		return []fault{{line: n.line, problem: err.Error(), want: s.kind.want}}
	}
	*s.field(c) = v
	c.origins[key] = origin(n.line)
	return nil
}

// list binds a key that holds a list, which a later file replaces whole.
type list[T any] struct {
	kind  kind[T]
	field func(*Config) *[]T
}

func (l list[T]) describe() (string, string) {
	return "list of " + l.kind.name + "s", "a list, each " + l.kind.want
}
func (l list[T]) reset(c *Config)                   { *l.field(c) = nil }
func (l list[T]) entries(*Config) map[string]string { return nil }
func (l list[T]) copy(dst, src *Config)             { *l.field(dst) = *l.field(src) }
func (l list[T]) repeatable() bool                  { return true }

func (l list[T]) text(c *Config) string {
	items := make([]string, len(*l.field(c)))
	for i, v := range *l.field(c) {
		items[i] = l.kind.print(v)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

func (l list[T]) fromFlags(vs []string) (*node, error) {
	items := make([]any, len(vs))
	for i, v := range vs {
		items[i] = l.kind.flag(v)
	}
	return &node{value: items}, nil
}

func (l list[T]) set(c *Config, key string, n *node, origin func(int) Origin) []fault {
	items, ok := n.value.([]any)
	if !ok {
		_, want := l.describe()
		return []fault{{line: n.line, problem: wrongType(n.plain()).Error(), want: want}}
	}
	var faults []fault
	out := make([]T, 0, len(items))
	for _, item := range items {
		v, err := l.kind.parse(item)
		if err != nil {
			faults = append(faults, fault{line: n.line, problem: err.Error(), want: l.kind.want})
			continue
		}
		out = append(out, v)
	}
	if faults != nil {
		return faults
	}
	*l.field(c) = out
	c.origins[key] = origin(n.line)
	return nil
}

// entryKind is how the entries of a table are read and printed.
type entryKind[T any] struct {
	name  string // for the reference: "runtime"
	want  string // completes "right would be …"
	parse func(name string, n *node) (T, []fault)
	print func(T) string
}

// tableOf binds a key that holds a table, whose entries a later file adds to or replaces.
type tableOf[T any] struct {
	kind  entryKind[T]
	field func(*Config) *map[string]T
	def   map[string]T
}

func (t tableOf[T]) describe() (string, string) { return "table of " + t.kind.name + "s", t.kind.want }
func (t tableOf[T]) reset(c *Config)            { *t.field(c) = maps.Clone(t.def) }
func (t tableOf[T]) copy(dst, src *Config)      { *t.field(dst) = *t.field(src) }
func (t tableOf[T]) repeatable() bool           { return true }

func (t tableOf[T]) entries(c *Config) map[string]string {
	out := make(map[string]string, len(*t.field(c)))
	for name, v := range *t.field(c) {
		out[name] = t.kind.print(v)
	}
	return out
}

func (t tableOf[T]) text(c *Config) string {
	entries := t.entries(c)
	items := make([]string, 0, len(entries))
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		items = append(items, bareKey(name)+" = "+entries[name])
	}
	if len(items) == 0 {
		return "{}"
	}
	return "{ " + strings.Join(items, ", ") + " }"
}

// fromFlags takes NAME=VALUE, as Docker's --log-opt, --default-ulimit and --add-runtime do.
func (t tableOf[T]) fromFlags(vs []string) (*node, error) {
	n := &node{table: map[string]*node{}}
	for _, v := range vs {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s is not NAME=VALUE", quote(v))
		}
		if _, twice := n.table[name]; twice {
			return nil, fmt.Errorf("%s is given twice", quote(name))
		}
		n.table[name] = &node{value: value}
	}
	return n, nil
}

func (t tableOf[T]) set(c *Config, key string, n *node, origin func(int) Origin) []fault {
	if n.table == nil {
		return []fault{{line: n.line, problem: wrongType(n.plain()).Error(), want: "a table, each entry " + t.kind.want}}
	}
	var faults []fault
	merged := maps.Clone(*t.field(c))
	if merged == nil {
		merged = map[string]T{}
	}
	for _, name := range slices.Sorted(maps.Keys(n.table)) {
		v, fs := t.kind.parse(name, n.table[name])
		for i := range fs {
			fs[i].below = "." + bareKey(name) + fs[i].below
			if fs[i].line == 0 {
				fs[i].line = n.table[name].line
			}
			if fs[i].want == "" {
				fs[i].want = t.kind.want
			}
		}
		faults = append(faults, fs...)
		merged[name] = v
	}
	if faults != nil {
		return faults
	}
	*t.field(c) = merged
	c.origins[key] = origin(n.line)
	for name, e := range n.table {
		c.origins[key+"."+name] = origin(e.line)
	}
	return nil
}

// bareKey writes a TOML key, quoted where TOML wants it.
func bareKey(s string) string {
	bare := s != ""
	for _, r := range s {
		if r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			bare = false
		}
	}
	if bare {
		return s
	}
	return quote(s)
}
