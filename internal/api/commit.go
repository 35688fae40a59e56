package api

import (
	"net/http"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/containers"
)

func (s *Server) commit(w http.ResponseWriter, r *request) error {
	q := r.query()
	o := containers.CommitOptions{
		Author: q.text("author"), Comment: q.text("comment"), Changes: q.values["changes"], Pause: q.flagOr("pause", true),
	}
	if q.err != nil {
		return q.err
	}
	var err error
	if o.Ref, err = referenceOf("repo", q.text("repo"), q.text("tag")); err != nil {
		return err
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
