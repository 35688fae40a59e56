package images

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
)

// budget counts what a source unpacks to against a limit: the files that its
// layers make, and apart from that the bytes that come out of decompression,
// which may be far more than any file (or be no layer at all). Several
// goroutines may spend from it.
type budget struct {
	limit int64
	files atomic.Int64
	raw   atomic.Int64
}

// spend counts n bytes of files more. The error says that the limit is passed.
func (b *budget) spend(n int64) error { return b.add(&b.files, n) }

// spendRaw counts n uncompressed bytes more.
func (b *budget) spendRaw(n int64) error { return b.add(&b.raw, n) }

func (b *budget) add(counter *atomic.Int64, n int64) error {
	if n < 0 || counter.Add(n) > b.limit {
		return newError(errdefs.ErrInvalidArgument, "image unpacks to more than the limit of %s", units.BytesSize(float64(b.limit)))
	}
	return nil
}

// meteredReader spends from a budget the raw bytes that are read through it,
// and ends when its context does.
type meteredReader struct {
	ctx    context.Context
	r      io.Reader
	budget *budget
}

func (m *meteredReader) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	if over := m.budget.spendRaw(int64(n)); over != nil {
		return 0, over
	}
	return n, err
}
