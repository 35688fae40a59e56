// Package oci turns a create request of the Docker Engine API into what runs
// it: an OCI runtime Spec (the config.json of a bundle) and the resource
// [Limits] that the container's systemd unit carries.
//
// # Words
//
//   - Request: the Config and HostConfig of POST /containers/create, with the
//     image's own configuration already merged in by the caller.
//   - [Input]: a request, plus everything the caller resolved for it: the root
//     filesystem, the mounts' host paths, the user's numbers, the namespaces.
//   - [Machine]: what is asked of the host. It is data and one function, so
//     that everything else here is a function of its arguments; [Probe] fills
//     it in from the real host, a test fills it in by hand.
//
// # Lifecycle of a request
//
//	Validate ─ is the request one that could ever run here?   (at create)
//	MountPoints ─ which binds, volumes and tmpfs does it ask for?
//	   the caller makes volumes and fills in Mount.HostPath
//	ResolveUser ─ names to numbers, by the files of the root filesystem
//	   (the only step that reads the container's own files; at each start)
//	Spec, LimitsOf ─ the bundle's config.json and the unit's properties
//	InjectCDI ─ what devices bring along that are asked for by name
//	   and while it runs
//	UpdateResources, Observed ─ what docker update makes of its resources, and what they are by the unit
//
// Nothing here keeps state, starts a goroutine or holds a descriptor open past
// its return. Errors of a request are [errdefs.ErrInvalidArgument] (or
// ErrNotImplemented for what lrd does not offer) with the sentence that
// Docker's daemon gives, where it has one: people search for those.
//
// # Where lrd differs from Docker's daemon
//
//   - The Spec carries no cgroup resources and no cgroup path. Limits are
//     properties of the unit, so that systemctl set-property, systemd-cgtop and
//     `docker update` speak of one thing, and the runtime is told to leave
//     cgroups alone.
//   - ociVersion is [SpecVersion], not the version of the Go types: crun 1.8.1
//     refuses 1.2.0 and newer, and nothing written here needs more.
//   - IpcMode "shareable" without a host directory for /dev/shm gets a plain
//     tmpfs; the caller decides by Input.ShmPath.
package oci
