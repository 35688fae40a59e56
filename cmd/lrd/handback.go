package main

import "lrd/internal/containers"

// handBackCommand is the subcommand that no person calls: it is the ExecReload=
// of the units that keep consoles while lrd is stopped (containers.HandBack).
const handBackCommand = "hand-back"

// runHandBack is the whole process. It says nothing, since its standard streams
// are those of a container.
func runHandBack(args []string) int {
	if len(args) < 2 || containers.HandBack(args[0], args[1:]) != nil {
		return exitFailed
	}
	return 0
}
