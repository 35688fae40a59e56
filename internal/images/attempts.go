package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/docker/distribution/registry/api/errcode"
	"go.podman.io/image/v5/docker"
)

// download reads one layer from a registry, and tries again when that fails:
// what was read is not read again by the consumer, but skipped. Whoever reads
// compares the digest in the end, so that a registry that answers differently
// the second time gains nothing.
//
// It belongs to one goroutine.
type download struct {
	ctx  context.Context
	open func() (io.ReadCloser, error)
	// size is what the manifest says, in bytes; negative if it does not.
	size int64
	// left is how many more attempts there are.
	left int
	// pause tells how long to wait before an attempt, and may tell the client.
	pause func() time.Duration

	r      io.ReadCloser // nil between attempts
	offset int64         // where the consumer is
}

// start makes the first attempt, and more of them if need be.
func (d *download) start() error {
	for {
		err := d.connect()
		if err == nil {
			return nil
		}
		if err := d.again(err); err != nil {
			return err
		}
	}
}

// connect opens the layer and skips what the consumer has.
func (d *download) connect() error {
	r, err := d.open()
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, r, d.offset); err != nil {
		return errors.Join(transferError{err}, r.Close())
	}
	d.r = r
	return nil
}

// again tells whether err is worth another attempt, and waits for it.
func (d *download) again(err error) error {
	if d.ctx.Err() != nil {
		return context.Cause(d.ctx)
	}
	if !interrupted(err) {
		return err
	}
	if d.left--; d.left <= 0 {
		return err
	}
	t := time.NewTimer(d.pause())
	defer t.Stop()
	select {
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	case <-t.C:
		return nil
	}
}

func (d *download) Read(p []byte) (int, error) {
	if d.r == nil {
		if err := d.start(); err != nil {
			return 0, err
		}
	}
	n, err := d.r.Read(p)
	d.offset += int64(n)
	if d.size >= 0 && d.offset > d.size {
		return 0, badArchive("a layer of the image is longer than the %d bytes that its manifest says", d.size)
	}
	if errors.Is(err, io.EOF) && d.offset >= d.size {
		return n, io.EOF
	}
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("registry has sent %d of the %d bytes of a layer: %w", d.offset, d.size, io.ErrUnexpectedEOF)
	}
	err = errors.Join(transferError{err}, d.r.Close())
	d.r = nil
	if err := d.again(err); err != nil {
		return n, err
	}
	return n, nil
}

func (d *download) Close() error {
	if d.r == nil {
		return nil
	}
	return d.r.Close()
}

// transferError marks an error that came in the middle of a transfer.
type transferError struct{ error }

func (e transferError) Unwrap() error { return e.error }

// interrupted tells whether a pull failed for a reason that may be gone at the
// next attempt: the client went away, the network or the registry is ill. An image that
// is not what it says, or that the registry does not give, is none of these.
func interrupted(err error) bool {
	if isRefusal(err) {
		return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	}
	if status, ok := errors.AsType[docker.UnexpectedHTTPStatusError](err); ok {
		return worthAnother(status.StatusCode)
	}
	if code := registryCode(err); code != errcode.ErrorCodeUnknown {
		return worthAnother(code.Descriptor().HTTPStatusCode)
	}
	if _, ok := errors.AsType[transferError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EPIPE)
}

// worthAnother tells whether an answer's status speaks of a passing trouble.
func worthAnother(status int) bool {
	return status >= http.StatusInternalServerError || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout
}

// retryPause is how long to wait before an attempt, the second being the first
// that waits: a second, then twice as long each time, up to half a minute.
func retryPause(attempt int) time.Duration {
	return min(time.Second<<min(max(attempt-2, 0), 5), 30*time.Second)
}
