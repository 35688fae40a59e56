// Package thread runs functions on threads that nothing else runs on, before or after. What belongs to a thread and not to
// the process, its namespaces and its root directory, can be changed there, and is nobody's problem afterwards.
package thread
