package house

import (
	"slices"
	"strings"
	"testing"
)

// mayImport says which packages of this repository a package may import. Imports point down only, and a package
// that is not in the table may import none; what it needs of others it gets from whoever calls it.
// The tests of a package are bound by the same row.
var mayImport = map[string][]string{
	// The one place that introduces everybody.
	"cmd/lrd": {
		"internal/api", "internal/config", "internal/containers", "internal/events", "internal/fdstore", "internal/handover", "internal/images",
		"internal/journal", "internal/logdrivers", "internal/metrics",
		"internal/networks", "internal/oci", "internal/output", "internal/reload", "internal/sessions", "internal/units", "internal/volumes",
	},
	// Drains while lrd is stopped, and is to stay small: nothing that knows of containers, images or D-Bus.
	"cmd/lrd-standby": {"internal/fdstore", "internal/handover", "internal/journal", "internal/output", "internal/sessions"},
	// How the two speak to each other.
	"internal/handover": {"internal/output"},
	// Parses, calls, answers. Not units or fdstore: the API knows nothing of systemd.
	"internal/api": {
		"internal/config", "internal/containers", "internal/events", "internal/images", "internal/logopts", "internal/networks", "internal/output",
		"internal/sessions", "internal/volumes",
	},
	// Declares what it needs of the others as small interfaces; imports them for their types.
	"internal/containers": {
		"internal/config", "internal/events", "internal/fdstore", "internal/handover", "internal/health", "internal/images", "internal/logdrivers",
		"internal/logopts", "internal/networks", "internal/oci", "internal/output", "internal/rootfs", "internal/shell", "internal/units",
		"internal/volumes",
	},
	// Scripts that systemd runs.
	"internal/health": {"internal/shell"},
	// The store's options are among a log's.
	"internal/logopts": {"internal/output"},
	"internal/config":  {"internal/logopts"},
	// A lock for each container, or volume.
	"internal/images":  {"internal/keyed"},
	"internal/volumes": {"internal/keyed"},
	// Read a store and deliver what is in it.
	"internal/logdrivers": {"internal/logopts", "internal/output"},
	// Knows only the configuration and the Reloaders that it is given.
	"internal/reload": {"internal/config"},
	// Both sides of the resolver of containers' names.
	"internal/networks": {"internal/names", "internal/thread"},
	"cmd/lrd-dns":       {"internal/journal", "internal/names", "internal/thread"},
	// Mount namespaces that nothing runs in.
	"internal/rootfs": {"internal/thread"},
	// Streams from an output to a client.
	"internal/sessions": {"internal/output"},
}

// onlyIn says which packages may import what is outside of this repository and shapes whoever touches it, because
// each has one owner here. A key is an import path, or, with a slash at its end, everything below it. Tests are free:
// a fake or a check may need to reach below its own package.
var onlyIn = map[string][]string{
	// systemd is spoken to by units alone.
	"github.com/godbus/dbus/":               {"internal/units"},
	"github.com/coreos/go-systemd/v22/dbus": {"internal/units"},
	// Layers and archives. What is in main is the library's: it runs itself again to unpack in a chroot.
	"go.podman.io/": {"internal/images", "cmd/lrd"},
	// The kernel's network.
	"github.com/vishvananda/": {"internal/networks"},
	// The resolver is a small binary of its own.
	"github.com/miekg/": {"cmd/lrd-dns"},
	// What Docker allows a container.
	"github.com/moby/profiles/": {"internal/oci"},
	// Log drivers.
	"github.com/fluent/": {"internal/logdrivers"},
	// Figures for Prometheus.
	"github.com/prometheus/": {"internal/metrics"},
	// Devices by name.
	"tags.cncf.io/": {"internal/oci"},
	// HTTP is the API's business; reload answers one request of its own, images speaks to registries, Prometheus asks over it.
	"net/http": {"cmd/lrd", "internal/api", "internal/images", "internal/metrics", "internal/reload"},
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		for _, path := range p.allImports() {
			if other, ours := strings.CutPrefix(path, module); ours {
				if other != p.path() && !slices.Contains(mayImport[p.path()], other) {
					t.Errorf("%s imports %s, which the table in this file does not allow", p.path(), other)
				}
				continue
			}
			if !slices.Contains(p.Imports, path) {
				continue
			}
			for key, owners := range onlyIn {
				if (path == key || strings.HasSuffix(key, "/") && strings.HasPrefix(path+"/", key)) && !slices.Contains(owners, p.path()) {
					t.Errorf("%s imports %s, which is for %s alone", p.path(), path, strings.Join(owners, ", "))
				}
			}
		}
	}
}

// TestTableIsTrue finds rows of packages that are gone.
func TestTableIsTrue(t *testing.T) {
	there := map[string]bool{}
	for _, p := range packages(t) {
		there[p.path()] = true
	}
	for path, others := range mayImport {
		for _, name := range append([]string{path}, others...) {
			if !there[name] {
				t.Errorf("the table of imports has a package that is not there: %s", name)
			}
		}
	}
}

// TestImportsPointDown holds that the table itself has no circle, which Go would refuse only once it is used.
func TestImportsPointDown(t *testing.T) {
	var visit func(path string, way []string)
	visit = func(path string, way []string) {
		if slices.Contains(way, path) {
			t.Fatalf("the table of imports allows a circle: %s", strings.Join(append(way, path), " → "))
		}
		for _, other := range mayImport[path] {
			visit(other, append(slices.Clone(way), path))
		}
	}
	for path := range mayImport {
		visit(path, nil)
	}
}

func (p pkg) allImports() []string {
	all := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
	slices.Sort(all)
	return slices.Compact(all)
}
