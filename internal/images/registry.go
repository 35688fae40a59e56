package images

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/distribution/registry/api/errcode"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"
)

// hubAddress is how Docker's clients name docker.io in credentials.
const hubAddress = "index.docker.io"

// registryContext is the context of calls that reach the registry of named. auth
// may be nil.
func (s *Store) registryContext(named reference.Named, auth *registry.AuthConfig) *types.SystemContext {
	return s.hostContext(reference.Domain(named), auth)
}

// hostContext is registryContext by the registry's host.
func (s *Store) hostContext(host string, auth *registry.AuthConfig) *types.SystemContext {
	sys := s.systemContext()
	if s.insecureRegistry(host) {
		sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	}
	if auth == nil {
		return sys
	}
	user, password := userAndPassword(*auth)
	sys.DockerAuthConfig = &types.DockerAuthConfig{Username: user, Password: password, IdentityToken: auth.IdentityToken}
	sys.DockerBearerRegistryToken = auth.RegistryToken
	return sys
}

// userAndPassword are in fields of their own or, from old clients, in one.
func userAndPassword(a registry.AuthConfig) (user, password string) {
	if a.Username != "" || a.Auth == "" {
		return a.Username, a.Password
	}
	raw, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		return "", ""
	}
	user, password, _ = strings.Cut(string(raw), ":")
	return user, password
}

// Login tries credentials at the registry that they are for (docker.io if they
// name none). Errors: errdefs.ErrUnauthenticated when it does not take them,
// errdefs.ErrInvalidArgument without a user name.
func (s *Store) Login(ctx context.Context, auth registry.AuthConfig) error {
	host, err := registryHost(auth.ServerAddress)
	if err != nil {
		return err
	}
	user, password := userAndPassword(auth)
	if user == "" && auth.IdentityToken == "" && auth.RegistryToken == "" {
		return newError(errdefs.ErrInvalidArgument, "cannot log in to %s: no user name is given", host)
	}
	err = docker.CheckAuth(ctx, s.hostContext(host, &auth), user, password, host)
	_, refused := errors.AsType[docker.ErrUnauthorizedForCredentials](err)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case refused, registryCode(err) == errcode.ErrorCodeUnauthorized:
		return newError(errdefs.ErrUnauthenticated, "login attempt to %s failed: unauthorized: incorrect username or password: %w", host, err)
	}
	return fmt.Errorf("cannot log in to %s: %w", host, err)
}

// registryHost is the host of a server's address as clients save it: a host, or
// a URL.
func registryHost(address string) (string, error) {
	host := strings.TrimPrefix(strings.TrimPrefix(address, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	switch host {
	case "", "docker.io", hubAddress, "registry-1.docker.io":
		return "docker.io", nil
	}
	if name, err := reference.WithName(host + "/x"); err != nil || reference.Domain(name) != host {
		return "", newError(errdefs.ErrInvalidArgument, "registry %q is neither host nor host:port", address)
	}
	return host, nil
}

// InspectRemote asks a registry, or a mirror of it, about the image that ref names: what its
// manifest is, and for which platforms there is one. Errors are those of
// [Store.Pull].
func (s *Store) InspectRemote(ctx context.Context, ref string, auth *registry.AuthConfig) (_ registry.DistributionInspect, err error) {
	named, err := parseName(ref)
	if err != nil {
		return registry.DistributionInspect{}, err
	}
	source, err := docker.NewReference(named)
	if err != nil {
		return registry.DistributionInspect{}, newError(errdefs.ErrInvalidArgument, "invalid reference format: %q: %w", ref, err)
	}
	sys := s.registryContext(named, auth)
	g, err := s.openGuarded(ctx, source, sys, nil)
	if err != nil {
		return registry.DistributionInspect{}, pullError(ctx, named, err)
	}
	defer func() { err = errors.Join(err, g.shut()) }()
	raw, mimeType, err := g.asSource().GetManifest(ctx, nil)
	if err != nil {
		return registry.DistributionInspect{}, pullError(ctx, named, err)
	}
	d, err := manifest.Digest(raw)
	if err != nil {
		return registry.DistributionInspect{}, fmt.Errorf("cannot tell the digest of %s: %w", reference.FamiliarString(named), err)
	}
	r := registry.DistributionInspect{
		Descriptor: ocispec.Descriptor{MediaType: mimeType, Digest: d, Size: int64(len(raw))},
		Platforms:  []ocispec.Platform{},
	}
	if r.Platforms, err = platformsOf(ctx, g, sys, raw, mimeType); err != nil {
		return registry.DistributionInspect{}, pullError(ctx, named, err)
	}
	return r, nil
}

// platformsOf are the platforms that a manifest is for.
func platformsOf(ctx context.Context, g *guardedSource, sys *types.SystemContext, raw []byte, mimeType string) ([]ocispec.Platform, error) {
	if !manifest.MIMETypeIsMultiImage(mimeType) {
		head, err := describe(ctx, g, sys)
		if err != nil {
			return nil, err
		}
		return []ocispec.Platform{head.platform}, nil
	}
	list, err := manifest.ListFromBlob(raw, mimeType)
	if err != nil {
		return nil, err
	}
	platforms := []ocispec.Platform{}
	for _, d := range list.Instances() {
		one, err := list.Instance(d)
		if err != nil {
			return nil, err
		}
		if p := one.ReadOnly.Platform; p != nil && p.OS != "unknown" { // attestations are for none
			platforms = append(platforms, *p)
		}
	}
	return platforms, nil
}

// suits refuses an image of one platform where another one was asked for. A
// registry that has several has chosen already.
func suits(name string, have ocispec.Platform, want *ocispec.Platform) error {
	if want == nil || have.Architecture == "" {
		return nil
	}
	if (want.OS == "" || want.OS == have.OS) && (want.Architecture == "" || want.Architecture == have.Architecture) {
		return nil
	}
	return newError(errdefs.ErrNotFound, "image with reference %s was found but its platform (%s/%s) does not match the specified platform (%s/%s)",
		name, have.OS, have.Architecture, want.OS, want.Architecture)
}

// registryCode is the registry's own code for what went wrong.
func registryCode(err error) errcode.ErrorCode {
	if e, ok := errors.AsType[errcode.Error](err); ok {
		return e.Code
	}
	if c, ok := errors.AsType[errcode.ErrorCode](err); ok {
		return c
	}
	if list, ok := errors.AsType[errcode.Errors](err); ok {
		for _, e := range list {
			if coded, ok := e.(errcode.ErrorCoder); ok {
				return coded.ErrorCode()
			}
		}
	}
	return errcode.ErrorCodeUnknown
}
