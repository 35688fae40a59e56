package containers

import (
	"context"
	"io"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lrd/internal/output"
)

// This file holds what a caller of Manager passes in and gets back, where moby/moby/api has no type of its own.

// ErrNotModified says that a container already is in the state that was asked for: a start of a running container, a stop of a stopped one.
// Docker answers 304 to it. It is errdefs.ErrNotModified, so errdefs.IsNotModified and errors.Is both find it.
var ErrNotModified error = errdefs.ErrNotModified

// CreateRequest is what a container is made from: the body of POST /containers/create with the name and platform of its query.
type CreateRequest struct {
	// Name without a leading slash; empty lets the Manager choose one.
	Name string
	// Config is never nil.
	Config *container.Config
	// HostConfig is never nil.
	HostConfig *container.HostConfig
	// NetworkingConfig may be nil: the network is then that of HostConfig.NetworkMode alone.
	NetworkingConfig *network.NetworkingConfig
	// Platform that the image must have; nil takes the image as it is.
	Platform *ocispec.Platform
}

// StopOptions say how a container is stopped, by Stop and by Restart.
type StopOptions struct {
	// Signal by name or number; empty takes the container's stop signal.
	Signal string
	// Timeout in seconds from the signal to the kill; nil takes the container's own or the default, -1 waits for ever.
	Timeout *int
}

// RemoveOptions say what Remove takes along.
type RemoveOptions struct {
	// Force kills a running container first.
	Force bool
	// Volumes removes the container's anonymous volumes too.
	Volumes bool
	// Link asks for the removal of a legacy link instead of the container, which lrd refuses.
	Link bool
}

// ListOptions choose the containers that List tells of.
type ListOptions struct {
	// All includes those that do not run. Limit and some filters (status, exited, before, since) imply it.
	All bool
	// Limit keeps only the newest so many; 0 is no limit.
	Limit int
	// Size computes SizeRw and SizeRootFs, which costs a walk over the files.
	Size bool
	// Filters must all hold.
	Filters Filters
}

// Filters maps a filter's key to the set of its values, in the form of the Docker API: {"status": {"running": true}}.
// Values of one key are alternatives, except for labels, which must all be there; keys must all hold.
type Filters map[string]map[string]bool

// Has tells whether any value was given for key.
func (f Filters) Has(key string) bool {
	return len(f[key]) > 0
}

// AttachOptions choose the streams of an attachment.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	// Stream follows what comes; without it the attachment ends where the output ends now.
	Stream bool
	// Logs begins with what the container wrote so far.
	Logs bool
	// From is where an earlier attachment's output was; this one goes on there, whatever Logs says.
	From *output.Position
}

// OutputReader is a position in a container's output. *output.Reader and *output.Lines are ones.
type OutputReader interface {
	// Next returns the next piece. Its data is valid until the next call. At the end it waits for more if this follows,
	// and returns io.EOF when the run of the container has ended or when this does not follow.
	Next(ctx context.Context) (output.Chunk, error)
}

// Attachment is one client's hold on the standard streams of a container. The context given to Attach bounds it: when that is done, a Write to Stdin that waits
// for the container returns. But for Over nothing needs to be released: an Attachment that is dropped leaves the container as it is.
type Attachment struct {
	// TTY says that there is one raw stream, not stdout and stderr multiplexed.
	TTY bool
	// Output reads what the container writes, in the order of arrival; nil if neither stdout nor stderr was asked for.
	// It may deliver a stream that was not asked for; the caller leaves that out.
	Output OutputReader
	// Stdin writes to the container; nil if it was not asked for or the container has none open.
	// Close is the client's end of input and reaches the container as end of file. It is called only for a container with StdinOnce and without a TTY;
	// everybody else (a detach, a client that is gone, a daemon that leaves) drops Stdin without Close, and the container's input stays open.
	Stdin io.WriteCloser
	// StdinOnce is the container's Config.StdinOnce: its input ends with that of the client.
	StdinOnce bool
	// Done is closed when the container's run has ended.
	Done <-chan struct{}
	// Begin starts what the client waits for, when it is certain that the client outlives the daemon; to be called once. nil where
	// there is nothing to start.
	Begin func()
	// Over is to be called when the client has read all that it will: what was kept for it is removed. It is not called when another process is to go on.
	// nil where nothing is kept.
	Over func()
}

// Counts are the numbers of containers by state, for /info and for systemctl status.
type Counts struct {
	Total, Running, Paused, Stopped int
}

// LogsOptions say which lines of a container's output, and how they are shown.
type LogsOptions struct {
	output.LinesOptions
	// Details has each line begin with what the container's log options choose of it.
	Details bool
}
