package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"lrd/internal/config"
)

// maxBody bounds a JSON body. The largest that makes sense, a create with every option, stays below a hundred
// kilobytes.
const maxBody = 4 << 20

// request is an HTTP request with what the wrappers found out about it.
type request struct {
	*http.Request
	version version
	vars    map[string]string
	config  *config.Config // in force when the request came
}

// decode reads the JSON body into v. An empty body leaves v as it is. Fields that v does not have are
// dropped: older clients send some.
func (r *request) decode(w http.ResponseWriter, v any) error {
	body := http.MaxBytesReader(w, r.Body, maxBody)
	if r.ContentLength == 0 {
		return nil
	}
	if err := checkJSON(r.Header.Get("Content-Type")); err != nil {
		return err
	}
	dec := json.NewDecoder(body)
	if err := dec.Decode(v); err != nil {
		return bodyError(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return bodyError(err)
		}
		return invalid("unexpected content after JSON")
	}
	return nil
}

func checkJSON(contentType string) error {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return invalid("malformed Content-Type header (%s): %v", contentType, err)
	}
	if media != "application/json" {
		return invalid("unsupported Content-Type header (%s): must be 'application/json'", contentType)
	}
	return nil
}

// bodyError says what is wrong with a body, and in which field.
func bodyError(err error) error {
	var (
		tooLarge *http.MaxBytesError
		mistyped *json.UnmarshalTypeError
		syntax   *json.SyntaxError
	)
	switch {
	case errors.As(err, &tooLarge):
		return invalid("the request body is larger than %d bytes", tooLarge.Limit)
	case errors.As(err, &mistyped) && mistyped.Field != "":
		return invalid("invalid JSON: field %s: cannot use %s as %s", fieldName(mistyped.Field), mistyped.Value, mistyped.Type)
	case errors.As(err, &syntax):
		return invalid("invalid JSON: %v at byte %d", err, syntax.Offset)
	case errors.Is(err, io.EOF):
		return invalid("invalid JSON: got EOF while reading request body")
	}
	return invalid("invalid JSON: %v", err)
}

// fieldName takes the names of embedded structs, which encoding/json puts into a field's path, out again:
// clients know nothing of them.
func fieldName(path string) string {
	path = strings.TrimPrefix(path, "Config.")
	return strings.Replace(path, ".Resources.", ".", 1)
}

// params reads the query of a request. The first value that makes no sense is kept in err, so that a handler
// asks once, after it has read all.
type params struct {
	values url.Values
	err    error
}

func (r *request) query() *params {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		err = invalid("malformed query: %v", err)
	}
	return &params{values: values, err: err}
}

func (p *params) fail(format string, a ...any) {
	if p.err == nil {
		p.err = invalid(format, a...)
	}
}

func (p *params) text(name string) string { return p.values.Get(name) }

// flag reads a boolean as Docker's clients write them; not given is false.
func (p *params) flag(name string) bool { return p.flagOr(name, false) }

func (p *params) flagOr(name string, absent bool) bool {
	if !p.values.Has(name) {
		return absent
	}
	switch s := strings.ToLower(p.values.Get(name)); s {
	case "", "0", "no", "off", "false", "none":
		return false
	case "1", "yes", "on", "true":
		return true
	default:
		p.fail("invalid value for %s: %q is neither true nor false", name, s)
		return false
	}
}

// number reads an integer; not given is nil.
func (p *params) number(name string) *int {
	s := p.values.Get(name)
	if s == "" {
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		p.fail("invalid value for %s: %q is not a whole number", name, s)
		return nil
	}
	return &n
}

// moment reads a time: seconds with an optional fraction since 1970, or RFC 3339; not given, or 0, is the zero time.
func (p *params) moment(name string) time.Time {
	s := p.values.Get(name)
	if s == "" || s == "0" {
		return time.Time{}
	}
	t, err := parseMoment(s)
	if err != nil {
		p.fail("invalid value for %s: %v", name, err)
	}
	return t
}

// parseMoment is exact to the nanosecond: it never goes through a float.
func parseMoment(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || len(fraction) > 9 {
		return time.Time{}, fmt.Errorf("%q is neither seconds since 1970 nor a time like 2006-01-02T15:04:05Z", s)
	}
	var nano uint64
	if fraction != "" {
		if nano, err = strconv.ParseUint(fraction+strings.Repeat("0", 9-len(fraction)), 10, 32); err != nil {
			return time.Time{}, fmt.Errorf("%q is neither seconds since 1970 nor a time like 2006-01-02T15:04:05Z", s)
		}
	}
	if strings.HasPrefix(whole, "-") {
		return time.Unix(sec, -int64(nano)), nil
	}
	return time.Unix(sec, int64(nano)), nil
}
