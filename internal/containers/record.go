package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/moby/moby/api/types/container"

	"lrd/internal/health"
	"lrd/internal/networks"
	"lrd/internal/oci"
)

// The version of the Record's form. A change that an older lrd can live with
// (a new field that it may ignore) raises the minor, any other the major. A
// Record is read if its major is this one and its minor at most one away, so
// that an upgrade and its way back both work.
const (
	schemaMajor = 1
	schemaMinor = 1
)

// Record is the saved form of a container: what it was made from, and what was
// last known of it. It is written whenever that changes and never at exit, so a
// crash finds the same file as a restart does.
//
//	<data-root>/containers/<id>/record.json     0600, replaced atomically, synced
//	<exec-root>/containers/<id>/record.json     the same, as long as there is a run
//
// The second is for a disk, or a person, that has spoiled the first: what runs is
// taken back all the same.
//
// The live form is Container; nothing here is a lock, a channel or a descriptor.
type Record struct {
	Schema Schema `json:"schema"`

	ID      string    `json:"id"`
	Name    string    `json:"name"` // without a slash
	Created time.Time `json:"created"`

	// Config and HostConfig are the request, with the image's configuration merged in.
	Config     *container.Config     `json:"config"`
	HostConfig *container.HostConfig `json:"hostConfig"`
	ImageID    string                `json:"imageID"` // "sha256:…"
	Mounts     []Mount               `json:"mounts,omitempty"`
	// Memberships are the networks that it is to be in. nil, not empty, is that of HostConfig.NetworkMode.
	Memberships []Membership `json:"networks"`
	Runtime     Runtime      `json:"runtime"`

	// Home is what the container stands on: with another daemon configuration it cannot be started, only watched and stopped.
	Home Home `json:"home"`

	// Run is the current run: set before the unit is started, and cleared when everything of it has been put away.
	Run *Run `json:"run,omitempty"`

	// LastBoot is the boot in which the container ran last.
	LastBoot string `json:"lastBoot,omitempty"`

	Status SavedStatus `json:"status"`

	// Health is what the health check has found; nil without one. On disk it may be behind: what follows is read again.
	Health *health.State `json:"health,omitempty"`

	// rest is what a newer minor version has written besides; it is written back as it was.
	rest map[string]json.RawMessage
}

// Schema is the version of a Record's form.
type Schema struct {
	Major int `json:"major"`
	Minor int `json:"minor"`
}

func (s Schema) String() string { return fmt.Sprintf("%d.%d", s.Major, s.Minor) }

// readable says whether this version of lrd understands a Record of that form.
func (s Schema) readable() bool {
	return s.Major == schemaMajor && s.Minor >= schemaMinor-1 && s.Minor <= schemaMinor+1
}

// Mount is a mount of the container with what it came to on this host.
type Mount struct {
	oci.Mount
	// Volume is the name of the volume, for that type.
	Volume string `json:",omitempty"`
	// AnonymousVolume was made for this container alone and goes with it when asked for.
	AnonymousVolume bool `json:",omitempty"`
}

// Runtime is the OCI runtime that the container was made for.
type Runtime struct {
	Name string   `json:"name"`
	Path string   `json:"path"` // absolute
	Args []string `json:"args,omitempty"`
}

// Home is the part of the daemon's configuration that a container stands on.
type Home struct {
	StorageDriver string `json:"storageDriver"`
}

// Run is what was set up for a run of the container, and has to be found again or
// put away by whoever is the daemon then. The live part is the type run.
type Run struct {
	// BootID is the boot that it belongs to: after another one, nothing of it is left.
	BootID string `json:"bootID"`
	// Sandbox is the container's place in its networks; nil if it has none of its own.
	Sandbox *networks.Sandbox `json:"endpoint,omitempty"`
	// Descriptors are the names in systemd's store.
	Descriptors []string `json:"descriptors,omitempty"`
	// StdinClosed says that a client has ended the container's input.
	StdinClosed bool `json:"stdinClosed,omitempty"`
}

// SavedStatus is the saved form of Status.
type SavedStatus struct {
	State           container.ContainerState `json:"state"`
	Pid             int                      `json:"pid,omitempty"`
	ExitCode        int                      `json:"exitCode,omitempty"`
	OOMKilled       bool                     `json:"oomKilled,omitempty"`
	OOMKills        int                      `json:"oomKills,omitempty"`
	Error           string                   `json:"error,omitempty"`
	InvocationID    string                   `json:"invocationID,omitempty"`
	StartedAt       time.Time                `json:"startedAt,omitzero"`
	FinishedAt      time.Time                `json:"finishedAt,omitzero"`
	RestartCount    int                      `json:"restartCount,omitempty"`
	ManuallyStopped bool                     `json:"manuallyStopped,omitempty"`
}

// saved is what of a Status outlives the process. Reason does not: it is found
// anew at each start.
func saved(s Status) SavedStatus {
	return SavedStatus{
		State: s.State, Pid: s.Pid, ExitCode: s.ExitCode, OOMKilled: s.OOMKilled, OOMKills: s.OOMKills, Error: s.Error,
		InvocationID: s.InvocationID, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt, RestartCount: s.RestartCount, ManuallyStopped: s.ManuallyStopped,
	}
}

// live is the Status that a Record tells of.
func (s SavedStatus) live() Status {
	return Status{
		State: s.State, Pid: s.Pid, ExitCode: s.ExitCode, OOMKilled: s.OOMKilled, OOMKills: s.OOMKills, Error: s.Error,
		InvocationID: s.InvocationID, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt, RestartCount: s.RestartCount, ManuallyStopped: s.ManuallyStopped,
	}
}

// SchemaError says that a Record is in a form that this version of lrd does not read.
type SchemaError struct {
	Found Schema
}

// Error names the version found and the ones that would do.
func (e *SchemaError) Error() string {
	return fmt.Sprintf("its record has schema %s and this version of lrd reads %d.%d to %d.%d",
		e.Found, schemaMajor, max(schemaMinor-1, 0), schemaMajor, schemaMinor+1)
}

// parseRecord reads a Record. The error is a *SchemaError for a form that this
// version does not read; the Record then holds what could be made of it: the
// version and, if they are there, ID, Name and Created, and Run if that has the
// form that it has here: published ports go on while it does.
func parseRecord(data []byte) (*Record, error) {
	var head struct {
		Schema  Schema
		ID      string
		Name    string
		Created time.Time
		Run     json.RawMessage
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return &Record{}, err
	}
	r := &Record{Schema: head.Schema, ID: head.ID, Name: head.Name, Created: head.Created}
	if head.Schema == (Schema{}) {
		return r, errors.New("it lacks the version of its form")
	}
	if !head.Schema.readable() {
		if run := new(Run); json.Unmarshal(head.Run, run) == nil {
			r.Run = run
		}
		return r, &SchemaError{Found: head.Schema}
	}
	if err := json.Unmarshal(data, r); err != nil {
		return r, err
	}
	if r.Config == nil || r.HostConfig == nil || !isID(r.ID) {
		return r, errors.New("it lacks the container's ID or configuration")
	}
	if err := json.Unmarshal(data, &r.rest); err != nil {
		return r, err
	}
	for field := range reflect.TypeFor[Record]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		delete(r.rest, name)
	}
	return r, nil
}

// encode is the Record as it is written to disk.
func (r *Record) encode() ([]byte, error) {
	r.Schema = Schema{schemaMajor, schemaMinor}
	data, err := json.Marshal(r)
	if err != nil || len(r.rest) == 0 {
		return data, err
	}
	all := maps.Clone(r.rest)
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// records are the directories of all Records, and of the copies of those of a run.
type records struct {
	dir, runs string
}

const recordFile = "record.json"

func (rs records) path(id string) string     { return filepath.Join(rs.dir, id, recordFile) }
func (rs records) copyPath(id string) string { return filepath.Join(rs.runs, id, recordFile) }

// save writes a Record so that after a crash or a power cut there is the old one or the new one.
func (rs records) save(r *Record) error {
	data, err := r.encode()
	if err != nil {
		return fmt.Errorf("cannot encode the record of container %s: %w", r.ID, err)
	}
	if err := os.MkdirAll(filepath.Join(rs.dir, r.ID), 0o710); err != nil {
		return fmt.Errorf("cannot save the record of container %s: %w", r.ID, err)
	}
	if err := renameio.WriteFile(rs.path(r.ID), data, 0o600); err != nil {
		return fmt.Errorf("cannot save the record of container %s: %w", r.ID, err)
	}
	if r.Run != nil {
		rs.keepCopy(r.ID, data)
	}
	return nil
}

// keepCopy writes the copy of a Record: none is better than an old one. It goes with the run's directory.
func (rs records) keepCopy(id string, data []byte) {
	path := rs.copyPath(id)
	err := os.WriteFile(path+".new", data, 0o600) // in memory: a power cut takes all of it
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = os.Remove(path)
	}
}

// mend takes the copy for a Record that is spoiled, if there is one, and puts it in its place; the spoiled one is kept
// beside it. One that is not there at all has another data-root.
func (rs records) mend(f *found) (mended bool, err error) {
	var damage *DamageError
	if !errors.As(f.err, &damage) {
		return false, nil
	}
	data, err := os.ReadFile(rs.copyPath(f.id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r, err := parseRecord(data)
	if err == nil && r.ID != f.id {
		err = fmt.Errorf("it is that of container %s", r.ID)
	}
	if err != nil {
		return false, fmt.Errorf("cannot read the copy %s of its record: %w", rs.copyPath(f.id), err)
	}
	f.record, f.err = r, nil
	return true, errors.Join(os.Rename(rs.path(f.id), rs.path(f.id)+".damaged"), rs.save(r))
}

// DamageError says that a Record is spoiled.
type DamageError struct {
	Path string // the file
	Err  error  // what is wrong with it
}

// Error names the file and says what to do.
func (e *DamageError) Error() string {
	return fmt.Sprintf("cannot read its record: %s; put %s right and restart lrd, or remove the container", e.Err, e.Path)
}

// Unwrap is what is wrong with the file.
func (e *DamageError) Unwrap() error { return e.Err }

// found is one directory of records: a Record, or why there is none that can be used.
type found struct {
	id     string
	record *Record // never nil; with err it holds what could be made of it
	err    error
}

// list reads all Records. A directory without one is the rest of a container
// whose making or removal was interrupted, and comes with fs.ErrNotExist.
func (rs records) list() ([]found, error) {
	entries, err := os.ReadDir(rs.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the directory of containers: %w", err)
	}
	var all []found
	for _, e := range entries {
		if !e.IsDir() || !isID(e.Name()) {
			continue
		}
		f := found{id: e.Name(), record: &Record{}}
		data, err := os.ReadFile(rs.path(f.id))
		if err == nil {
			f.record, err = parseRecord(data)
		}
		if err == nil && f.record.ID != f.id {
			err = fmt.Errorf("it is that of container %s", f.record.ID)
		}
		var schema *SchemaError
		if f.err = err; err != nil && !errors.As(err, &schema) && !errors.Is(err, fs.ErrNotExist) {
			f.err = &DamageError{rs.path(f.id), err}
		}
		all = append(all, f)
	}
	return all, nil
}

// isID says whether s has the form of a container's ID.
func isID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
