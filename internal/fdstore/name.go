package fdstore

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// maxNameLen is FDNAME_MAX of systemd (sd_notify(3), FDNAME=).
const maxNameLen = 255

// ErrName is wrapped by the errors for names that systemd would not accept. Its kind is errdefs.ErrInvalidArgument.
var ErrName error = &kindError{"invalid descriptor name", errdefs.ErrInvalidArgument}

// ErrRefused is wrapped by the error of a Put that systemd processed, but of which it did not keep everything. Its kind is
// errdefs.ErrResourceExhausted.
var ErrRefused error = &kindError{"systemd did not keep all descriptors", errdefs.ErrResourceExhausted}

// ErrReceived is returned by every call of Receive but the first. Its kind is errdefs.ErrFailedPrecondition.
var ErrReceived error = &kindError{"the passed descriptors have been received already", errdefs.ErrFailedPrecondition}

// kindError is a sentence for people with an errdefs kind for programs that does not show in the sentence.
type kindError struct {
	sentence string
	kind     error
}

func (e *kindError) Error() string { return e.sentence }
func (e *kindError) Unwrap() error { return e.kind }

// ValidName returns nil if systemd takes name as an FDNAME as it is: 1 to 255 characters of printable ASCII without ':'. (A name that it does not
// take would be stored as "stored", and never be found again.) The error wraps [ErrName].
func ValidName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(name) > maxNameLen:
		return fmt.Errorf("%w %.40q…: it is longer than %d bytes", ErrName, name, maxNameLen)
	}
	for i := range len(name) {
		// The colon separates names in $LISTEN_FDNAMES.
		if c := name[i]; c < ' ' || c > '~' || c == ':' {
			return fmt.Errorf("%w %q: byte %#02x at %d (only printable ASCII without ':' is possible)", ErrName, name, c, i)
		}
	}
	return nil
}
