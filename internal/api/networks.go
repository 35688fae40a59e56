package api

import (
	"net/http"

	eventtypes "github.com/moby/moby/api/types/events"
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

func (s *Server) networkCreate(w http.ResponseWriter, r *request) error {
	var req network.CreateRequest
	if err := r.decode(w, &req); err != nil {
		return err
	}
	n, err := s.Networks.Create(r.Context(), req)
	if err != nil {
		return err
	}
	s.networkEvent(eventtypes.ActionCreate, n)
	return answerJSON(w, http.StatusCreated, network.CreateResponse{ID: n.ID})
}

func (s *Server) networkRemove(w http.ResponseWriter, r *request) error {
	n, err := s.Networks.Remove(r.Context(), r.vars["ref"])
	if err != nil {
		return err
	}
	s.networkEvent(eventtypes.ActionDestroy, n)
	return noContent(w)
}

func (s *Server) networkPrune(w http.ResponseWriter, r *request) error {
	q := r.query()
	f := q.filters("label", "label!", "until")
	if q.err != nil {
		return q.err
	}
	removed, err := s.Networks.Prune(r.Context(), f)
	report := network.PruneReport{NetworksDeleted: []string{}}
	for _, n := range removed {
		s.networkEvent(eventtypes.ActionDestroy, n)
		report.NetworksDeleted = append(report.NetworksDeleted, n.Name)
	}
	if err != nil {
		return err
	}
	s.Events.Publish(eventtypes.Message{
		Type: eventtypes.NetworkEventType, Action: eventtypes.ActionPrune,
		Actor: eventtypes.Actor{Attributes: map[string]string{"reclaimed": "0"}},
	})
	return answerJSON(w, http.StatusOK, report)
}

func (s *Server) networkConnect(w http.ResponseWriter, r *request) error {
	var req network.ConnectRequest
	if err := r.decode(w, &req); err != nil {
		return err
	}
	if req.Container == "" {
		return invalid("a container to connect is needed")
	}
	if r.version.before(48) && req.EndpointConfig != nil {
		req.EndpointConfig.GwPriority = 0
	}
	if err := s.Containers.ConnectNetwork(r.Context(), req.Container, r.vars["ref"], req.EndpointConfig); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) networkDisconnect(w http.ResponseWriter, r *request) error {
	var req network.DisconnectRequest
	if err := r.decode(w, &req); err != nil {
		return err
	}
	if req.Container == "" {
		return invalid("a container to disconnect is needed")
	}
	if err := s.Containers.DisconnectNetwork(r.Context(), req.Container, r.vars["ref"], req.Force); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) networkEvent(action eventtypes.Action, n network.Inspect) {
	s.Events.Publish(eventtypes.Message{
		Type: eventtypes.NetworkEventType, Action: action,
		Actor: eventtypes.Actor{ID: n.ID, Attributes: map[string]string{"name": n.Name, "type": n.Driver}},
	})
}
