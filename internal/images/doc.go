// Package images keeps images and root filesystems: it loads, imports, pulls,
// lists, tags and removes images, and it gives a container its root filesystem.
//
// # Words
//
// An image is named by the digest of its configuration ("sha256:" and 64 hex
// digits), as Docker names it. A reference is what a person types: a name with
// or without tag, a name with digest, an ID or the beginning of one. Names are
// kept in full ("docker.io/example/bb:latest", [reference.ParseDockerRef]) and
// shown in Docker's familiar form ("example/bb:latest"). A layer is one
// difference between two trees; a root filesystem is a writable layer on top of
// an image's layers, and carries the ID of the container that it belongs to.
//
// # Below
//
// The work is done by go.podman.io/storage (layers, images, mounts) and
// go.podman.io/image/v5 (archives, registries). They are used directly rather
// than through libimage: libimage reads the host's containers.conf whatever it
// is told, and gives names without a registry to "localhost/". Nothing of the
// host's configuration is read (storage.conf, registries.conf, registries.d,
// auth.json, policy.json, ~/.docker): isolate.go puts files of lrd's own in the
// place of every one of them.
//
//	GraphRoot/                      survives a reboot
//	  <driver>/<layer id>/          layers; diff/, work/, merged/ with overlay
//	  <driver>-layers/              what is known of the layers
//	  <driver>-images/<image id>/   manifest, configuration, "lrd" (see mark)
//	  <driver>-containers/          root filesystems, named by container
//	  lrd/pulls/<image id>.json     which layers a pull brings (interrupted.go)
//	RunRoot/                        gone after a reboot
//	  <driver>-layers/              which layers are mounted, and how often
//	  config/                       stands in for the host's configuration
//	TempDir/images/                 emptied by Open: archives on their way in
//
// The storage is safe between processes (flock), so skopeo may look into it
// while the daemon runs.
//
// # What comes in is not trusted
//
// An archive is first written to TempDir, uncompressed and counted, and then
// looked through from end to end (scan.go) before a byte of it reaches the
// storage: every member's name, every layer's entries, and what all of it
// unpacks to. Pulled layers pass the same scan on the way in (guard.go). What
// is refused is refused with errdefs.ErrInvalidArgument and a sentence that
// names the member; layers that had been stored before the fault was found are
// deleted again (gate.go).
//
// # What fails in the middle
//
// An image is in the storage when its record is written, after all of its
// layers; before, there are only layers without an image. After a refusal they are
// deleted. A pull that is interrupted, by its client, by the network, by an ill
// registry or by the end of the process, leaves them for the next pull, together
// with a note that names them; a day later, or with a prune, they go. What a process that was
// killed has left besides is deleted by the next [Open].
//
// The download of a layer that fails is tried again (attempts.go). An archive
// that is saved and fails is cut off before its end.
//
// # Root filesystems
//
// A mount is the kernel's and outlives the process. [Store.MountRootfs] may be
// called any number of times and holds one mount count, so that one
// [Store.UnmountRootfs] undoes it. After a reboot RunRoot is empty and the
// next MountRootfs mounts anew. An image that is removed by force while stopped
// containers use it leaves the list at once; its layers go with the last of
// those containers.
//
// # Goroutines and locks
//
// A Store starts no goroutine that outlives the call it serves (the compressor of
// a push that is cut off leaves one of its own, and a block of a megabyte). Its methods may
// be called concurrently. The storage's own locks are taken for single steps;
// data is unpacked outside of them. No lock that another call waits for is
// held while a registry or an archive is read.
package images
