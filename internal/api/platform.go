package api

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// platforms reads a parameter that may be there several times: os/arch[/variant], as of a create and a pull, or the JSON
// of a platform, as of all that came later.
func (p *params) platforms(name string) (all []ocispec.Platform) {
	for _, s := range p.values[name] {
		var one ocispec.Platform
		var ok bool
		switch {
		case s == "":
			continue
		case strings.HasPrefix(s, "{"):
			ok = json.Unmarshal([]byte(s), &one) == nil && one.OS != "" && one.Architecture != ""
		default:
			one, ok = parsePlatform(s)
		}
		if !ok {
			p.fail("invalid value for %s: %q is not a platform like linux/amd64", name, s)
		}
		all = append(all, one)
	}
	return all
}

// platform is the one that the parameter "platform" names; nil for none. lrd keeps one platform of an image, so several are
// more than there can be.
func (p *params) platform() *ocispec.Platform {
	switch all := p.platforms("platform"); len(all) {
	case 0:
		return nil
	case 1:
		return &all[0]
	}
	p.fail("invalid value for platform: lrd keeps one platform of an image, so name one")
	return nil
}

// parsePlatform reads os/arch[/variant]; one name alone is an architecture, or linux for this machine's.
func parsePlatform(s string) (wanted ocispec.Platform, ok bool) {
	parts := strings.Split(s, "/")
	for _, part := range parts {
		if part == "" {
			return wanted, false
		}
	}
	switch {
	case len(parts) > 3:
		return wanted, false
	case s == "linux":
		return ocispec.Platform{OS: "linux", Architecture: goArch}, true
	case len(parts) == 1:
		return ocispec.Platform{OS: "linux", Architecture: s}, true
	}
	wanted = ocispec.Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		wanted.Variant = parts[2]
	}
	return wanted, true
}

// isOf is an error if the image is of none of the platforms, in the words of a push and a save. Without any, all are right.
func isOf(ref string, img image.InspectResponse, wanted ...ocispec.Platform) error {
	var names []string
	for _, w := range wanted {
		if w.OS == img.Os && w.Architecture == img.Architecture {
			return nil
		}
		names = append(names, w.OS+"/"+w.Architecture)
	}
	if len(names) == 0 || img.Architecture == "" {
		return nil
	}
	return errdefs.ErrNotFound.WithMessage(fmt.Sprintf("image with reference %s was found but its platform (%s/%s) does not match the specified platform (%s)",
		ref, img.Os, img.Architecture, strings.Join(names, ", ")))
}
