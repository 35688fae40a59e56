// Package logopts is what a container may say about its log: which log drivers
// there are, which options each of them takes, and what labels, environment
// and tag add to an entry.
//
// # Words
//
// A log driver is where a container's output goes besides lrd's own store,
// which always has it and from which `docker logs` and `docker attach` are
// served. Its name and its options are those of `docker run --log-driver` and
// `--log-opt`; they stay with the container from its creation on. Attributes
// are what the options labels, labels-regex, env, env-regex and tag choose of
// a container, for people who look for its entries elsewhere.
//
// # Drivers
//
//	local      nothing besides the store: the default
//	none       nothing, and `docker logs` is refused; the store has what
//	           attached clients need
//	json-file  the files that Docker's driver of that name writes
//	journald   the journal of this machine
//	syslog     a syslog server, here or elsewhere
//	fluentd    a collector that speaks the forward protocol (Fluentd, Fluent Bit)
//
// Package logdrivers does the work. Here is what can be said without doing it,
// so that the configuration, the API and the containers say the same.
//
// # Sentences
//
// What is wrong with a driver or an option is said in Docker's words where
// Docker has some, as scripts know them. Errors carry no kind of errdefs: whoever asks
// knows what a bad option means to its own caller.
//
// Everything here is a function of its arguments and safe for concurrent use.
package logopts
