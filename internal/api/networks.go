package api

import (
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
)

func (s *Server) networkList(w http.ResponseWriter, r *request) error {
	q := r.query()
	f := q.filters("dangling", "driver", "id", "label", "name", "scope", "type")
	q.check(f, "dangling", isBool)
	if q.err != nil {
		return q.err
	}
	list, err := s.Networks.List(r.Context(), f)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, networksFor(r.version, notNil(list)))
}

func (s *Server) networkInspect(w http.ResponseWriter, r *request) error {
	n, err := s.Networks.Inspect(r.Context(), r.vars["ref"])
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, n)
}

// networkRemove refuses: every network that lrd has is one of its own.
func (s *Server) networkRemove(_ http.ResponseWriter, r *request) error {
	n, err := s.Networks.Inspect(r.Context(), r.vars["ref"])
	if err != nil {
		return err
	}
	return errdefs.ErrPermissionDenied.WithMessage(fmt.Sprintf("%s is a pre-defined network and cannot be removed", n.Name))
}

// networkPrune finds nothing: only user-defined networks are pruned, and there are none.
func (s *Server) networkPrune(w http.ResponseWriter, _ *request) error {
	return answerJSON(w, http.StatusOK, network.PruneReport{NetworksDeleted: []string{}})
}
