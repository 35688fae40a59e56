package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	eventtypes "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
)

// importImage makes an image of a root filesystem, which is the body, or is fetched from the URL that fromSrc names.
func (s *Server) importImage(w http.ResponseWriter, r *request, q *params) error {
	ref, err := referenceOf("repo", q.text("repo"), q.text("tag"))
	if err != nil {
		return err
	}
	o := ImportOptions{Ref: ref, Message: q.text("message"), Changes: q.values["changes"], Platform: q.platform()}
	if q.err != nil {
		return q.err
	}
	src := q.text("fromSrc")
	if o.Message == "" {
		o.Message = "Imported from " + src
	}
	p := newProgressWriter(w)
	archive := r.Body
	if src != "-" {
		if archive, err = fetch(r.Context(), src); err != nil {
			return err
		}
		defer archive.Close()
		p.send(jsonstream.Message{Status: "Downloading from " + src})
	}
	id, err := s.Images.Import(r.Context(), archive, o, p.send)
	if err == nil {
		s.imageEvent(eventtypes.ActionImport, id, ref)
	}
	return p.finish(r.Context(), err)
}

// fetch gets what is at an address of http or https. One without a scheme is of http, as with dockerd.
func fetch(ctx context.Context, address string) (io.ReadCloser, error) {
	whole := address
	if !strings.Contains(address, "://") {
		whole = "http://" + address
	}
	u, err := url.Parse(whole)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, invalid("invalid value for fromSrc: %q is neither - nor an address of http or https", address)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, invalid("invalid value for fromSrc: %v", err)
	}
	req.Close = true // nothing more is wanted from there
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch what is to be imported: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close() // of an answer that nobody reads
		return nil, errdefs.ErrNotFound.WithMessage("cannot fetch what is to be imported: " + address + " answers " + resp.Status)
	}
	return resp.Body, nil
}
