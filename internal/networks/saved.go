package networks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// The version of a network's saved form; the rules are those of a container's Record: a change that an older lrd can live
// with raises the minor.
const (
	savedMajor = 1
	savedMinor = 0
)

// savedNetwork is a network on disk:
//
//	<data-root>/networks/<id>.json     0600, replaced atomically, synced
type savedNetwork struct {
	Schema struct {
		Major int `json:"major"`
		Minor int `json:"minor"`
	} `json:"schema"`
	Network
}

// save writes a network so that after a crash or a power cut it is there or it is not.
func save(dir string, n Network) error {
	s := savedNetwork{Network: n}
	s.Schema.Major, s.Schema.Minor = savedMajor, savedMinor
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("cannot encode network %s: %w", n, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the directory of networks: %w", err)
	}
	if err := renameio.WriteFile(savedPath(dir, n.ID), data, 0o600); err != nil {
		return fmt.Errorf("cannot save network %s: %w", n, err)
	}
	return nil
}

// forget removes a network's file.
func forget(dir string, n Network) error {
	if err := os.Remove(savedPath(dir, n.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove network %s from disk: %w", n, err)
	}
	return nil
}

func savedPath(dir, id string) string { return filepath.Join(dir, id+".json") }

// load reads all networks. What cannot be read is in failed, by file, and stays where it is.
func load(dir string) (all []Network, failed map[string]error, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("cannot read the directory of networks: %w", err)
	}
	failed = map[string]error{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(id, ".") {
			continue
		}
		n, err := read(filepath.Join(dir, e.Name()))
		if err == nil && n.ID != id {
			err = fmt.Errorf("the file is that of network %s", n.ID)
		}
		if err != nil {
			failed[e.Name()] = err
			continue
		}
		all = append(all, n)
	}
	return all, failed, nil
}

// read reads one network, and makes sure that nothing of it reaches nft's input or a path unchecked.
func read(path string) (Network, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Network{}, err
	}
	var s savedNetwork
	if err := json.Unmarshal(data, &s); err != nil {
		return Network{}, err
	}
	if s.Schema.Major != savedMajor || s.Schema.Minor > savedMinor+1 {
		return Network{}, fmt.Errorf("it has schema %d.%d and this version of lrd reads %d.%d", s.Schema.Major, s.Schema.Minor, savedMajor, savedMinor)
	}
	n := s.Network
	if !nameForm.MatchString(n.Name) || n.Default() {
		return Network{}, fmt.Errorf("invalid network name %q", n.Name)
	}
	if err := errors.Join(checkID(n.ID), checkBridgeName(n.Bridge), checkMTU(n.MTU)); err != nil {
		return Network{}, err
	}
	if !n.Subnet4().Gateway.IsValid() {
		return Network{}, errors.New("it has no IPv4 subnet")
	}
	for _, s := range n.Subnets {
		if err := checkInside(s.Subnet, "gateway", s.Gateway); err != nil {
			return Network{}, err
		}
	}
	return n, nil
}
