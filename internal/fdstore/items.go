package fdstore

import (
	"fmt"
	"iter"
	"os"
	"strings"
)

// checkItems finds out before anything is sent what would make part of it fail.
func checkItems(items []Item) error {
	for _, item := range items {
		if err := ValidName(item.Name); err != nil {
			return err
		}
		if item.File == nil {
			return fmt.Errorf("%s: %w", item.Name, os.ErrInvalid)
		}
	}
	return nil
}

// batches cuts items into runs of one name (a message has one FDNAME for all its descriptors) of at most maxBatch.
func batches(items []Item) iter.Seq[[]Item] {
	return func(yield func([]Item) bool) {
		for len(items) > 0 {
			n := 1
			for n < len(items) && n < maxBatch && items[n].Name == items[0].Name {
				n++
			}
			if !yield(items[:n]) {
				return
			}
			items = items[n:]
		}
	}
}

// describe names items for an error message, without naming hundreds.
func describe(items []Item) string {
	var names []string
	for _, item := range items {
		if len(names) == 0 || names[len(names)-1] != item.Name {
			names = append(names, item.Name)
		}
	}
	if len(items) == 1 {
		return "descriptor " + names[0]
	}
	return fmt.Sprintf("%d descriptors (%s)", len(items), short(names))
}

// short joins names, at most three of them.
func short(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}
