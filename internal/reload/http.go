package reload

import (
	"encoding/json"
	"net/http"

	"github.com/containerd/errdefs"
)

// Path is where the API serves Handler. It is no part of Docker's API: it carries no version.
const Path = "/lrd/reload"

// Handler answers POST [Path] with the Report as JSON, after the reload; that is what `lrd reload` waits for. A
// refusal is {"message": …}: 400 when the configuration is wrong, 503 when lrd is stopping, 500 otherwise.
func (c *Coordinator) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			answer(w, http.StatusMethodNotAllowed, problem{"a reload is a POST"})
			return
		}
		report, err := c.Reload(r.Context())
		switch {
		case err == nil:
			answer(w, http.StatusOK, report)
		case errdefs.IsInvalidArgument(err):
			answer(w, http.StatusBadRequest, problem{err.Error()})
		case errdefs.IsUnavailable(err):
			answer(w, http.StatusServiceUnavailable, problem{err.Error()})
		default:
			answer(w, http.StatusInternalServerError, problem{err.Error()})
		}
	})
}

// problem is the body of an error, as everywhere in the Docker API.
type problem struct {
	Message string `json:"message"`
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // a client that has gone learns nothing
}
