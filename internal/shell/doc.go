// Package shell writes words for sh, for the scripts that systemd runs for containers and their health checks.
package shell
