package images

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"go.podman.io/storage"

	"lrd/internal/keyed"
)

// Options says where a [Store] lives and what it may do. Paths are absolute.
type Options struct {
	// GraphRoot holds images and layers; it survives a reboot.
	GraphRoot string
	// RunRoot holds what a reboot invalidates: which layers are mounted.
	RunRoot string
	// TempDir is where archives are unpacked on their way in. Its
	// subdirectory "images" belongs to the store and is emptied by [Open].
	TempDir string
	// Driver is "overlay" (the default) or "vfs".
	Driver string
	// AdditionalStores are graph roots of other tools, whose images are
	// used and never changed. One that is not there is left out. They need the driver overlay.
	AdditionalStores []string
	// MaxLoadBytes bounds what one archive or one pulled image may unpack
	// to, in bytes. Zero is no limit.
	MaxLoadBytes int64
	// Registries says how registries are reached.
	Registries Registries
	// MaxDownloads bounds the layers that one pull fetches at the same
	// time. Zero means 3, as with Docker.
	MaxDownloads int
	// MaxDownloadAttempts is how often the download of a layer is tried. Zero
	// means 5, as with Docker.
	MaxDownloadAttempts int
	// MaxUploads bounds the layers that one push sends at the same time.
	// Zero means 5, as with Docker.
	MaxUploads int
	// UserAgent is sent to registries. May be empty.
	UserAgent string
	// Log receives what the libraries below have to say. Required.
	Log *slog.Logger
}

// Store is lrd's images and root filesystems. See the package's comment for
// what may be called when.
type Store struct {
	opts    Options
	tempDir string
	log     *slog.Logger
	storage storage.Store
	config  *hostConfig
	gate    gate
	claims  claims
	rootfs  keyed.Mutex                     // by container
	pause   func(attempt int) time.Duration // before an attempt to download

	// mu guards registries, which a reload replaces.
	mu         sync.RWMutex
	registries Registries
}

// Open opens the store below o.GraphRoot, making it when it is new. It empties
// the directory for archives on their way in, and deletes layers that an
// interrupted load or pull has left without an image.
//
// The first Open of a process decides which storage.conf the storage library
// reads: one of lrd's own.
func Open(ctx context.Context, o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, log: o.Log, registries: o.Registries, tempDir: filepath.Join(o.TempDir, "images"), pause: retryPause}
	if err := emptyDir(s.tempDir); err != nil {
		return nil, fmt.Errorf("cannot empty the directory for incoming images: %w", err)
	}
	redirectLibraryLogs(o.Log)
	if s.config, err = writeHostConfig(filepath.Join(o.RunRoot, "config"), o.Registries); err != nil {
		return nil, err
	}
	s.storage, err = storage.GetStore(storage.StoreOptions{
		GraphRoot:          o.GraphRoot,
		RunRoot:            o.RunRoot,
		GraphDriverName:    o.Driver,
		GraphDriverOptions: s.driverOptions(),
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open image storage %s with driver %s: %w", o.GraphRoot, o.Driver, err)
	}
	s.gate.collect = s.collect
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.collect(keepInterrupted); err != nil {
		// Layers that cannot be deleted cost space, nothing else.
		s.log.Warn("cannot delete layers left without an image", "error", err)
	}
	return s, nil
}

// withDefaults checks o and fills in what it leaves open.
func (o Options) withDefaults() (Options, error) {
	if o.Driver == "" {
		o.Driver = "overlay"
	}
	if o.Driver != "overlay" && o.Driver != "vfs" {
		return o, newError(errdefs.ErrInvalidArgument, "storage driver %q is not known: use overlay or vfs", o.Driver)
	}
	for name, dir := range map[string]string{"graph root": o.GraphRoot, "run root": o.RunRoot, "temporary directory": o.TempDir} {
		if !filepath.IsAbs(dir) {
			return o, newError(errdefs.ErrInvalidArgument, "%s %q of the image store is not an absolute path", name, dir)
		}
		// overlay separates its lower directories with colons, and the
		// names of archives end at one.
		if strings.ContainsAny(dir, ":,") {
			return o, newError(errdefs.ErrInvalidArgument, "%s %q of the image store has a colon or a comma in it, which overlay cannot mount", name, dir)
		}
	}
	if o.MaxLoadBytes == 0 {
		o.MaxLoadBytes = math.MaxInt64
	}
	if o.MaxLoadBytes < 0 {
		return o, newError(errdefs.ErrInvalidArgument, "limit of %d bytes on images is negative", o.MaxLoadBytes)
	}
	if o.MaxDownloads <= 0 {
		o.MaxDownloads = 3
	}
	if o.MaxDownloadAttempts <= 0 {
		o.MaxDownloadAttempts = 5
	}
	if o.MaxUploads <= 0 {
		o.MaxUploads = 5
	}
	return o, nil
}

// driverOptions are the storage driver's options. sync=filesystem makes a layer
// durable before it is recorded as complete, so that power loss does not leave
// a layer that only looks whole.
//
// The driver mounts its directory on itself, as skopeo's and buildah's do, which is
// why skip_mount_home is not among them: were that mount missing, the first of
// those tools to look into the storage would make it, on top of the root filesystems that are
// mounted there, and nobody would find these again.
func (s *Store) driverOptions() []string {
	if s.opts.Driver != "overlay" {
		if len(s.opts.AdditionalStores) > 0 {
			s.log.Warn("additional image stores are left out: they need the storage driver overlay", "stores", s.opts.AdditionalStores)
		}
		return nil
	}
	options := []string{"overlay.sync=filesystem"}
	for _, store := range s.opts.AdditionalStores {
		if _, err := os.Stat(filepath.Join(store, "overlay-images")); err != nil {
			s.log.Warn("an additional image store is left out until the next start", "store", store, "error", err)
			continue
		}
		options = append(options, "overlay.imagestore="+store)
	}
	return options
}

// Driver is the name of the storage driver in use: "overlay" or "vfs".
func (s *Store) Driver() string { return s.storage.GraphDriverName() }

// Root is the directory that holds images and layers.
func (s *Store) Root() string { return s.storage.GraphRoot() }

// Status is what the storage driver tells about itself, as pairs of name and
// value, for `docker info`.
func (s *Store) Status() ([][2]string, error) {
	status, err := s.storage.Status()
	if err != nil {
		return nil, fmt.Errorf("cannot read the storage driver's status: %w", err)
	}
	return status, nil
}

// Close gives the storage back. Root filesystems of running containers stay
// mounted, which is what live restore is about, so that the library's "layer is
// in use" is no error here.
func (s *Store) Close() error {
	_, err := s.storage.Shutdown(false)
	if err != nil && !errors.Is(err, storage.ErrLayerUsedByContainer) {
		return fmt.Errorf("cannot close image storage: %w", err)
	}
	s.storage.Free()
	return nil
}

// emptyDir makes dir exist with nothing in it, readable by its owner alone.
func emptyDir(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.MkdirAll(dir, 0o700)
}
