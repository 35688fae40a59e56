package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"
	eventtypes "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"lrd/internal/config"
	"lrd/internal/containers"
	"lrd/internal/events"
	"lrd/internal/output"
	"lrd/internal/sessions"
)

// Errors of every interface here carry a kind of github.com/containerd/errdefs and a sentence for a person.

// ContainerChanges are what a client can do to a container. ref is a name, an ID or a unique beginning of one.
type ContainerChanges interface {
	Create(ctx context.Context, req containers.CreateRequest) (container.CreateResponse, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, o containers.StopOptions) error
	Restart(ctx context.Context, ref string, o containers.StopOptions) error
	Kill(ctx context.Context, ref, signal string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Rename(ctx context.Context, ref, name string) error
	Update(ctx context.Context, ref string, u container.UpdateConfig) (container.UpdateResponse, error)
	Remove(ctx context.Context, ref string, o containers.RemoveOptions) error
	Prune(ctx context.Context, f containers.Filters) (container.PruneReport, error)
	ConnectNetwork(ctx context.Context, ref, network string, e *network.EndpointSettings) error
	DisconnectNetwork(ctx context.Context, ref, network string, force bool) error
}

// ContainerViews are what a client can see of containers.
type ContainerViews interface {
	Inspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error)
	List(ctx context.Context, o containers.ListOptions) ([]container.Summary, error)
	Top(ctx context.Context, ref string, psArgs []string) (container.TopResponse, error)
	// Stats is one sample of what a container uses; of one that does not run, its ID and name alone.
	Stats(ctx context.Context, ref string) (container.StatsResponse, error)
	Counts() containers.Counts
}

// ContainerStreams are what a client can follow. ctx bounds the stream.
type ContainerStreams interface {
	Attach(ctx context.Context, ref string, o containers.AttachOptions) (*containers.Attachment, error)
	Logs(ctx context.Context, ref string, o containers.LogsOptions) (lines containers.OutputReader, tty bool, err error)
	Wait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error)
	// Reading keeps a container that is removed automatically from that, until done is called; or, if the reader is not
	// attached to it, for a while.
	Reading(ref string, attached bool) (done func(), err error)
	Resize(ctx context.Context, ref string, height, width uint16) error
}

// Execs are commands that are executed in running containers. id is the whole ID of one.
type Execs interface {
	ExecCreate(ctx context.Context, ref string, req container.ExecCreateRequest) (id string, err error)
	ExecStart(ctx context.Context, id string, o containers.ExecStartOptions) (*containers.Attachment, error)
	// ExecAttach is the Attachment of ExecStart again, in another process.
	ExecAttach(ctx context.Context, id string, from output.Position) (*containers.Attachment, error)
	ExecInspect(ctx context.Context, id string) (container.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, height, width uint16) error
}

// ContainerFiles are a container's files, as it sees them, and as it has changed them.
type ContainerFiles interface {
	ArchiveStat(ctx context.Context, ref, path string) (container.PathStat, error)
	Archive(ctx context.Context, ref, path string) (*containers.Archive, error)
	Extract(ctx context.Context, ref, path string, r io.Reader, o containers.ExtractOptions) error
	Export(ctx context.Context, ref string) (*containers.Archive, error)
	Changes(ctx context.Context, ref string) ([]container.FilesystemChange, error)
	Commit(ctx context.Context, ref string, o containers.CommitOptions) (imageID string, err error)
}

// Containers is containers.Manager.
type Containers interface {
	ContainerFiles
	ContainerChanges
	ContainerViews
	ContainerStreams
	Execs
}

// Progress is told how a long operation goes on; its messages are sent to the client as they come.
type Progress func(jsonstream.Message)

// ImageSources bring images in.
type ImageSources interface {
	// Load reads an archive of `docker save` or an OCI layout in a tar, compressed or not.
	Load(ctx context.Context, r io.Reader, progress Progress) error
	// Import makes an image of a tar of a root filesystem and returns its ID, and tells progress of it.
	Import(ctx context.Context, r io.Reader, o ImportOptions, progress Progress) (id string, err error)
	// Pull fetches ref, a name with tag or digest, or with allTags every tag of a repository.
	Pull(ctx context.Context, ref string, allTags bool, platform *ocispec.Platform, auth registry.AuthConfig, progress Progress) error
	// Login tries the credentials at their registry.
	Login(ctx context.Context, auth registry.AuthConfig) error
	// Search asks a registry for repositories by a part of their name, limit of them at most.
	Search(ctx context.Context, term string, limit int, auth registry.AuthConfig) ([]registry.SearchResult, error)
	// InspectRemote asks a registry about an image without fetching it.
	InspectRemote(ctx context.Context, ref string, auth registry.AuthConfig) (registry.DistributionInspect, error)
}

// ImageTargets take images out. A nil platform is any.
type ImageTargets interface {
	// Push sends ref, a name with a tag, or with allTags every tag of a repository.
	Push(ctx context.Context, ref string, allTags bool, platform *ocispec.Platform, auth registry.AuthConfig, progress Progress) error
	// Save writes an archive of images. After an error w has a part of one, which must not look whole.
	Save(ctx context.Context, refs []string, platform *ocispec.Platform, w io.Writer) error
}

// ImportOptions describe an imported image.
type ImportOptions struct {
	Ref      string            // name with tag; may be empty
	Message  string            // comment in its history
	Changes  []string          // Dockerfile instructions
	Platform *ocispec.Platform // nil: this machine's
}

// ImageStore is what is there. Who uses an image is known to it.
type ImageStore interface {
	List(ctx context.Context, o ImageListOptions) ([]image.Summary, error)
	Count(ctx context.Context) (int, error)
	Inspect(ctx context.Context, ref string) (image.InspectResponse, error)
	History(ctx context.Context, ref string) ([]image.HistoryResponseItem, error)
	Tag(ctx context.Context, ref, target string) error
	Remove(ctx context.Context, ref string, force, prune bool) ([]image.DeleteResponse, error)
	Prune(ctx context.Context, filters containers.Filters) (image.PruneReport, error)
	// Usage is the space that images take, without Items.
	Usage(ctx context.Context) (image.DiskUsage, error)
	// Driver names the storage driver, Status is what `docker info` shows of it.
	Driver() string
	Status() ([][2]string, error)
}

// ImageListOptions say what a list of images shows.
type ImageListOptions struct {
	All        bool
	SharedSize bool // what each has in common with others; else -1
	Filters    containers.Filters
}

// Images are all there is about images.
type Images interface {
	ImageSources
	ImageTargets
	ImageStore
}

// Volumes are named and anonymous volumes. Who uses one is known to it.
type Volumes interface {
	List(ctx context.Context, filters containers.Filters) (volume.ListResponse, error)
	Create(ctx context.Context, req volume.CreateRequest) (volume.Volume, error)
	Inspect(ctx context.Context, name string) (volume.Volume, error)
	Remove(ctx context.Context, name string, force bool) error
	Prune(ctx context.Context, filters containers.Filters) (volume.PruneReport, error)
	// Size adds up what is in a volume, in bytes; -1 for one that is not on this host's disk.
	Size(ctx context.Context, name string) (int64, error)
}

// Networks are the networks that a container can be in. Who is in one is known to it.
type Networks interface {
	List(ctx context.Context, filters containers.Filters) ([]network.Inspect, error)
	Inspect(ctx context.Context, ref string) (network.Inspect, error)
	Create(ctx context.Context, req network.CreateRequest) (network.Inspect, error)
	Remove(ctx context.Context, ref string) (network.Inspect, error)
	// Prune removes the networks of users that nobody is in; those that were removed are told with an error too.
	Prune(ctx context.Context, filters containers.Filters) ([]network.Inspect, error)
}

// Events is events.Hub.
type Events interface {
	Publish(m eventtypes.Message)
	Subscribe(since, until time.Time, match func(eventtypes.Message) bool) *events.Subscription
	Resume(since, until time.Time, match func(eventtypes.Message) bool, place events.Place) *events.Subscription
	Subscribers() int
}

// Build says what this program is, for /version and /info.
type Build struct {
	Version   string // of lrd, as "0.1.0"
	GitCommit string
	Time      string // of the build or its sources, RFC 3339; empty if nobody knows
	// Components are what lrd works with, as crun and systemd, with their versions. It is asked when a client wants
	// to know; nil for none.
	Components func() []system.ComponentVersion
}

// Options are what a [Server] is made of. All fields but Warnings and Log are needed.
type Options struct {
	Containers Containers
	Images     Images
	Volumes    Volumes
	Networks   Networks
	Events     Events
	// Sessions have the streams that outlive this process; nil for streams that end with it.
	Sessions *sessions.Manager
	// Config returns the configuration in force; a request asks once.
	Config func() *config.Config
	// Reload serves POST /lrd/reload.
	Reload http.Handler
	Build  Build
	// Warnings, if not nil, returns more sentences for the end of `docker info`.
	Warnings func() []string
	Log      *slog.Logger
}
