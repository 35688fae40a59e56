// Package journal is how lrd and its small helpers log: lines on standard error that the journal reads, each with its
// priority (sd-daemon(3)), so that `journalctl -p err -u lrd` finds what went wrong.
//
//	<4>Cannot keep a descriptor name=… error=…
//
// The message comes first and unquoted, because that is what a person reads; what follows is key=value. Time, unit and
// process are the journal's own. On a terminal the name of the level stands in the priority's place.
//
// A logger writes each line at once and whole, from any goroutine; nothing is kept, and no goroutine is started.
package journal
