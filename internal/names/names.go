package names

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// Where a container asks, and where the resolver listens. The address is Docker's; the port lies outside of the range that
// the kernel takes ports from by itself.
const Port = 61053

// Server is the name server's address in containers.
var Server = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// Container is what one file says.
type Container struct {
	ID string `json:"id"`
	// NetNS is the path of its network namespace.
	NetNS string `json:"netNS"`
	// Servers are the name servers that the container was given for what is not a container's name; they are asked from inside
	// of its namespace. Without any, the host's are asked, from the host.
	Servers []netip.Addr `json:"servers,omitempty"`
	// Internal says that there is no way out of the container's networks: other names do not exist for it.
	Internal bool `json:"internal,omitempty"`
	// Networks are the networks that it is in.
	Networks []Network `json:"networks"`
}

// Network is a container's place in one network.
type Network struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Names are what the container is called there, without the network's name. The first is the answer to the question who
	// has an address.
	Names []string `json:"names"`
	// Links are what the container, and nobody else, calls others there: the name of one of them by its word for it.
	Links map[string]string `json:"links,omitempty"`
	IPv4  netip.Addr        `json:"ipv4,omitzero"`
	IPv6  netip.Addr        `json:"ipv6,omitzero"`
}

const (
	fileSuffix  = ".json"
	endedSuffix = ".ended"
)

// EndedMark is the path of a container's mark.
func EndedMark(dir, id string) string { return filepath.Join(dir, id+endedSuffix) }

func path(dir, id string) string { return filepath.Join(dir, id+fileSuffix) }

// Write writes a container's file, making the directory if need be.
func Write(dir string, c Container) error {
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("cannot encode the names of container %s: %w", c.ID, err)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("cannot make the directory of names: %w", err)
	}
	if err := renameio.WriteFile(path(dir, c.ID), data, 0o600, renameio.WithTempDir(dir)); err != nil {
		return fmt.Errorf("cannot write the names of container %s: %w", c.ID, err)
	}
	return nil
}

// Remove removes a container's file and its mark. A container that has none is no error.
func Remove(dir, id string) error {
	for _, p := range []string{path(dir, id), EndedMark(dir, id)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove the names of container %s: %w", id, err)
		}
	}
	return nil
}

// Has says whether a container has a file.
func Has(dir, id string) bool {
	_, err := os.Lstat(path(dir, id))
	return err == nil
}

// Listed lists who has a file in the directory, and who has a mark. A directory that is not there is an empty one.
func Listed(dir string) (files []string, ended map[string]bool, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("cannot read the directory of names: %w", err)
	}
	ended = map[string]bool{}
	for _, e := range entries {
		// A temporary file begins with a dot.
		if id, ok := strings.CutSuffix(e.Name(), fileSuffix); ok && !strings.HasPrefix(id, ".") {
			files = append(files, id)
		} else if id, ok := strings.CutSuffix(e.Name(), endedSuffix); ok {
			ended[id] = true
		}
	}
	return files, ended, nil
}

// Read reads a container's file.
func Read(dir, id string) (Container, error) {
	data, err := os.ReadFile(path(dir, id))
	if err != nil {
		return Container{}, fmt.Errorf("cannot read the names of container %s: %w", id, err)
	}
	var c Container
	if err := json.Unmarshal(data, &c); err != nil {
		return Container{}, fmt.Errorf("cannot read the names of container %s: %w", id, err)
	}
	if c.ID != id {
		return Container{}, fmt.Errorf("the file of container %s is that of %s", id, c.ID)
	}
	return c, nil
}

// done is the resolver's answer at its socket.
const done = "ok\n"

// Sync waits until the resolver has read the directory as it is now, starting the resolver if it does not run.
func Sync(ctx context.Context, socket string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("cannot reach the resolver of containers' names: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	defer c.Close()
	answer, err := io.ReadAll(io.LimitReader(c, 256))
	if err != nil {
		return fmt.Errorf("the resolver of containers' names does not answer: %w", errors.Join(err, context.Cause(ctx)))
	}
	if string(answer) != done {
		return fmt.Errorf("the resolver of containers' names failed: %s", strings.TrimSpace(string(answer)))
	}
	return nil
}

// Answer is the resolver's side of Sync: it says that everything is in place, or what is not, and ends the connection.
func Answer(c net.Conn, err error) error {
	text := done
	if err != nil {
		text = strings.ReplaceAll(err.Error(), "\n", "; ") + "\n"
	}
	_, writeErr := io.WriteString(c, text)
	return errors.Join(writeErr, c.Close())
}
