// Package rootfs reads and writes the files of a container as the container sees
// them: tar archives out of its tree and into it (`docker cp`, `docker export`).
//
// # Words
//
// A Tree is a root directory and what is mounted below it. A path is one of the
// container's: absolute, with "/" as the Tree's root. Nothing in a Tree is trusted:
// neither its symbolic links and mounts, nor that a path means the same at the
// next look, as the container may run and change it all the while. Neither is
// what comes in an archive.
//
// # How a path stays in its tree
//
// Every look-up is openat2(2) from a descriptor of the root with RESOLVE_IN_ROOT:
// the kernel itself takes "..", absolute symbolic links and mount points as a
// process would that is chrooted there, with no moment between a check and a use,
// and refuses the links of /proc that lead elsewhere. What is found is held as a
// descriptor and used through it: a file is looked at before it is opened, so that
// no device is ever opened and no FIFO waited for, and a directory's entries are
// opened relative to it, one component at a time and without following links.
// A container that swaps a path while it is copied gets another of its own files
// copied, and nothing else.
//
// No process enters a container's tree, and no code, library or configuration is
// ever loaded from one: the daemon's own process makes the system calls. That
// leaves nothing to what a chrooted helper might look up (CVE-2019-14271), and
// nothing to the time between a check and a use (CVE-2018-15664).
//
// # Two views
//
// [OpenProcess] is the view of a container that runs: /proc/<pid>/root, where all
// is as the container sees it, volumes, binds and tmpfs included. [Assemble] is
// the view of one that does not: a mount namespace that nothing runs in, with the
// root filesystem, its volumes and its binds, held by a descriptor. It is
// made by a thread that ends afterwards, and the kernel takes it down with the
// last descriptor, also when the daemon is killed. Both hold their mount namespace
// until Close: what is mounted in a tree does not go away under a copy when the
// container ends.
//
// [Open] is a directory of the host's without what is mounted elsewhere, for an
// export, which has a container's own files and none of its volumes.
//
// # Archives
//
// Going out: what `docker cp` writes. Hard links within an archive stay hard links,
// sockets are left out, and so is what is in the kernel's own file systems (proc,
// sysfs, …). A file that grows is copied up to its size at the beginning. One that
// shrinks ends the archive with an error, before its end marker: an archive that
// is whole says so.
//
// Coming in: what exists is replaced as tar(1) does it, a directory is never
// replaced by what is none if that was asked for, and names with ".." in front
// are refused. A member's symbolic link may say what it likes: it is resolved
// within the tree, like every other.
//
// # Goroutines and descriptors
//
// Assemble uses a goroutine that has ended when it returns. A Tree owns its
// descriptors until Close. A Tree may be used concurrently.
package rootfs
