package output

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed is returned by readers, and by every method, of a Log that
	// Close has been called on. A reader's position is still good.
	ErrClosed = errors.New("the output store is closed")

	// ErrBusy is returned by Open when another process, or another Log of this
	// one, has the directory open: two drains would write to the same place.
	ErrBusy = errors.New("the output store is open elsewhere")

	// ErrFormat is returned by Open for an index that a later version of lrd
	// has written. Nothing is changed then.
	ErrFormat = errors.New("the index has a format that this version does not know")

	errBadRecord = errors.New("the record's checksum is wrong")
	errNotInLine = errors.New("the record does not follow on the one before")
)

// DamageError says that the index cannot be read on at one record. What was
// handed out before is right; the bytes themselves, in the data files, are not
// concerned.
type DamageError struct {
	Dir    string // the store
	Record int64  // number of the record, from 0
	Err    error  // what is wrong with it
}

// Error tells where the damage is.
func (e *DamageError) Error() string {
	return fmt.Sprintf("cannot read output in %s: the index is damaged at record %d: %v", e.Dir, e.Record, e.Err)
}

// Unwrap returns what is wrong with the record.
func (e *DamageError) Unwrap() error { return e.Err }
