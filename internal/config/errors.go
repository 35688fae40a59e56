package config

import (
	"cmp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// Error is one thing that is wrong with a configuration. It is an errdefs.ErrInvalidArgument.
type Error struct {
	Origin Origin // the file and line, or the flag, that says it
	// Key names the setting, for a table with its entry: "runtimes.crun.path". It is empty only where a file cannot
	// be read, or where its syntax breaks before any key.
	Key     string
	Problem string // what is wrong
	Want    string // what would be right; may be empty
}

// Error is one line: where, which key, what is wrong and what would be right.
func (e *Error) Error() string {
	var b strings.Builder
	if !e.Origin.IsDefault() {
		b.WriteString(e.Origin.String() + ": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Problem)
	if e.Want != "" {
		b.WriteString("; right would be " + e.Want)
	}
	return b.String()
}

// Is makes every Error an errdefs.ErrInvalidArgument.
func (e *Error) Is(target error) bool { return target == errdefs.ErrInvalidArgument }

// Errors is everything that is wrong with a configuration, in the order of the files and their lines.
type Errors []*Error

// Error has one line for each error.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the first Error and errors.Is its kind.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// sortWithin orders the errors of one file by line; equal lines keep their order.
func (es Errors) sortWithin() {
	slices.SortStableFunc(es, func(a, b *Error) int { return cmp.Compare(a.Origin.Line, b.Origin.Line) })
}

// fault is what a kind finds wrong with a node: the place is the node's, and the key is below the kind's own key.
type fault struct {
	line    int
	below   string // ".crun.path"; empty: the key itself
	problem string
	want    string
}
