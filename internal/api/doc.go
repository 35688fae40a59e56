// Package api serves the Docker Engine API over the containers, images, volumes and networks that it is
// given. It knows nothing of systemd.
//
// # How a request goes
//
//	net/http ── Server.ServeHTTP: count it, log it, catch a panic
//	         ── version.go: strip /vN.NN, refuse what is too old or too new
//	         ── router.go: find the row of the route table (routes.go)
//	         ── Server.lifetime: its context, by the kind of the row
//	         ── the handler: parse, call, answer; or return an error
//	         ── errors.go: the one place that turns an error's kind into a status code
//
// The route table in routes.go reads as the page of the API: what is not in it does not exist (404), and what
// Docker has and lrd has not yet is in it with the sentence that a person gets (501).
//
// # Kinds of requests
//
// A query ends with its client: its context is that of the connection. A change runs to its end even though
// the client hangs up, as with dockerd: half a stop helps nobody. A stream (logs, attach, exec, events, wait,
// stats) ends with its client, and at once when the daemon leaves, so that a restart waits for no client; it is a
// session by then, which the next daemon goes on with (package sessions). A transfer (pull, push, load, save, import, cp,
// export) ends likewise, and is no session: its client is told, within a moment, that lrd is restarting. [Server.Shutdown]
// ends streams and transfers first, lets queries and changes finish, and cancels what is left when its own context is done.
//
// # Versions
//
// Requests and answers are the types of github.com/moby/moby/api, which are those of its newest version,
// [MaxVersion]. What an older client needs otherwise is done by named functions in compat_request.go and
// compat_response.go, and nowhere else. Unknown fields of a body are dropped, because older clients send
// fields that are gone; unknown values are refused with a sentence that names the field.
//
// # What it needs
//
// The interfaces in backend.go, grouped by purpose. The real ones are made by FromImages,
// FromVolumes and FromNetworks (adapters.go).
//
// # Adding an endpoint
//
//  1. A row in routes.go: method, path, kind, handler.
//  2. The handler in the file of its noun: parse with r.query() or r.decode(), call the backend, answer with answerJSON or w.WriteHeader.
//  3. If the backend needs a new method: in the smallest interface of backend.go that fits, and in fake_test.go.
//  4. Fields that older clients expect otherwise: a function in compat_*.go.
//  5. A test through moby/moby/client in client_test.go, and the refusals in server_test.go.
//
// # Goroutines
//
// net/http has one for each connection; Server owns no other, and package sessions owns those of a stream.
package api
