package networks

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

// kindError is a sentence for a person with a kind for the program.
type kindError struct {
	sentence string
	kind     error
}

func (e *kindError) Error() string { return e.sentence }
func (e *kindError) Unwrap() error { return e.kind }

func invalid(format string, args ...any) error {
	return &kindError{fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument}
}

func unsupported(format string, args ...any) error {
	return &kindError{fmt.Sprintf(format, args...), errdefs.ErrNotImplemented}
}

// RestoreError says whose network Restore could not take back as it was.
// The others are restored; nothing of a container was changed. Its kind is
// ErrFailedPrecondition.
type RestoreError struct {
	// Containers holds, by container, an error of the kinds below.
	Containers map[string]error
}

// Error lists the containers in order.
func (e *RestoreError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cannot restore the network of %d containers", len(e.Containers))
	for _, id := range slices.Sorted(maps.Keys(e.Containers)) {
		fmt.Fprintf(&b, "; %s: %v", id, e.Containers[id])
	}
	return b.String()
}

// Unwrap gives the kind.
func (e *RestoreError) Unwrap() error { return errdefs.ErrFailedPrecondition }

// BridgeChangedError says that an endpoint was made under another bip than the
// one that is configured now. Its connectivity is kept as it was: the old
// address stays on the bridge for as long as such endpoints live.
type BridgeChangedError struct {
	Bridge string
	// Had is the gateway and subnet that the endpoint lives by, Have what is
	// configured.
	Had, Have netip.Prefix
}

func (e *BridgeChangedError) Error() string {
	return fmt.Sprintf("the address of %s changed from %s to %s: the container keeps the old one until it is restarted", e.Bridge, e.Had, e.Have)
}

// Unwrap gives the kind.
func (e *BridgeChangedError) Unwrap() error { return errdefs.ErrFailedPrecondition }

// EndpointGoneError says that a part of an endpoint no longer exists, so that
// the container has no network; What names the part.
type EndpointGoneError struct {
	ContainerID string
	What        string
}

func (e *EndpointGoneError) Error() string {
	return fmt.Sprintf("the container has lost its network: %s no longer exists", e.What)
}

// Unwrap gives the kind.
func (e *EndpointGoneError) Unwrap() error { return errdefs.ErrFailedPrecondition }
