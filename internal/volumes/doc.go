// Package volumes keeps local volumes: directories with a name that outlive the
// containers that mount them.
//
// # Words
//
// A named volume has a name that a person chose; an anonymous one has 64 random
// hex digits and Docker's label for it, [AnonymousLabel]. The driver is always
// "local". Copy-up is what Docker does the first time that an empty volume is
// mounted over a directory of the image: the directory's content goes into the
// volume.
//
// A volume with options (type, device, o, as mount(8) has them) is what they say,
// mounted on the volume's directory for as long as it has a holder. Holders are
// whoever has the volume at the moment, by names that the caller chooses. They are
// not on disk: after a start the caller tells those of before ([Store.Hold]), and then
// what nobody has is unmounted ([Store.Release]). A mount outlives the process, so that a
// volume stays mounted over a restart.
//
// # On disk
//
//	root/                    0711, root's
//	  <name>/                0700
//	    volume.json          what is known of the volume, schema-versioned
//	    _data/               what containers mount
//	    copy-up.tmp/         a copy-up on its way
//	    copy-up/             one that is whole, and is being moved into _data/
//	                         (of a volume with options: _data/.lrd-copy-up*)
//	  .new-<random>/         a volume on its way into being
//	  .gone-<random>/        one on its way out
//
// A volume appears and disappears by one rename, so that a crash leaves either
// all of it or a dotted directory, which [Open] deletes. No volume's name begins
// with a dot. volume.json is written atomically, with fsync.
//
// # Who knows what
//
// Which containers use a volume is the caller's to know; it is asked where it
// matters (dangling, Remove). A volume that has a holder is not removed either.
// What is mounted is unmounted before a volume is deleted, and never deleted itself. The names of volumes are checked before they
// become paths, and the paths below a root filesystem that comes from an image
// are resolved within it: an image's symbolic links lead nowhere else. Nor do those of a container that has a volume with options, and
// could change in it what is being copied: everything there is done within the volume's own directory (os.Root).
//
// # Goroutines and locks
//
// There are no goroutines. A Store's methods may be called concurrently;
// operations on one volume wait for each other.
package volumes
