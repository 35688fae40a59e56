package api

import (
	"net/http"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/container"
	eventtypes "github.com/moby/moby/api/types/events"

	"lrd/internal/containers"
)

func (s *Server) containerChanges(w http.ResponseWriter, r *request) error {
	changes, err := s.Containers.Changes(r.Context(), r.vars["ref"])
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, notNil(changes))
}

func (s *Server) commit(w http.ResponseWriter, r *request) error {
	q := r.query()
	o := containers.CommitOptions{
		Author: q.text("author"), Comment: q.text("comment"), Changes: q.values["changes"], Pause: q.flagOr("pause", true),
	}
	if q.err != nil {
		return q.err
	}
	if repo := q.text("repo"); repo != "" {
		named, err := reference.ParseNormalizedNamed(repo)
		if err != nil {
			return invalid("invalid reference format: %v", err)
		}
		tag := q.text("tag")
		if tag == "" {
			tag = "latest"
		}
		tagged, err := reference.WithTag(reference.TrimNamed(named), tag)
		if err != nil {
			return invalid("invalid tag %q: %v", tag, err)
		}
		o.Ref = reference.FamiliarString(tagged)
	}
	if err := r.decode(w, &o.Config); err != nil {
		return err
	}
	id, err := s.Containers.Commit(r.Context(), q.text("container"), o)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusCreated, container.CommitResponse{ID: id})
}

func (s *Server) containerPrune(w http.ResponseWriter, r *request) error {
	q := r.query()
	f := q.filters("label", "label!", "until")
	if q.err != nil {
		return q.err
	}
	report, err := s.Containers.Prune(r.Context(), f)
	if err != nil {
		return err
	}
	s.pruneEvent(eventtypes.ContainerEventType, report.SpaceReclaimed)
	return answerJSON(w, http.StatusOK, report)
}
