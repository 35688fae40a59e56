package volumes

import "fmt"

// kindError is an error of one of errdefs' kinds whose sentence is for a person
// and does not name the kind.
type kindError struct {
	kind error
	err  error
}

// newError makes an error of a kind. The format may wrap another error.
func newError(kind error, format string, args ...any) error {
	return kindError{kind: kind, err: fmt.Errorf(format, args...)}
}

func (e kindError) Error() string   { return e.err.Error() }
func (e kindError) Unwrap() []error { return []error{e.kind, e.err} }
