package images

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/distribution/registry/api/errcode"
	"github.com/moby/moby/api/types/registry"
	"go.podman.io/image/v5/docker"
)

// Search asks a registry for repositories that have term in their name, limit of them at most. A term whose first part is a
// host ("example.com/web") is for the registry there, any other for Docker Hub, which alone knows stars and descriptions; a
// registry without a search of its own is asked for all that it has. Errors: errdefs.ErrInvalidArgument for a term that
// is none, errdefs.ErrUnauthenticated when the registry wants to know who asks.
func (s *Store) Search(ctx context.Context, term string, limit int, auth *registry.AuthConfig) ([]registry.SearchResult, error) {
	host, name, err := searchTerm(term)
	if err != nil {
		return nil, err
	}
	found, err := docker.SearchRegistry(ctx, s.hostContext(host, auth), host, name, limit)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case registryCode(err) == errcode.ErrorCodeUnauthorized, registryCode(err) == errcode.ErrorCodeDenied:
		return nil, newError(errdefs.ErrUnauthenticated, "cannot search %s: unauthorized: authentication required: %w", host, err)
	case err != nil:
		return nil, fmt.Errorf("cannot search %s: %w", host, err)
	}
	results := []registry.SearchResult{}
	for _, r := range found[:min(limit, len(found))] { // not all registries count
		results = append(results, registry.SearchResult{Name: r.Name, Description: r.Description, StarCount: r.StarCount, IsOfficial: r.IsOfficial})
	}
	return results, nil
}

// searchTerm takes the registry's host off a term.
func searchTerm(term string) (host, name string, err error) {
	if strings.Contains(term, "://") {
		return "", "", newError(errdefs.ErrInvalidArgument, "invalid repository name: repository name (%s) should not have a scheme", term)
	}
	host, name, cut := strings.Cut(term, "/")
	if !cut || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host, name = "docker.io", term
	}
	if host, err = registryHost(host); err != nil {
		return "", "", err
	}
	return host, name, nil
}
