package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lrd/internal/handover"
)

// record says what is held, for the next process. It is on a tmpfs: what it speaks of does not outlive a boot either.
type record struct {
	Version  int            `json:"version"` // handover.Version
	Drain    bool           `json:"drain"`
	Sessions string         `json:"sessions,omitempty"`
	Logs     []handover.Log `json:"logs"`
	// New are the names of descriptors that were taken in here, in place of those that lrd has passed.
	New []string `json:"new,omitempty"`
}

// errRecord says that there is something held of which no more is known than the names of its descriptors.
var errRecord = errors.New("the record of what is held cannot be read")

// loadRecord reads the record; nil if nothing is held.
func loadRecord(path string) (*record, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	r := &record{}
	if err == nil {
		err = json.Unmarshal(data, r)
	}
	if err == nil && r.Version != handover.Version {
		err = fmt.Errorf("it is of version %d", r.Version)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	return r, nil
}

// save replaces the record, which is the old or the new one whenever the process dies.
func (r *record) save(path string) error {
	r.Version = handover.Version
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	next := path + ".new"
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// dropRecord says that nothing is held.
func dropRecord(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
