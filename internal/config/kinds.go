package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	units "github.com/docker/go-units"
)

// kind is how values of one Go type are read from a file, read from flags, checked and printed.
//
// parse gets what TOML knows: string, int64, float64, bool, time.Time, []any. flag gets the text of a flag and
// makes of it what parse takes. Both say in their error only what is wrong; what is right is want.
// print gives TOML that parse reads back as the same value: the text also decides whether two values are equal.
type kind[T any] struct {
	name  string // for the reference: "boolean", "size"
	want  string // completes "right would be …"
	flag  func(string) any
	parse func(any) (T, error)
	print func(T) string
}

// asText is the flag function of kinds that are written in a flag as in a TOML string.
func asText(s string) any { return s }

// asNumber makes a flag's text an integer where it is one, so that --mtu 1500 is no string.
func asNumber(s string) any {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	return s
}

var boolean = kind[bool]{
	name: "boolean",
	want: "true or false",
	flag: func(s string) any {
		if b, err := strconv.ParseBool(s); err == nil {
			return b
		}
		return s
	},
	parse: func(v any) (bool, error) {
		b, ok := v.(bool)
		if !ok {
			return false, wrongType(v)
		}
		return b, nil
	},
	print: strconv.FormatBool,
}

// integer is a whole number from lo to hi.
func integer(lo, hi int) kind[int] {
	return kind[int]{
		name: "integer",
		want: fmt.Sprintf("a whole number from %d to %d", lo, hi),
		flag: asNumber,
		parse: func(v any) (int, error) {
			n, ok := v.(int64)
			if !ok {
				return 0, wrongType(v)
			}
			if n < int64(lo) || n > int64(hi) {
				return 0, fmt.Errorf("%d is out of range", n)
			}
			return int(n), nil
		},
		print: strconv.Itoa,
	}
}

// size is a number of bytes from lo to hi; with zero, 0 is allowed too and means what the key says.
func size(lo, hi int64, zero bool) kind[int64] {
	want := fmt.Sprintf("a size from %s to %s: bytes as an integer, or a string like \"64m\" (b, k, m, g, t; powers of 1024)",
		strings.Trim(printSize(lo), `"`), strings.Trim(printSize(hi), `"`))
	if zero {
		want = "0 or " + want
	}
	return kind[int64]{
		name: "size",
		want: want,
		flag: asNumber,
		parse: func(v any) (int64, error) {
			n, err := parseSize(v)
			if err != nil {
				return 0, err
			}
			if allowed := lo <= n && n <= hi || zero && n == 0; !allowed {
				return 0, fmt.Errorf("%s is out of range", describe(v))
			}
			return n, nil
		},
		print: printSize,
	}
}

func parseSize(v any) (int64, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case string:
		n, err := units.RAMInBytes(strings.TrimSpace(v))
		if err != nil {
			return 0, fmt.Errorf("%s is not a size", describe(v))
		}
		return n, nil
	default:
		return 0, wrongType(v)
	}
}

// printSize prefers the largest unit that divides n, so that 64m stays 64m.
func printSize(n int64) string {
	suffix := ""
	for _, s := range []string{"k", "m", "g"} {
		if n == 0 || n%1024 != 0 {
			break
		}
		n, suffix = n/1024, s
	}
	if suffix == "" {
		return strconv.FormatInt(n, 10)
	}
	return quote(strconv.FormatInt(n, 10) + suffix)
}

// maxSeconds keeps a duration in seconds within what systemd and time.Duration both carry: about 31 years.
const maxSeconds = 1_000_000_000

var duration = kind[time.Duration]{
	name:  "duration",
	want:  `seconds as an integer, a string like "15s" or "1m30s", or -1 for ever`,
	flag:  asNumber,
	parse: parseDuration,
	print: func(d time.Duration) string {
		if d == Forever {
			return "-1"
		}
		return quote(d.String())
	},
}

func parseDuration(v any) (time.Duration, error) {
	switch v := v.(type) {
	case int64:
		if v == -1 {
			return Forever, nil
		}
		if v < 0 || v > maxSeconds {
			return 0, fmt.Errorf("%d is out of range", v)
		}
		return time.Duration(v) * time.Second, nil
	case string:
		d, err := time.ParseDuration(v)
		if err != nil {
			return 0, fmt.Errorf("%s is not a duration", describe(v))
		}
		if d < 0 || d > maxSeconds*time.Second {
			return 0, fmt.Errorf("%s is out of range", describe(v))
		}
		return d, nil
	default:
		return 0, wrongType(v)
	}
}

// text is a string that check accepts. want completes "right would be …".
func text(want string, check func(string) error) kind[string] {
	return kind[string]{
		name: "string",
		want: want,
		flag: asText,
		parse: func(v any) (string, error) {
			s, ok := v.(string)
			if !ok {
				return "", wrongType(v)
			}
			if !utf8.ValidString(s) { // TOML cannot carry it, a flag can
				return "", fmt.Errorf("%q is not valid UTF-8", s)
			}
			return s, check(s)
		},
		print: quote,
	}
}

// oneOf is a string out of a list.
func oneOf(values ...string) kind[string] {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quote(v)
	}
	want := strings.Join(quoted, ", ")
	if n := len(quoted); n > 1 {
		want = strings.Join(quoted[:n-1], ", ") + " or " + quoted[n-1]
	}
	return text(want, func(s string) error {
		if !slices.Contains(values, s) {
			return fmt.Errorf("%s is not known%s", quote(s), didYouMean(s, values))
		}
		return nil
	})
}

// via makes a kind of strings a kind of what parse makes of them.
func via[T any](k kind[string], parse func(string) (T, error), print func(T) string) kind[T] {
	return kind[T]{
		name: k.name, want: k.want, flag: k.flag,
		parse: func(v any) (T, error) {
			s, err := k.parse(v)
			if err != nil {
				var zero T
				return zero, err
			}
			return parse(s)
		},
		print: func(v T) string { return quote(print(v)) },
	}
}

// wrongType is the error for a value whose type is another one than the key's.
func wrongType(v any) error { return fmt.Errorf("%s has the wrong type", describe(v)) }

// describe names a value the way a person who wrote it recognises it.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return "the string " + quote(abbreviate(v))
	case int64:
		return "the integer " + strconv.FormatInt(v, 10)
	case float64:
		return "the fraction " + strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return "the boolean " + strconv.FormatBool(v)
	case time.Time:
		return "a date or time"
	case []any, []map[string]any:
		return "a list"
	case map[string]any:
		return "a table"
	default:
		return fmt.Sprintf("a %T", v)
	}
}

// abbreviate keeps an error on one screen when somebody pastes a certificate into a key.
func abbreviate(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// quote writes s as a TOML basic string. strconv.Quote would not do: it writes \x and \a, which TOML does not know.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < 0x20 || r == 0x7f || r > math.MaxUint16 && !strconv.IsPrint(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		case !strconv.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
