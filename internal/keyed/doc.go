// Package keyed has a lock for each of any number of keys, such as the IDs of containers or the names of volumes: who
// works on one waits for nobody who works on another. A key that nobody has locked takes no memory.
package keyed
