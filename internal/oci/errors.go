package oci

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// kindError is a sentence for a person with a kind for the program: the kind's
// own words ("invalid argument") are not part of the sentence.
type kindError struct {
	sentence string
	kind     error
}

func (e *kindError) Error() string { return e.sentence }
func (e *kindError) Unwrap() error { return e.kind }

// invalid is an error of the request.
func invalid(format string, args ...any) error {
	return &kindError{fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument}
}

// unsupported is a request for something that lrd does not offer.
func unsupported(format string, args ...any) error {
	return &kindError{fmt.Sprintf(format, args...), errdefs.ErrNotImplemented}
}
