package sessions

import (
	"errors"
	"fmt"
	"strings"
)

// DefaultDetachKeys leave an attached tty: ctrl-p ctrl-q.
var DefaultDetachKeys = []byte{16, 17}

// errDetach says that the detach keys were typed.
var errDetach = errors.New("detach keys")

// maxDetachKeys is more than anybody types to get out. What is typed of them is held back, and has to fit into a session's state.
const maxDetachKeys = 64

// ParseDetachKeys parses the form of `--detach-keys`: keys separated by commas, each one character, `DEL`, or
// `ctrl-` and one of a-z @ [ \ ] ^ _. The empty string stands for [DefaultDetachKeys].
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		return DefaultDetachKeys, nil
	}
	var keys []byte
	names := strings.Split(s, ",")
	if len(names) > maxDetachKeys {
		return nil, fmt.Errorf("invalid detach keys: they are %d, and %d at most", len(names), maxDetachKeys)
	}
	for _, name := range names {
		key, ok := parseKey(name)
		if !ok {
			return nil, fmt.Errorf("invalid detach keys (%s): unknown key %q, write one character, DEL, or ctrl- and one of a-z @ [ \\ ] ^ _", s, name)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func parseKey(name string) (key byte, ok bool) {
	switch {
	case len(name) == 1:
		return name[0], true
	case name == "DEL":
		return 0x7f, true
	}
	char, ok := strings.CutPrefix(name, "ctrl-")
	if !ok || len(char) != 1 {
		return 0, false
	}
	switch c := char[0]; {
	case c >= 'a' && c <= 'z':
		return c - 'a' + 1, true
	case c == '@':
		return 0, true
	case c >= '[' && c <= '_':
		return c - '[' + 27, true
	}
	return 0, false
}

// detector finds the detach keys in a stream of bytes that arrives in pieces of any size. Bytes that may be
// the beginning of the keys are held back until the next byte decides. It is the search of Knuth, Morris and
// Pratt, so that an attempt that fails half-way may be the beginning of the next.
type detector struct {
	keys []byte
	fall []int // fall[n]: how many bytes still match when n matched and the next does not
	n    int   // how many of keys are matched, and so held back
}

func newDetector(keys []byte) *detector {
	d := &detector{keys: keys, fall: make([]int, len(keys)+1)}
	for i, k := 1, 0; i < len(keys); i++ {
		for k > 0 && keys[i] != keys[k] {
			k = d.fall[k]
		}
		if keys[i] == keys[k] {
			k++
		}
		d.fall[i+1] = k
	}
	return d
}

// resume goes on where held bytes of the keys were typed.
func (d *detector) resume(held uint32) {
	if int(held) < len(d.keys) {
		d.n = int(held)
	}
}

// pass appends to out what of in is input for the container. It returns errDetach when the keys are complete;
// what follows them is dropped.
func (d *detector) pass(out, in []byte) ([]byte, error) {
	if len(d.keys) == 0 {
		return append(out, in...), nil
	}
	for _, b := range in {
		for d.n > 0 && b != d.keys[d.n] {
			out = append(out, d.keys[:d.n-d.fall[d.n]]...)
			d.n = d.fall[d.n]
		}
		if b != d.keys[d.n] {
			out = append(out, b)
			continue
		}
		d.n++
		if d.n == len(d.keys) {
			d.n = 0
			return out, errDetach
		}
	}
	return out, nil
}

// rest returns what is held back when no more input comes.
func (d *detector) rest() []byte {
	held := d.keys[:d.n]
	d.n = 0
	return held
}
