package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/common"
)

// errLeaving is the cause of a context that the daemon's going ended.
var errLeaving = errdefs.ErrUnavailable.WithMessage("lrd is stopping or restarting: try again")

// invalid is a 400: something in the request is not what it should be. The sentence names the field.
func invalid(format string, a ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, a...))
}

// notImplemented is a 501: Docker has it, lrd has not.
func notImplemented(sentence string) error {
	return errdefs.ErrNotImplemented.WithMessage(sentence)
}

// statusOf is the one place that turns the kind of an error into a status code. The codes are dockerd's.
func statusOf(err error) int {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge), errdefs.IsInvalidArgument(err), errdefs.IsOutOfRange(err), errdefs.IsFailedPrecondition(err):
		return http.StatusBadRequest
	case errdefs.IsNotFound(err):
		return http.StatusNotFound
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err), errdefs.IsAborted(err):
		return http.StatusConflict
	case errdefs.IsUnauthorized(err):
		return http.StatusUnauthorized
	case errdefs.IsPermissionDenied(err):
		return http.StatusForbidden
	case errdefs.IsResourceExhausted(err):
		return http.StatusTooManyRequests
	case errdefs.IsUnavailable(err):
		return http.StatusServiceUnavailable
	case errdefs.IsNotModified(err):
		return http.StatusNotModified
	case errdefs.IsNotImplemented(err):
		return http.StatusNotImplemented
	}
	return http.StatusInternalServerError
}

// causeOf is why ctx is done, where err comes of that: of the context itself, or of a connection that endTransfer has
// given up. It says more than "context canceled" and "i/o timeout".
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, os.ErrDeadlineExceeded)) {
		return cause
	}
	return err
}

// answerError sends the error as {"message": …}.
func answerError(ctx context.Context, w http.ResponseWriter, err error) {
	err = causeOf(ctx, err)
	code := statusOf(err)
	if code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	_ = answerJSON(w, code, common.ErrorResponse{Message: err.Error()})
}
