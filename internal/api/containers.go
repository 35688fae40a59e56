package api

import (
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/container"
	eventtypes "github.com/moby/moby/api/types/events"

	"lrd/internal/containers"
)

func (s *Server) containerList(w http.ResponseWriter, r *request) error {
	q := r.query()
	o := containers.ListOptions{
		All:  q.flag("all"),
		Size: q.flag("size"),
		Filters: q.filters("ancestor", "annotation", "before", "expose", "exited", "health", "id", "is-task", "isolation", "label",
			"name", "network", "publish", "since", "status", "volume"),
	}
	q.check(o.Filters, "status", isState)
	q.check(o.Filters, "exited", isNumber)
	q.check(o.Filters, "health", isHealth)
	q.check(o.Filters, "is-task", isBool)
	if n := q.number("limit"); n != nil && *n > 0 {
		o.Limit = *n
	}
	oldListFilters(q, o.Filters)
	if q.err != nil {
		return q.err
	}
	list, err := s.Containers.List(r.Context(), o)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, summariesFor(r.version, list))
}

func (s *Server) containerCreate(w http.ResponseWriter, r *request) error {
	req, warnings, err := r.createRequest(w)
	if err != nil {
		return err
	}
	resp, err := s.Containers.Create(r.Context(), req)
	if err != nil {
		return err
	}
	resp.Warnings = append(append([]string{}, resp.Warnings...), warnings...)
	return answerJSON(w, http.StatusCreated, resp)
}

func (s *Server) containerInspect(w http.ResponseWriter, r *request) error {
	q := r.query()
	size := q.flag("size")
	if q.err != nil {
		return q.err
	}
	c, err := s.Containers.Inspect(r.Context(), r.vars["ref"], size)
	if err != nil {
		return err
	}
	body, err := inspectFor(r.version, c)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, body)
}

func (s *Server) containerTop(w http.ResponseWriter, r *request) error {
	q := r.query()
	args := strings.Fields(q.text("ps_args"))
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	if q.err != nil {
		return q.err
	}
	top, err := s.Containers.Top(r.Context(), r.vars["ref"], args)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, top)
}

func (s *Server) containerStart(w http.ResponseWriter, r *request) error {
	q := r.query()
	if q.text("checkpoint") != "" || q.text("checkpoint-dir") != "" {
		return notImplemented("lrd has no checkpoints")
	}
	if q.err != nil {
		return q.err
	}
	if r.ContentLength > 7 { // a JSON object that says anything is longer
		return invalid("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if err := s.Containers.Start(r.Context(), r.vars["ref"]); err != nil {
		return err
	}
	return noContent(w)
}

// stopOptions reads the query of stop and restart.
func (r *request) stopOptions() (containers.StopOptions, error) {
	q := r.query()
	o := containers.StopOptions{Timeout: q.number("t"), Signal: stopSignalOf(r.version, q)}
	if o.Timeout != nil && *o.Timeout < -1 {
		q.fail("invalid value for t: %d; -1 waits for ever", *o.Timeout)
	}
	return o, q.err
}

func (s *Server) containerStop(w http.ResponseWriter, r *request) error {
	o, err := r.stopOptions()
	if err != nil {
		return err
	}
	if err := s.Containers.Stop(r.Context(), r.vars["ref"], o); err != nil {
		return err
	}
	return noContent(w)
}

func (s *Server) containerRestart(w http.ResponseWriter, r *request) error {
	o, err := r.stopOptions()
	if err != nil {
		return err
	}
	if err := s.Containers.Restart(r.Context(), r.vars["ref"], o); err != nil {
		return err
	}
	return noContent(w)
}

func (s *Server) containerKill(w http.ResponseWriter, r *request) error {
	q := r.query()
	if q.err != nil {
		return q.err
	}
	if err := s.Containers.Kill(r.Context(), r.vars["ref"], q.text("signal")); err != nil {
		return err
	}
	return noContent(w)
}

func (s *Server) containerPause(w http.ResponseWriter, r *request) error {
	if err := s.Containers.Pause(r.Context(), r.vars["ref"]); err != nil {
		return err
	}
	return noContent(w)
}

func (s *Server) containerUnpause(w http.ResponseWriter, r *request) error {
	if err := s.Containers.Unpause(r.Context(), r.vars["ref"]); err != nil {
		return err
	}
	return noContent(w)
}

func (s *Server) containerUpdate(w http.ResponseWriter, r *request) error {
	var u container.UpdateConfig
	if err := r.decode(w, &u); err != nil {
		return err
	}
	resp, err := s.Containers.Update(r.Context(), r.vars["ref"], u)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, resp)
}

func (s *Server) containerRename(w http.ResponseWriter, r *request) error {
	q := r.query()
	if q.err != nil {
		return q.err
	}
	name := strings.TrimPrefix(q.text("name"), "/")
	if name == "" {
		return invalid("invalid value for name: a container cannot be renamed to nothing")
	}
	if err := s.Containers.Rename(r.Context(), r.vars["ref"], name); err != nil {
		return err
	}
	return noContent(w)
}

func (s *Server) containerRemove(w http.ResponseWriter, r *request) error {
	q := r.query()
	o := containers.RemoveOptions{Force: q.flag("force"), Volumes: q.flag("v"), Link: q.flag("link")}
	if q.err != nil {
		return q.err
	}
	if err := s.Containers.Remove(r.Context(), r.vars["ref"], o); err != nil {
		return err
	}
	return noContent(w)
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

func (s *Server) containerResize(w http.ResponseWriter, r *request) error {
	height, width, err := windowSize(r.query())
	if err != nil {
		return err
	}
	if err := s.Containers.Resize(r.Context(), r.vars["ref"], height, width); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// windowSize reads the size of a terminal, in characters.
func windowSize(q *params) (height, width uint16, err error) {
	h, w := q.number("h"), q.number("w")
	for name, n := range map[string]*int{"h": h, "w": w} {
		if q.err == nil && (n == nil || *n < 0 || *n > 65535) {
			q.fail("invalid value for %s: %q is not a number from 0 to 65535", name, q.text(name))
		}
	}
	if q.err != nil {
		return 0, 0, q.err
	}
	return uint16(*h), uint16(*w), nil
}
