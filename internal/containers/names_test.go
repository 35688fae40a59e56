package containers

import (
	"slices"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestWordsOfNames(t *testing.T) {
	for _, words := range [][]string{adjectives, things} {
		assert.Check(t, len(words) <= 64)
		assert.Check(t, slices.IsSorted(words))
		assert.Check(t, is.Len(slices.Compact(slices.Clone(words)), len(words)), "a word is there twice")
		for _, w := range words {
			assert.Check(t, is.Regexp(`^[a-z]+$`, w))
		}
	}
}

func TestNewNameIsFreeAndValid(t *testing.T) {
	taken := map[string]bool{}
	// More than there are pairs of words, so that numbers are needed too.
	for range len(adjectives)*len(things) + 100 {
		name := newName(func(name string) bool { return taken[name] })
		assert.Assert(t, !taken[name], name)
		assert.Assert(t, nameForm.MatchString(name), name)
		taken[name] = true
	}
}

func TestNewNameAvoidsNumbers(t *testing.T) {
	tried := 0
	name := newName(func(string) bool { tried++; return tried < plainNames })
	assert.Check(t, is.Regexp(`^[a-z]+_[a-z]+$`, name))
	name = newName(func(string) bool { tried++; return tried < 3*plainNames })
	assert.Check(t, is.Regexp(`^[a-z]+_[a-z]+[0-9]+$`, name))
}
