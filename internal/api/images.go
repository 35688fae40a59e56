package api

import (
	"net/http"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/pkg/authconfig"
	eventtypes "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
)

func (s *Server) imageList(w http.ResponseWriter, r *request) error {
	q := r.query()
	f := q.filters("before", "dangling", "label", "reference", "since", "until")
	q.check(f, "dangling", isBool)
	all, shared := q.flag("all"), q.flag("shared-size")
	oldImageFilter(r.version, q, f)
	if q.err != nil {
		return q.err
	}
	list, err := s.Images.List(r.Context(), ImageListOptions{All: all, SharedSize: shared, Filters: f})
	if err != nil {
		return err
	}
	body, err := imageSummariesFor(r.version, list)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, body)
}

func (s *Server) imageInspect(w http.ResponseWriter, r *request) error {
	img, err := s.inspectOf(r, "platform")
	if err != nil {
		return err
	}
	body, err := imageInspectFor(r.version, img)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, body)
}

// inspectOf is the image that the path names. If the query names platforms in that parameter, it must be of one of them.
func (s *Server) inspectOf(r *request, parameter string) (image.InspectResponse, error) {
	q := r.query()
	platforms := q.platforms(parameter)
	if q.err != nil {
		return image.InspectResponse{}, q.err
	}
	img, err := s.Images.Inspect(r.Context(), r.vars["name"])
	if err == nil {
		err = isOf(r.vars["name"], img, platforms...)
	}
	return img, err
}

func (s *Server) imageHistory(w http.ResponseWriter, r *request) error {
	if _, err := s.inspectOf(r, "platform"); err != nil {
		return err
	}
	items, err := s.Images.History(r.Context(), r.vars["name"])
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, notNil(items))
}

func (s *Server) imageTag(w http.ResponseWriter, r *request) error {
	q := r.query()
	if q.err != nil {
		return q.err
	}
	target, err := referenceOf("repo", q.text("repo"), q.text("tag"))
	if err != nil {
		return err
	}
	if target == "" {
		return invalid("invalid value for repo: it must not be empty")
	}
	if err := s.Images.Tag(r.Context(), r.vars["name"], target); err != nil {
		return err
	}
	s.imageEvent(eventtypes.ActionTag, s.imageID(r, target), target)
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *Server) imageRemove(w http.ResponseWriter, r *request) error {
	q := r.query()
	force, noPrune := q.flag("force"), q.flag("noprune")
	if q.err != nil {
		return q.err
	}
	if q.values.Has("platforms") {
		if _, err := s.inspectOf(r, "platforms"); err != nil {
			return err
		}
	}
	id := s.imageID(r, r.vars["name"]) // asked for before it is gone
	removed, err := s.Images.Remove(r.Context(), r.vars["name"], force, !noPrune)
	if err != nil {
		return err
	}
	for _, d := range removed {
		if d.Untagged != "" {
			s.imageEvent(eventtypes.ActionUnTag, id, d.Untagged)
		}
		if d.Deleted != "" {
			s.imageEvent(eventtypes.ActionDelete, d.Deleted, d.Deleted)
		}
	}
	return answerJSON(w, http.StatusOK, notNil(removed))
}

func (s *Server) imageLoad(w http.ResponseWriter, r *request) error {
	q := r.query()
	quiet := q.flagOr("quiet", true)
	platform := q.platform()
	if q.err != nil {
		return q.err
	}
	if platform != nil && (platform.OS != "linux" || platform.Architecture != goArch) {
		return notImplemented("lrd loads what an archive has for this machine, linux/" + goArch + ": name no platform, or that one")
	}
	p := newProgressWriter(w)
	err := s.Images.Load(r.Context(), r.Body, func(m jsonstream.Message) {
		if quiet && m.Progress != nil {
			return
		}
		p.send(m)
	})
	if err == nil {
		s.imageEvent(eventtypes.ActionLoad, "", "")
	}
	return p.finish(r.Context(), err)
}

// imageCreate is a pull with fromImage and an import with fromSrc.
func (s *Server) imageCreate(w http.ResponseWriter, r *request) error {
	q := r.query()
	switch {
	case q.err != nil:
		return q.err
	case q.text("fromImage") != "":
		return s.pull(w, r, q)
	case q.text("fromSrc") != "":
		return s.importImage(w, r, q)
	}
	return invalid("invalid query: fromImage (a pull) or fromSrc (an import) is needed")
}

func (s *Server) pull(w http.ResponseWriter, r *request, q *params) error {
	// `docker pull -a` of old clients ends the name with a colon.
	name, tag := strings.TrimSuffix(q.text("fromImage"), ":"), q.text("tag")
	ref, all, err := repositoryOr("fromImage", name, tag)
	if err != nil {
		return err
	}
	platform := q.platform()
	if q.err != nil {
		return q.err
	}
	p := newProgressWriter(w)
	err = s.Images.Pull(r.Context(), ref, all, platform, credentials(r), p.send)
	if err == nil {
		s.imageEvent(eventtypes.ActionPull, ref, ref)
	}
	return p.finish(r.Context(), err)
}

// credentials are those for a registry that the client has sent. As with dockerd, such that cannot be read are
// none: most registries need none.
func credentials(r *request) registry.AuthConfig {
	auth, err := authconfig.Decode(r.Header.Get(registry.AuthHeader))
	if err != nil {
		return registry.AuthConfig{}
	}
	return *auth
}

// repositoryOr is the reference that name and tag are, or, if there is neither tag nor digest, the repository: all
// of its tags are meant.
func repositoryOr(field, name, tag string) (ref string, all bool, err error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", false, invalid("invalid value for %s: %v", field, err)
	}
	if tag == "" && reference.IsNameOnly(named) {
		return reference.FamiliarString(named), true, nil
	}
	ref, err = referenceOf(field, name, tag)
	return ref, false, err
}

// referenceOf joins a name and a tag or digest, and gives it in Docker's familiar form. An empty name is the
// empty reference. field is named when it is malformed.
func referenceOf(field, name, tag string) (string, error) {
	if name == "" {
		return "", nil
	}
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", invalid("invalid value for %s: %v", field, err)
	}
	if tag != "" {
		if d, err := digest.Parse(tag); err == nil {
			ref, err = reference.WithDigest(reference.TrimNamed(ref), d)
			if err != nil {
				return "", invalid("invalid value for tag: %v", err)
			}
		} else if ref, err = reference.WithTag(reference.TrimNamed(ref), tag); err != nil {
			return "", invalid("invalid value for tag: %v", err)
		}
	}
	return reference.FamiliarString(reference.TagNameOnly(ref)), nil
}

// imageID returns the ID of the image that ref names, or ref itself: an event is told in any case.
func (s *Server) imageID(r *request, ref string) string {
	img, err := s.Images.Inspect(r.Context(), ref)
	if err != nil {
		return ref
	}
	return img.ID
}

func (s *Server) imageEvent(action eventtypes.Action, id, name string) {
	m := eventtypes.Message{Type: eventtypes.ImageEventType, Action: action, Actor: eventtypes.Actor{ID: id, Attributes: map[string]string{}}}
	if name != "" {
		m.Actor.Attributes["name"] = name
	}
	s.Events.Publish(m)
}

// notNil makes an absent list the empty one: clients expect [], not null.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
