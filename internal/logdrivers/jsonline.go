package logdrivers

import (
	"encoding/binary"
	"math/bits"
	"time"
	"unicode/utf8"
)

// A jsonEncoder writes entries as Docker's json-file driver does:
//
//	{"log":"…\n","stream":"stdout","attrs":{…},"time":"2006-01-02T15:04:05.999999999Z"}
//
// A piece of a line that goes on has no \n at its end. attrs is there only if the log options chose something.
type jsonEncoder struct {
	middle [2]string // between the line and the time, by stream

	at   time.Time // of the entry before: those that arrived together have one time
	tail []byte    // that time, to the end of the line
}

func newJSONEncoder(attrs []byte) *jsonEncoder {
	j := &jsonEncoder{}
	for i, stream := range []string{"stdout", "stderr"} {
		j.middle[i] = `,"stream":"` + stream + `",`
		if len(attrs) > 0 {
			j.middle[i] += `"attrs":` + string(attrs) + `,`
		}
		j.middle[i] += `"time":"`
	}
	return j
}

func (j *jsonEncoder) append(b []byte, e *entry) []byte {
	if len(e.line) == 0 && e.more {
		b = append(b, `{`...) // never made by the splitter; Docker leaves "log" out
		b = append(b, j.middle[e.stream-1][1:]...)
		return append(b, j.time(e.time)...)
	}
	b = append(b, `{"log":"`...)
	b = appendEscaped(b, e.line)
	if !e.more {
		b = append(b, `\n`...)
	}
	b = append(b, '"')
	b = append(b, j.middle[e.stream-1]...)
	return append(b, j.time(e.time)...)
}

// time is the end of an entry.
func (j *jsonEncoder) time(t time.Time) []byte {
	if j.tail == nil || !t.Equal(j.at) {
		j.at = t
		j.tail = append(t.UTC().AppendFormat(j.tail[:0], time.RFC3339Nano), "\"}\n"...)
	}
	return j.tail
}

// plain are the bytes that stand for themselves in a string: not what JSON
// escapes, nor what is dangerous in HTML, which Docker escapes too.
var plain = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = true
	}
	for _, c := range `"\<>&` {
		t[c] = false
	}
	return t
}()

// plainPrefix is how many bytes at the beginning of s are known to be plain, eight at a time.
func plainPrefix(s []byte) int {
	const (
		each = 0x0101010101010101
		high = 0x80 * each
	)
	n := 0
	for ; len(s)-n >= 8; n += 8 {
		// A byte's high bit comes out set where it was, or where a subtraction makes the byte negative. That carries over
		// into the bytes above, so the lowest is what counts. <, > and ", & differ in one bit each.
		x := binary.LittleEndian.Uint64(s[n:])
		found := x | (x - ' '*each) | ((x ^ '\\'*each) - each) |
			(((x | ('<'^'>')*each) ^ '>'*each) - each) | (((x | ('"'^'&')*each) ^ '&'*each) - each)
		if found &= high; found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	return n
}

// appendEscaped appends s as the inside of a JSON string. What is not UTF-8 becomes \ufffd, as with Docker; the bytes themselves
// are in the store.
func appendEscaped(b, s []byte) []byte {
	const hex = "0123456789abcdef"
	start := 0
	for i := 0; i < len(s); {
		if i += plainPrefix(s[i:]); i == len(s) {
			break
		}
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
			start = i + size
		case r == '\u2028', r == '\u2029': // ends of lines in JavaScript
			b = append(append(b, s[start:i]...), '\\', 'u', '2', '0', '2', hex[r&15])
			start = i + size
		}
		i += size
	}
	return append(b, s[start:]...)
}
