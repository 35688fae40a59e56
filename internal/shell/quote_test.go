package shell

import (
	"os/exec"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// TestQuoteAll: sh reads back what was quoted.
func TestQuoteAll(t *testing.T) {
	words := []string{"", "plain", "two words", "it's", "''", `"$HOME" \ ` + "`id`", "a\nb", "-n", "*", "ä~#;&|<>"}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `printf '%s\0' `+QuoteAll(words)).Output()
	assert.NilError(t, err)
	assert.DeepEqual(t, strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"), words)
}
