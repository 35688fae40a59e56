package api

import (
	"io"
	"net/http"
	"strconv"

	eventtypes "github.com/moby/moby/api/types/events"
)

// imagePush pushes one tag, or without a tag all of a repository.
func (s *Server) imagePush(w http.ResponseWriter, r *request) error {
	q := r.query()
	name, tag := r.vars["name"], q.text("tag")
	platform := q.platform()
	if q.err != nil {
		return q.err
	}
	ref, all, err := repositoryOr("name", name, tag)
	if err != nil {
		return err
	}
	p := newProgressWriter(w)
	err = s.Images.Push(r.Context(), ref, all, platform, credentials(r), p.send)
	if err == nil {
		s.imageEvent(eventtypes.ActionPush, ref, ref)
	}
	return p.finish(r.Context(), err)
}

// imageSave saves the images that the path or the query names.
func (s *Server) imageSave(w http.ResponseWriter, r *request) error {
	q := r.query()
	refs := q.values["names"]
	if name, ok := r.vars["name"]; ok {
		refs = []string{name}
	}
	platform := q.platform()
	if q.err != nil {
		return q.err
	}
	if len(refs) == 0 {
		return invalid("invalid query: no image is named (names=)")
	}
	var ids []string // asked for before, as the names may move meanwhile
	for _, ref := range refs {
		ids = append(ids, s.imageID(r, ref))
	}
	err := sendArchive(w, func(w io.Writer) error { return s.Images.Save(r.Context(), refs, platform, w) })
	if err == nil {
		for i, ref := range refs {
			s.imageEvent(eventtypes.ActionSave, ids[i], ref)
		}
	}
	return err
}

func (s *Server) imagePrune(w http.ResponseWriter, r *request) error {
	q := r.query()
	f := q.filters("dangling", "label", "label!", "until")
	q.check(f, "dangling", isBool)
	if q.err != nil {
		return q.err
	}
	report, err := s.Images.Prune(r.Context(), f)
	for _, d := range report.ImagesDeleted {
		if d.Untagged != "" {
			s.imageEvent(eventtypes.ActionUnTag, d.Untagged, d.Untagged)
		}
		if d.Deleted != "" {
			s.imageEvent(eventtypes.ActionDelete, d.Deleted, d.Deleted)
		}
	}
	if err != nil {
		return err
	}
	s.pruneEvent(eventtypes.ImageEventType, report.SpaceReclaimed)
	return answerJSON(w, http.StatusOK, report)
}

// distributionInspect is what `docker manifest inspect` and docker-compose ask before they pull.
func (s *Server) distributionInspect(w http.ResponseWriter, r *request) error {
	found, err := s.Images.InspectRemote(r.Context(), r.vars["name"], credentials(r))
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, found)
}

// pruneEvent tells that objects of a kind were pruned, and what that gave back.
func (s *Server) pruneEvent(kind eventtypes.Type, reclaimed uint64) {
	s.Events.Publish(eventtypes.Message{
		Type: kind, Action: eventtypes.ActionPrune,
		Actor: eventtypes.Actor{Attributes: map[string]string{"reclaimed": strconv.FormatUint(reclaimed, 10)}},
	})
}
