package units

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/godbus/dbus/v5"
)

// ErrNotLoaded is wrapped by errors about a unit that PID 1 does not know (any more). Its kind is errdefs.ErrNotFound.
var ErrNotLoaded error = &kindError{"the unit is not loaded", errdefs.ErrNotFound}

// ErrClosed is wrapped by the errors of calls after Close. Its kind is errdefs.ErrUnavailable.
var ErrClosed error = &kindError{"the connection to systemd has been closed", errdefs.ErrUnavailable}

// errLost says that the connection ended while a call was on its way: it may have been carried out or not.
var errLost error = &kindError{"the connection to systemd was lost meanwhile", errdefs.ErrUnavailable}

// JobError is the error of a job that ended otherwise than "done".
type JobError struct {
	Unit string
	// Result is the job's result as in JobRemoved of org.freedesktop.systemd1(5): "canceled", "timeout", "failed", "dependency", "skipped", … and "lost" if the
	// connection was lost, and neither the job nor the unit was there any more afterwards. With "failed", the unit's State says more.
	Result string
}

// Lost says that nobody knows what became of the job: PID 1 may have carried it
// out, with the unit gone since, or never have heard of it.
func (e *JobError) Lost() bool { return e.Result == "lost" }

func (e *JobError) Error() string {
	switch e.Result {
	case "failed":
		return fmt.Sprintf("the job of unit %s failed", e.Unit)
	case "timeout":
		return fmt.Sprintf("the job of unit %s timed out", e.Unit)
	case "canceled":
		return fmt.Sprintf("the job of unit %s was canceled", e.Unit)
	case "lost":
		return fmt.Sprintf("the result of the job of unit %s was lost with the connection to systemd", e.Unit)
	}
	return fmt.Sprintf("the job of unit %s ended with result %q", e.Unit, e.Result)
}

// kindError is a sentence for people with an errdefs kind for programs that does not show in the sentence.
type kindError struct {
	sentence string
	kind     error
}

func (e *kindError) Error() string { return e.sentence }
func (e *kindError) Unwrap() error { return e.kind }

// kinds maps D-Bus error names to error kinds. Names: src/libsystemd/sd-bus/bus-common-errors.h of systemd, and the D-Bus specification.
var kinds = map[string]error{
	"org.freedesktop.systemd1.UnitExists":                         errdefs.ErrAlreadyExists,
	"org.freedesktop.systemd1.LoadFailed":                         errdefs.ErrFailedPrecondition,
	"org.freedesktop.systemd1.BadUnitSetting":                     errdefs.ErrInvalidArgument,
	"org.freedesktop.systemd1.UnitMasked":                         errdefs.ErrFailedPrecondition,
	"org.freedesktop.systemd1.NoSuchProcess":                      errdefs.ErrFailedPrecondition,
	"org.freedesktop.systemd1.UnitInactive":                       errdefs.ErrFailedPrecondition,
	"org.freedesktop.systemd1.UnitBusy":                           errdefs.ErrConflict,
	"org.freedesktop.systemd1.FreezeCancelled":                    errdefs.ErrAborted,
	"org.freedesktop.systemd1.JobTypeNotApplicable":               errdefs.ErrFailedPrecondition,
	"org.freedesktop.systemd1.TransactionJobsConflicting":         errdefs.ErrConflict,
	"org.freedesktop.systemd1.TransactionIsDestructive":           errdefs.ErrConflict,
	"org.freedesktop.systemd1.ShuttingDown":                       errdefs.ErrUnavailable,
	"org.freedesktop.DBus.Error.NotSupported":                     errdefs.ErrNotImplemented,
	"org.freedesktop.DBus.Error.UnknownMethod":                    errdefs.ErrNotImplemented,
	"org.freedesktop.DBus.Error.InvalidArgs":                      errdefs.ErrInvalidArgument,
	"org.freedesktop.DBus.Error.PropertyReadOnly":                 errdefs.ErrInvalidArgument,
	"org.freedesktop.DBus.Error.UnknownProperty":                  errdefs.ErrInvalidArgument,
	"org.freedesktop.DBus.Error.AccessDenied":                     errdefs.ErrPermissionDenied,
	"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": errdefs.ErrPermissionDenied,
	"org.freedesktop.DBus.Error.LimitsExceeded":                   errdefs.ErrResourceExhausted,
}

// replyError turns the error of a finished call into one of this package. An answer of PID 1 keeps its sentence and gets a kind; the end of the
// context stays what it is; anything else means that there was no answer because the connection is gone.
func replyError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var e dbus.Error
	if errors.As(err, &e) {
		if e.Name == "org.freedesktop.systemd1.NoSuchUnit" {
			return ErrNotLoaded
		}
		kind, ok := kinds[e.Name]
		if !ok {
			kind = errdefs.ErrUnknown
		}
		return &dbusError{e, kind}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// What the encoder refuses is never sent.
	var f dbus.FormatError
	var t dbus.InvalidTypeError
	if errors.As(err, &f) || errors.As(err, &t) {
		return &kindError{err.Error(), errdefs.ErrInvalidArgument}
	}
	return errLost
}

// dbusError is an error that PID 1 answered with.
type dbusError struct {
	reply dbus.Error
	kind  error
}

func (e *dbusError) Error() string   { return "systemd says: " + e.reply.Error() }
func (e *dbusError) Unwrap() []error { return []error{e.reply, e.kind} }

// isDBusError reports whether err is PID 1's answer of that name.
func isDBusError(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}
