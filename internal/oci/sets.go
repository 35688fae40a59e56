package oci

import (
	"slices"
	"strconv"
	"strings"
)

// maxSetNumber bounds the numbers of a set: far above the kernel's own limits
// (8192 processors, 1024 nodes) and low enough for a mask in memory.
const maxSetNumber = 1 << 14

// parseSet reads the kernel's list form of processors or nodes ("0-3,7", see
// cpuset(7)); "" is no set at all.
func parseSet(list string) ([]int, error) {
	list = strings.TrimSpace(list)
	if list == "" {
		return nil, nil
	}
	seen := map[int]bool{}
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := setNumber(first)
		if err != nil {
			return nil, err
		}
		to := from
		if isRange {
			if to, err = setNumber(last); err != nil {
				return nil, err
			}
		}
		if to < from {
			return nil, invalid("invalid range %q", part)
		}
		for n := from; n <= to; n++ {
			seen[n] = true
		}
	}
	numbers := make([]int, 0, len(seen))
	for n := range seen {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers, nil
}

func setNumber(s string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 31)
	if err != nil || n > maxSetNumber {
		return 0, invalid("invalid number %q", s)
	}
	return int(n), nil
}

// checkSet refuses a set that is malformed or that names what this host does
// not have. what is the word for the message ("cpuset cpus"), noun for its
// members ("CPUs").
func checkSet(asked, available, what, noun string) error {
	numbers, err := parseSet(asked)
	if err != nil {
		return invalid("Invalid value %s for %s", asked, what)
	}
	if have, err := parseSet(available); err == nil && len(have) > 0 {
		for _, n := range numbers {
			if !slices.Contains(have, n) {
				return invalid("Requested %s are not available - requested %s, available: %s", noun, asked, available)
			}
		}
	}
	return nil
}
