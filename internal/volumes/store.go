package volumes

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/renameio/v2"
	"github.com/moby/moby/api/types/volume"

	"lrd/internal/keyed"
)

const (
	// Driver is the one driver there is.
	Driver = "local"
	// AnonymousLabel is on volumes that were given no name; `docker volume
	// prune` looks for it.
	AnonymousLabel = "com.docker.volume.anonymous"

	dataDir  = "_data"
	metaFile = "volume.json"
	// schema is the version of volume.json that this package writes;
	// schemaOptions is that of a volume with options, which versions that
	// would mount something else in its place do not read.
	schema        = 1
	schemaOptions = 2
	// maxName is the longest name of a file on the file systems of use.
	maxName = 255
)

// validName is Docker's rule for names.
var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// Store is a directory of volumes.
type Store struct {
	root  string
	log   *slog.Logger
	locks keyed.Mutex // by volume

	holders holders
}

// metadata is volume.json.
type metadata struct {
	Schema    int               `json:"schema"`
	Name      string            `json:"name"`
	Driver    string            `json:"driver"`
	CreatedAt time.Time         `json:"createdAt"`
	Labels    map[string]string `json:"labels,omitempty"`
	// Options say what is mounted while the volume is in use; see options.go.
	Options map[string]string `json:"options,omitempty"`
}

// Open opens the directory of volumes, making it when it is new, and deletes
// what a crash has left half made or half removed.
func Open(root string, log *slog.Logger) (*Store, error) {
	if !filepath.IsAbs(root) {
		return nil, newError(errdefs.ErrInvalidArgument, "directory of volumes %q is not an absolute path", root)
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("cannot make directory of volumes: %w", err)
	}
	s := &Store{root: root, log: log}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("cannot read directory of volumes: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".new-") && !strings.HasPrefix(e.Name(), ".gone-") {
			continue
		}
		if err := os.RemoveAll(filepath.Join(root, e.Name())); err != nil {
			log.Warn("cannot delete what is left of a volume", "directory", e.Name(), "error", err)
		}
	}
	return s, nil
}

// CheckName tells whether a volume may have a name, in Docker's words:
// errdefs.ErrInvalidArgument if not.
func CheckName(name string) error {
	switch {
	case len(name) == 1:
		return newError(errdefs.ErrInvalidArgument, "volume name is too short, names should be at least two alphanumeric characters")
	case len(name) > maxName:
		return newError(errdefs.ErrInvalidArgument, "volume name is too long, names should be at most %d characters", maxName)
	case !validName.MatchString(name):
		return newError(errdefs.ErrInvalidArgument, "%q includes invalid characters for a local volume name, only %q are allowed. If you intended to pass a host directory, use absolute path",
			name, "[a-zA-Z0-9][a-zA-Z0-9_.-]")
	}
	return nil
}

// NewName is a name for an anonymous volume: 64 random hex digits.
func NewName() string {
	var raw [32]byte
	rand.Read(raw[:]) // never fails (crypto/rand)
	return hex.EncodeToString(raw[:])
}

// Create makes a volume, or finds the one that has the name already. Without a
// name it makes an anonymous one. Errors: errdefs.ErrInvalidArgument for a bad
// name, an unknown driver, and options that make no sense.
func (s *Store) Create(ctx context.Context, r volume.CreateRequest) (volume.Volume, error) {
	if err := ctx.Err(); err != nil {
		return volume.Volume{}, err
	}
	if err := checkRequest(r); err != nil {
		return volume.Volume{}, err
	}
	name, labels := r.Name, maps.Clone(r.Labels)
	if name == "" {
		name = NewName()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[AnonymousLabel] = ""
	}
	if err := CheckName(name); err != nil {
		return volume.Volume{}, err
	}
	defer s.locks.Lock(name)()
	have, err := s.read(name)
	if err == nil {
		return s.describe(have), nil
	}
	if !errors.Is(err, errdefs.ErrNotFound) {
		return volume.Volume{}, err
	}
	m := metadata{Schema: schema, Name: name, Driver: Driver, CreatedAt: time.Now().UTC(), Labels: labels, Options: maps.Clone(r.DriverOpts)}
	if len(m.Options) > 0 {
		m.Schema = schemaOptions
	}
	if err := s.make(m); err != nil {
		return volume.Volume{}, fmt.Errorf("cannot create volume %s: %w", name, err)
	}
	return s.describe(m), nil
}

// checkRequest refuses what only other drivers could do.
func checkRequest(r volume.CreateRequest) error {
	if r.Driver != "" && r.Driver != Driver {
		return newError(errdefs.ErrInvalidArgument, "volume driver %q is not available: lrd has the driver %q only", r.Driver, Driver)
	}
	if r.ClusterVolumeSpec != nil {
		return newError(errdefs.ErrInvalidArgument, "cluster volumes need swarm mode, which lrd does not have")
	}
	return checkOptions(r.DriverOpts)
}

// make writes a volume and lets it appear.
func (s *Store) make(m metadata) (err error) {
	dir, err := os.MkdirTemp(s.root, ".new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.Mkdir(filepath.Join(dir, dataDir), 0o755); err != nil {
		return err
	}
	// The umask is not the volume's business.
	if err := os.Chmod(filepath.Join(dir, dataDir), 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(filepath.Join(dir, metaFile), append(raw, '\n'), 0o600); err != nil {
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(s.root, m.Name)); err != nil {
		return err
	}
	return syncDir(s.root)
}

// syncDir makes what a directory lists durable.
func syncDir(dir string) (err error) {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Sync()
}

// read reads a volume's metadata. Errors: errdefs.ErrNotFound in Docker's
// words, errdefs.ErrFailedPrecondition for a schema of another version.
func (s *Store) read(name string) (metadata, error) {
	var m metadata
	if CheckName(name) != nil { // cannot exist, and is no path either
		return m, errNoVolume(name)
	}
	raw, err := os.ReadFile(filepath.Join(s.root, name, metaFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return m, errNoVolume(name)
	}
	if err != nil {
		return m, fmt.Errorf("cannot read volume %s: %w", name, err)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("cannot read volume %s: %w", name, err)
	}
	if m.Schema != schema && m.Schema != schemaOptions {
		return m, newError(errdefs.ErrFailedPrecondition, "volume %s was written by another version of lrd: schema %d, and this one reads %d and %d", name, m.Schema, schema, schemaOptions)
	}
	m.Name = name // the directory's name is what counts
	return m, nil
}

func errNoVolume(name string) error {
	return newError(errdefs.ErrNotFound, "get %s: no such volume", name)
}

// describe is a volume as the API shows it.
func (s *Store) describe(m metadata) volume.Volume {
	return volume.Volume{
		Name:       m.Name,
		Driver:     Driver,
		Scope:      "local",
		Mountpoint: s.data(m.Name),
		CreatedAt:  m.CreatedAt.Format(time.RFC3339),
		Labels:     m.Labels,
		Options:    m.Options,
	}
}

// data is where a volume's content is. The name has been checked.
func (s *Store) data(name string) string { return filepath.Join(s.root, name, dataDir) }

// Get tells of one volume. Error: errdefs.ErrNotFound.
func (s *Store) Get(ctx context.Context, name string) (volume.Volume, error) {
	if err := ctx.Err(); err != nil {
		return volume.Volume{}, err
	}
	m, err := s.read(name)
	if err != nil {
		return volume.Volume{}, err
	}
	return s.describe(m), nil
}

// checkedData is data, looked at.
func (s *Store) checkedData(name string) (string, error) {
	path := s.data(name)
	info, err := os.Lstat(path)
	if err != nil {
		return "", fmt.Errorf("cannot find the content of volume %s: %w", name, err)
	}
	if !info.IsDir() {
		return "", newError(errdefs.ErrFailedPrecondition, "content of volume %s is no directory: %s", name, path)
	}
	return path, nil
}

// Remove deletes a volume and what is in it. users, if not nil, tells which
// containers have it; one that has users stays, force or not:
// errdefs.ErrConflict. With force, a volume that does not exist is no error.
func (s *Store) Remove(ctx context.Context, name string, force bool, users func(name string) []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer s.locks.Lock(name)()
	_, err := s.read(name)
	switch {
	case errors.Is(err, errdefs.ErrNotFound) && force:
		return nil
	case errors.Is(err, errdefs.ErrNotFound):
		return err
	case err != nil && !force: // damaged, or of another version
		return err
	}
	if users != nil {
		if used := users(name); len(used) > 0 {
			return newError(errdefs.ErrConflict, "remove %s: volume is in use - [%s]", name, strings.Join(used, ", "))
		}
	}
	if held := s.holders.of(name); len(held) > 0 { // by a container on its way, or a copy
		return newError(errdefs.ErrConflict, "remove %s: volume is in use - [%s]", name, strings.Join(held, ", "))
	}
	// What is mounted is not the volume's to delete.
	if err := s.unmount(name); err != nil {
		return err
	}
	gone := filepath.Join(s.root, ".gone-"+NewName())
	if err := os.Rename(filepath.Join(s.root, name), gone); err != nil {
		return fmt.Errorf("cannot remove volume %s: %w", name, err)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("cannot delete the content of volume %s: %w", name, err)
	}
	return nil
}
