package api

import (
	"net/http"

	"github.com/containerd/errdefs"

	"lrd/internal/config"
)

// errNotAManager is dockerd's sentence for a node outside of any swarm, with dockerd's 503.
var errNotAManager = errdefs.ErrUnavailable.WithMessage(
	`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)

func notAManager(*Server, http.ResponseWriter, *request) error { return errNotAManager }

func notInASwarm(*Server, http.ResponseWriter, *request) error {
	return errdefs.ErrUnavailable.WithMessage("This node is not part of a swarm")
}

// swarmBegin answers init and join. With live-restore the answer is dockerd's, which gives this error no
// kind, and so 500.
func (s *Server) swarmBegin(_ http.ResponseWriter, r *request) error {
	if r.config.LiveRestore {
		return errdefs.ErrInternal.WithMessage(config.LiveRestoreSwarm())
	}
	return notImplemented("lrd has no swarm mode: run dockerd on nodes of a swarm, or let systemd or an orchestrator of your choice manage single hosts")
}
