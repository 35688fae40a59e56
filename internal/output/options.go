package output

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
)

// Options of Open. The zero value is usable: it keeps everything, holds the
// container back when the disk is full, and compresses nothing. What a
// container gets whose creator has said nothing is DefaultOptions.
//
// But for Log, RetryPause and OnIncident, which belong to one process, it is
// plain data that can be sent to another as JSON.
type Options struct {
	// Log gets warnings: recovery, a full disk. Nil discards them. The caller
	// gives it the attributes "container" and "operation".
	Log *slog.Logger `json:"-"`

	// RetryPause is how long a drain waits after an error in writing before it
	// tries again. 0 means one second.
	RetryPause time.Duration `json:"-"`

	// OnIncident is told what the container's owner should know: a full disk,
	// what was dropped. It is called by drains and must not block. May be nil.
	OnIncident func(Incident) `json:"-"`

	// MaxSize is how many bytes a segment takes, both streams and their index
	// together, before the next one begins. 0: there is one segment for ever.
	MaxSize int64 `json:"maxSize,omitempty"`

	// MaxFiles is how many segments are kept, the one being written included.
	// 0 keeps all.
	MaxFiles int `json:"maxFiles,omitempty"`

	// Compress has segments compressed (zstd) when they are closed. It may
	// differ from one Open to the next: what an Open without it has closed is
	// compressed by the next one with it.
	Compress bool `json:"compress,omitempty"`

	// OnFull says what happens while the store cannot be written: OnFullBlock,
	// also if empty, or OnFullDrop.
	OnFull string `json:"onFull,omitempty"`

	// NonBlocking is Docker's mode=non-blocking: the container is never held
	// back, neither by a full disk nor by a reader that lags. It implies OnFullDrop.
	NonBlocking bool `json:"nonBlocking,omitempty"`

	// Patient has a reader that stands still hold the container back for as long
	// as it takes: for output that one client alone reads, and that must not have
	// holes. It does not go with NonBlocking.
	Patient bool `json:"patient,omitempty"`

	// MaxBuffer is how many bytes of the container's wait, in a pipe, while they
	// cannot be written: the size that NonBlocking asks of SetPipeSize. 0 leaves
	// it to the caller.
	MaxBuffer int64 `json:"maxBuffer,omitempty"`
}

// What Options.OnFull can be.
const (
	OnFullBlock = "block" // the container is held back until there is room again, as a writer to a full disk is
	OnFullDrop  = "drop"  // the container goes on; what its pipe cannot hold is dropped, counted and marked
)

// DefaultOptions are those of Docker's driver `local`: max-size=20m,
// max-file=5, compress=true, mode=blocking.
func DefaultOptions() Options {
	return Options{MaxSize: 20 << 20, MaxFiles: 5, Compress: true, OnFull: OnFullBlock}
}

// The log options (`docker run --log-opt`) that ParseOptions knows.
const (
	optMaxSize   = "max-size"
	optMaxFile   = "max-file"
	optCompress  = "compress"
	optMode      = "mode"
	optMaxBuffer = "max-buffer-size"
	optOnFull    = "on-full"
)

// OptionNames returns the names of the log options that ParseOptions knows.
func OptionNames() []string {
	return []string{optMaxSize, optMaxFile, optCompress, optMode, optMaxBuffer, optOnFull}
}

// ParseOptions returns DefaultOptions as a container's log options change
// them. Options that OptionNames does not list are the log driver's, and left
// alone. Errors are ErrInvalidArgument and name the option and what is right.
//
//	max-size         a size as 10m, of which 1k are 1000 bytes as with Docker; 0 or -1: no rotation
//	max-file         a number from 1; with 1 nothing is kept of a full segment
//	compress         true or false
//	mode             blocking or non-blocking
//	max-buffer-size  a size, with mode=non-blocking
//	on-full          block or drop
func ParseOptions(opts map[string]string) (Options, error) {
	o := DefaultOptions()
	for _, parse := range []func(*Options, map[string]string) error{parseRotation, parseCompress, parseMode, parseOnFull} {
		if err := parse(&o, opts); err != nil {
			return Options{}, err
		}
	}
	return o, nil
}

// bad is the one sentence for a log option with a wrong value.
func bad(name, value, right string) error {
	return fmt.Errorf("invalid value for log option %s: %q (%s): %w", name, value, right, errdefs.ErrInvalidArgument)
}

func parseRotation(o *Options, opts map[string]string) error {
	if v, ok := opts[optMaxSize]; ok {
		n, err := units.FromHumanSize(v)
		switch {
		case v == "-1" || err == nil && n == 0:
			o.MaxSize, o.MaxFiles = 0, 0
		case err != nil || n < minSegment || n > math.MaxInt64/1024:
			return bad(optMaxSize, v, fmt.Sprintf("a size as 20m, at least %dk, or -1 for no rotation", minSegment>>10))
		default:
			o.MaxSize = n
		}
	}
	if v, ok := opts[optMaxFile]; ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 1<<16 {
			return bad(optMaxFile, v, "a number from 1")
		}
		if o.MaxSize > 0 {
			o.MaxFiles = n
		}
	}
	return nil
}

// minSegment is the smallest max-size: a page of output and one of the index.
const minSegment = 8 << 10

func parseCompress(o *Options, opts map[string]string) error {
	v, ok := opts[optCompress]
	if !ok {
		return nil
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return bad(optCompress, v, "true or false")
	}
	o.Compress = on
	return nil
}

func parseMode(o *Options, opts map[string]string) error {
	mode := opts[optMode]
	if !slices.Contains([]string{"", "blocking", "non-blocking"}, mode) {
		return bad(optMode, mode, "blocking or non-blocking")
	}
	o.NonBlocking = mode == "non-blocking"
	v, ok := opts[optMaxBuffer]
	if !ok {
		return nil
	}
	if !o.NonBlocking {
		return fmt.Errorf("log option %s works with mode=non-blocking only: %w", optMaxBuffer, errdefs.ErrInvalidArgument)
	}
	n, err := units.RAMInBytes(v)
	if err != nil || n < 4096 || n > maxBuffer {
		return bad(optMaxBuffer, v, "a size from 4k to 1g")
	}
	o.MaxBuffer = n
	return nil
}

// maxBuffer is the largest max-buffer-size: pipes' sizes are powers of two below 2^31.
const maxBuffer = 1 << 30

func parseOnFull(o *Options, opts map[string]string) error {
	v, ok := opts[optOnFull]
	if o.NonBlocking {
		o.OnFull = OnFullDrop
	}
	if !ok {
		return nil
	}
	switch {
	case v != OnFullBlock && v != OnFullDrop:
		return bad(optOnFull, v, "block or drop")
	case v == OnFullBlock && o.NonBlocking:
		return fmt.Errorf("log option %s=%s does not go with mode=non-blocking: %w", optOnFull, v, errdefs.ErrInvalidArgument)
	}
	o.OnFull = v
	return nil
}

// drops says whether the container goes on while the store cannot be written.
func (o *Options) drops() bool { return o.NonBlocking || o.OnFull == OnFullDrop }

// An Incident is what the owner of a Log should know of it.
type Incident struct {
	Kind   string    // IncidentFull, IncidentDropped, IncidentResumed
	Stream Stream    // which one is concerned
	Bytes  int64     // IncidentDropped: how many
	From   time.Time // IncidentDropped: when the first was dropped, and the last
	To     time.Time //
	Err    error     // IncidentFull: why the store cannot be written
}

// What Incident.Kind can be.
const (
	IncidentFull    = "full"    // the store cannot be written
	IncidentDropped = "dropped" // some of the container's output was dropped, and is marked as such in the store
	IncidentResumed = "resumed" // the store is written again
)
