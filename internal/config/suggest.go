package config

import "strings"

// didYouMean is "; did you mean X?" for the name nearest to what somebody wrote, or empty where none is near.
// Case and the choice between - and _ do not count: they are the mistakes that people make.
func didYouMean(wrote string, names []string) string {
	norm := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }
	best, least := "", 1+min(3, len(wrote)/3)
	for _, name := range names {
		d := distance(norm(wrote), norm(name))
		if len(name) > 2 && strings.HasPrefix(norm(wrote), norm(name)) { // warning for warn, labels-x for labels
			d = min(d, 1)
		}
		if d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + bareKey(best) + "?"
}

// distance is the Levenshtein distance: how many characters must be put in, taken out or replaced.
// Names longer than any key are not measured: the answer would be "far" anyway.
func distance(a, b string) int {
	const tooLong = 64
	if len(a) > tooLong || len(b) > tooLong {
		return tooLong
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
