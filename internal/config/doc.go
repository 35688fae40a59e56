// Package config turns lrd.toml, its drop-ins and the command line into one immutable [Config],
// and tells what changed between two of them.
//
// # Words
//
// A Key is one setting: `live-restore`, `bip`, … The keys carry the names of Docker's daemon.json wherever
// they mean the same. There is one table of them ([Keys]); the flags of the command line, the checks, the output
// of `lrd config`, the difference between two configurations and docs/configuration.md all derive from it.
// An Origin says where a value in force comes from: a line of a file, a flag, or the default.
//
// To add a key: a field in [Config], a row in the table (keys.go), a kind of value (kinds.go, values.go) if none fits, and
// `go test ./internal/config -run Reference -update`.
//
// # Layers
//
//	defaults                      the table of keys
//	  ▲ overridden by
//	/etc/lrd/lrd.toml             need not exist, unless somebody named it with --config
//	  ▲ overridden by
//	/etc/lrd/lrd.toml.d/*.toml    in lexical order of their names; the last one wins
//	  ▲ joined by
//	flags                         may repeat what a file says; a contradiction is refused (as dockerd does)
//
// A later file replaces a single value and a whole list. Tables (`runtimes`, `log-opts`, `default-ulimits`) are
// merged entry by entry, so that a package can add a runtime in a drop-in of its own; an entry that is named
// again is replaced whole.
//
// A key that is in no file has its default. It follows that a key removed from a file goes back to its default at
// the next reload, and that a default file which vanished means "all defaults", while the absence of a file that
// was named with --config is an error, at reload as at start.
//
// # Errors
//
// [Load] reports everything that is wrong in all files and flags at once, as [Errors]: each names the file and
// line (or the flag), the key, what is wrong and what would be right. A value that a later file overrides
// is checked too: it would bite on the day the later file goes away. Within one file a syntax error hides
// what comes after it, because where a broken line ends is anybody's guess.
//
// # Ownership
//
// A Config is never written to once Load has returned; whoever wants another loads or merges another. It is safe
// for concurrent use, and an operation keeps the one it started with. Nothing in this package starts a
// goroutine, keeps a descriptor or takes a lock.
package config
