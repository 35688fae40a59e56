package config

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// Print writes c as TOML that [Load] reads back as the same configuration, with the origin of each value in a comment.
func Print(w io.Writer, c *Config) error {
	return printKeys(w, c, table, func(name string) string { return "  # " + harmless(c.Origin(name).String()) })
}

// printKeys writes keys as TOML, tables last: in TOML everything below a [table] belongs to it.
func printKeys(w io.Writer, c *Config, keys []*Key, comment func(name string) string) error {
	var b strings.Builder
	for _, k := range keys {
		if k.entries(c) == nil {
			fmt.Fprintf(&b, "%s = %s%s\n", k.Name, k.text(c), comment(k.Name))
		}
	}
	for _, k := range keys {
		entries := k.entries(c)
		if entries == nil {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "[%s]\n", k.Name)
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			fmt.Fprintf(&b, "%s = %s%s\n", bareKey(name), entries[name], comment(k.Name+"."+name))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// harmless makes a path fit into a comment: a file's name may hold anything, also a newline.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
