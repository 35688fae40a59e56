package images

import (
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// parseName makes a name that a person has typed into a full one: registry,
// path, and a tag or a digest. It is Docker's normalisation, which leaves
// "example/bb" on docker.io.
func parseName(s string) (reference.Named, error) {
	named, err := reference.ParseDockerRef(s)
	if err != nil {
		return nil, badName(s, err)
	}
	return named, nil
}

// badName is the refusal of what a person has typed for a name, with the reason if the parser has one, as Docker says it.
func badName(s string, err error) error {
	if reason := err.Error(); strings.HasPrefix(reason, "invalid reference format: ") {
		return newError(errdefs.ErrInvalidArgument, "%s", reason)
	}
	return newError(errdefs.ErrInvalidArgument, "invalid reference format: %q", s)
}

// parseTag is parseName for a name that an image is to be given: a digest
// cannot be given, it is found.
func parseTag(s string) (reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, badName(s, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, newError(errdefs.ErrInvalidArgument, "refusing to create a tag with a digest reference: %q", s)
	}
	tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
	if !ok {
		return nil, newError(errdefs.ErrInvalidArgument, "invalid reference format: %q has no tag", s)
	}
	return tagged, nil
}

// familiarNames sorts stored names into tags and digests in the form that
// Docker shows. A name that does not parse (another tool may have written it)
// is shown as it is.
func familiarNames(stored []string) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	for _, name := range stored {
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			tags = append(tags, name)
			continue
		}
		if _, ok := named.(reference.Digested); ok {
			digests = append(digests, reference.FamiliarString(named))
		} else {
			tags = append(tags, reference.FamiliarString(named))
		}
	}
	slices.Sort(tags)
	slices.Sort(digests)
	return slices.Compact(tags), slices.Compact(digests)
}

// isDigestName tells whether a stored name carries a digest rather than a tag.
func isDigestName(stored string) bool { return strings.Contains(stored, "@") }

// repository is a stored name without its tag or digest.
func repository(stored string) string {
	named, err := reference.ParseNormalizedNamed(stored)
	if err != nil {
		return stored
	}
	return named.Name()
}
