package api

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/container"

	"lrd/internal/containers"
)

// pathStatHeader tells of what is copied, as base64 of the JSON of a container.PathStat.
const pathStatHeader = "X-Docker-Container-Path-Stat"

func (s *Server) archiveStat(w http.ResponseWriter, r *request) error {
	path, err := archivePath(r.query())
	if err != nil {
		return err
	}
	stat, err := s.Containers.ArchiveStat(r.Context(), r.vars["ref"], path)
	if err != nil {
		return err
	}
	return tellPath(w, stat)
}

func (s *Server) archiveGet(w http.ResponseWriter, r *request) error {
	path, err := archivePath(r.query())
	if err != nil {
		return err
	}
	a, err := s.Containers.Archive(r.Context(), r.vars["ref"], path)
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }() // it is only read
	if err := tellPath(w, a.Stat); err != nil {
		return err
	}
	return sendArchive(w, func(out io.Writer) error { return a.Write(r.Context(), out) })
}

func (s *Server) archivePut(w http.ResponseWriter, r *request) error {
	q := r.query()
	o := containers.ExtractOptions{NoOverwriteDirNonDir: q.flag("noOverwriteDirNonDir"), CopyUIDGID: q.flag("copyUIDGID")}
	path, err := archivePath(q)
	if err != nil {
		return err
	}
	if err := s.Containers.Extract(r.Context(), r.vars["ref"], path, r.Body, o); err != nil {
		return err
	}
	// What follows the archive's end is the client's to send and nobody's to have.
	_, _ = io.Copy(io.Discard, r.Body)
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) containerExport(w http.ResponseWriter, r *request) error {
	a, err := s.Containers.Export(r.Context(), r.vars["ref"])
	if err != nil {
		return err
	}
	defer func() { _ = a.Close() }() // it is only read
	return sendArchive(w, func(out io.Writer) error { return a.Write(r.Context(), out) })
}

func (s *Server) containerChanges(w http.ResponseWriter, r *request) error {
	changes, err := s.Containers.Changes(r.Context(), r.vars["ref"])
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, notNil(changes))
}

func archivePath(q *params) (string, error) {
	if q.err == nil && q.text("path") == "" {
		q.fail("bad parameter: path cannot be empty")
	}
	return q.text("path"), q.err
}

func tellPath(w http.ResponseWriter, stat container.PathStat) error {
	told, err := json.Marshal(stat)
	if err != nil {
		return err
	}
	w.Header().Set(pathStatHeader, base64.StdEncoding.EncodeToString(told))
	return nil
}
