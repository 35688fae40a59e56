package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/moby/moby/api/types/jsonstream"
)

// answerJSON sends v. Characters of HTML stay as they are, as with dockerd.
func answerJSON(w http.ResponseWriter, code int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// sendArchive sends a tar archive as write makes it. An error before the first byte is an ordinary one. After
// it the connection is cut: an archive that stops in the middle must not look like the whole of it.
func sendArchive(w http.ResponseWriter, write func(io.Writer) error) error {
	a := &archiveWriter{w: w}
	err := write(a)
	if err != nil && a.started {
		return cutError{err}
	}
	if err == nil && !a.started {
		a.start() // an archive of nothing
	}
	return err
}

// cutError is an error after which the connection must not end as if nothing had happened.
type cutError struct{ error }

func (e cutError) Unwrap() error { return e.error }

// archiveWriter sends the head before the first byte.
type archiveWriter struct {
	w       http.ResponseWriter
	started bool
}

func (a *archiveWriter) start() {
	a.started = true
	a.w.Header().Set("Content-Type", "application/x-tar")
	a.w.WriteHeader(http.StatusOK)
}

func (a *archiveWriter) Write(p []byte) (int, error) {
	if !a.started {
		a.start()
	}
	return a.w.Write(p)
}

// progressWriter sends the messages of a long operation as they come. The status code is decided by the
// first: an operation that fails before it is an ordinary error, one that fails later says so in the stream.
type progressWriter struct {
	w       http.ResponseWriter
	flush   func() error
	started bool
}

func newProgressWriter(w http.ResponseWriter) *progressWriter {
	return &progressWriter{w: w, flush: http.NewResponseController(w).Flush}
}

// progressMessage has the field "error" too: clients older than API 1.24's read only that.
type progressMessage struct {
	jsonstream.Message
	ErrorText string `json:"error,omitempty"`
}

func (p *progressWriter) send(m jsonstream.Message) {
	if !p.started {
		p.started = true
		p.w.Header().Set("Content-Type", "application/json")
		p.w.WriteHeader(http.StatusOK)
	}
	out := progressMessage{Message: m}
	if m.Error != nil {
		out.ErrorText = m.Error.Message
	}
	line, err := json.Marshal(out)
	if err != nil {
		return
	}
	// A client that is gone ends the operation through its context.
	_, _ = p.w.Write(append(line, '\r', '\n'))
	_ = p.flush()
}

// finish ends the answer: what it returns is for the ordinary way of errors.
func (p *progressWriter) finish(ctx context.Context, err error) error {
	switch {
	case err != nil && !p.started:
		return err
	case err != nil:
		err = causeOf(ctx, err)
		p.send(jsonstream.Message{Error: &jsonstream.Error{Code: statusOf(err), Message: err.Error()}})
	case !p.started:
		p.w.Header().Set("Content-Type", "application/json")
		p.w.WriteHeader(http.StatusOK)
	}
	return nil
}
