package shell

import "strings"

// Quote makes s one word for sh: in single quotes, in which nothing but their end means anything (POSIX.1-2024, Shell Command Language, 2.2.2).
func Quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// QuoteAll makes a command line for sh of words.
func QuoteAll(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	return strings.Join(quoted, " ")
}
