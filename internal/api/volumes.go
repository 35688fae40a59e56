package api

import (
	"net/http"

	eventtypes "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/volume"
)

func (s *Server) volumeList(w http.ResponseWriter, r *request) error {
	q := r.query()
	f := q.filters("dangling", "driver", "label", "name")
	q.check(f, "dangling", isBool)
	if q.err != nil {
		return q.err
	}
	list, err := s.Volumes.List(r.Context(), f)
	if err != nil {
		return err
	}
	list.Volumes, list.Warnings = notNil(list.Volumes), notNil(list.Warnings)
	return answerJSON(w, http.StatusOK, list)
}

func (s *Server) volumeCreate(w http.ResponseWriter, r *request) error {
	var req volume.CreateRequest
	if err := r.decode(w, &req); err != nil {
		return err
	}
	if req.ClusterVolumeSpec != nil {
		return errNotAManager
	}
	v, err := s.Volumes.Create(r.Context(), req)
	if err != nil {
		return err
	}
	s.volumeEvent(eventtypes.ActionCreate, v.Name)
	return answerJSON(w, http.StatusCreated, v)
}

func (s *Server) volumeInspect(w http.ResponseWriter, r *request) error {
	v, err := s.Volumes.Inspect(r.Context(), r.vars["name"])
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, v)
}

func (s *Server) volumeRemove(w http.ResponseWriter, r *request) error {
	q := r.query()
	force := q.flag("force")
	if q.err != nil {
		return q.err
	}
	if err := s.Volumes.Remove(r.Context(), r.vars["name"], force); err != nil {
		return err
	}
	s.volumeEvent(eventtypes.ActionDestroy, r.vars["name"])
	return noContent(w)
}

func (s *Server) volumePrune(w http.ResponseWriter, r *request) error {
	q := r.query()
	f := q.filters("all", "label", "label!")
	q.check(f, "all", isBool)
	pruneAllBefore142(r.version, f)
	if q.err != nil {
		return q.err
	}
	report, err := s.Volumes.Prune(r.Context(), f)
	if err != nil {
		return err
	}
	for _, name := range report.VolumesDeleted {
		s.volumeEvent(eventtypes.ActionDestroy, name)
	}
	s.pruneEvent(eventtypes.VolumeEventType, report.SpaceReclaimed)
	report.VolumesDeleted = notNil(report.VolumesDeleted)
	return answerJSON(w, http.StatusOK, report)
}

func (s *Server) volumeEvent(action eventtypes.Action, name string) {
	s.Events.Publish(eventtypes.Message{
		Type: eventtypes.VolumeEventType, Action: action,
		Actor: eventtypes.Actor{ID: name, Attributes: map[string]string{"driver": "local"}},
	})
}
